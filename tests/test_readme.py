"""The documents against the tree: wings, file maps, commands, example configs."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from paths import ROOT

from autolambda.cli.main import cli
from autolambda.config_file import load_config

PACKAGE = ROOT / "autolambda"
README = (ROOT / "README.md").read_text(encoding="utf-8")
WINGS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py") if path.parent.name != "bundled")


def modules(folder: Path) -> set[str]:
    """The files of a wing, relative to its folder, but for an empty ``__init__.py``."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.py") if path.stat().st_size}


def file_map(readme: Path) -> dict[str, str]:
    rows = re.findall(r"^\| `([\w./]+\.py)` \| (.+?) \|$", readme.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: words for name, words in rows if not name.startswith("..")}


@pytest.mark.parametrize("wing", WINGS, ids=lambda wing: wing.name)
def test_a_wing_has_a_page_whose_map_is_its_folder(wing: Path) -> None:
    found = file_map(wing / "README.md")
    assert sorted(found) == sorted(modules(wing))
    assert max(map(len, found.values())) <= 110


def test_the_readme_lists_every_wing_and_every_file_of_the_root() -> None:
    assert sorted(re.findall(r"^\| \[autolambda/(\w+)\]", README, flags=re.MULTILINE)) == [w.name for w in WINGS]
    root = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    last = README[README.index("At the root:") :]
    assert root <= set(re.findall(r"`(\w+\.py)`", last))


def test_folders_and_files_stay_small() -> None:
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= 14, folder
        for path in files:
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 250, path
    assert 140 <= len(README.splitlines()) <= 180


def test_every_module_has_a_docstring() -> None:
    for name in modules(PACKAGE):
        assert ast.get_docstring(ast.parse((PACKAGE / name).read_text(encoding="utf-8"))), name


def test_the_top_level_is_what_was_agreed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {line.split("/")[0] for line in listed.splitlines()}
    agreed = {"pyproject.toml", "README.md", "LICENSE", "autolambda", "tests", "studies", "configs"}
    assert {name for name in top if not name.startswith(".")} == agreed


def test_every_study_is_in_their_list() -> None:
    listed = re.findall(r"^\| \[(\w+)\]", (ROOT / "studies/README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    studies = {path.parent.name for path in (ROOT / "studies").glob("*/*") if path.suffix in (".py", ".md", ".ipynb")}
    assert sorted(listed) == sorted(studies)


def test_commands_in_the_readme_are_all_commands() -> None:
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL))
    named = {
        *re.findall(r"^(?:.*&& )?autolambda (\w+)", blocks, flags=re.MULTILINE),
        *re.findall(r"`autolambda (\w+)", README),
    }
    assert named == set(cli.commands)


def test_links_of_the_documents_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "studies/README.md", *PACKAGE.glob("*/README.md"), ROOT / "tests/README.md"]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_example_configs_are_valid(path: Path) -> None:
    load_config(path, overrides={})
