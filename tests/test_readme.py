"""The README against the tree: its file map, its commands, the example configs."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from paths import ROOT

from autolambda.cli.main import cli
from autolambda.config_file import load_config

README = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = dict(re.findall(r"^\| `(autolambda/[^`]+)` \| (.+?) \|$", README, flags=re.MULTILINE))


def modules() -> dict[str, Path]:
    files = sorted((ROOT / "autolambda").rglob("*.py"))
    return {str(path.relative_to(ROOT)): path for path in files if path.stat().st_size}


def test_every_module_is_in_the_map_and_every_entry_in_the_tree():
    assert sorted(name for name in MAP if name.endswith(".py")) == sorted(modules())


@pytest.mark.parametrize("name", sorted(MAP))
def test_map_line_is_short(name):
    assert (ROOT / name).exists()
    assert len(MAP[name]) <= 110


@pytest.mark.parametrize("path", modules().values(), ids=modules())
def test_every_module_has_a_docstring(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_the_top_level_is_what_was_agreed():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {line.split("/")[0] for line in listed.splitlines()}
    agreed = {"pyproject.toml", "README.md", "LICENSE", "autolambda", "tests", "studies", "configs"}
    assert {name for name in top if not name.startswith(".")} == agreed


def test_commands_in_the_readme_exist():
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL))
    named = {
        *re.findall(r"^(?:.*&& )?autolambda (\w+)", blocks, flags=re.MULTILINE),
        *re.findall(r"`autolambda (\w+)", README),
    }
    assert {"search", "report", "export", "merge"} <= named
    assert named <= set(cli.commands)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_example_configs_are_valid(path):
    load_config(path, overrides={})
