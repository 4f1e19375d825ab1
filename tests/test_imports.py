"""The import contracts of pyproject.toml hold, heavy packages stay in their wings, and a start loads none of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import autolambda
from autolambda.bundled import FOLDER

ROOT = Path(autolambda.__file__).parent
HEAVY = {
    "torch": {"merging", "engines", "driver", "tracking"},  # of the last, TensorBoard's writer
    "transformers": {"merging", "engines", "driver"},
    "vllm": {"engines/vllm"},
    "ray": {"engines/workers"},
    "optuna": {"optimizer", "study"},
    "rich": {"report", "cli", "ablation"},
    "plotly": {"report", "ablation", "study_view"},
    "datasets": {"tasks"},
    "sqlalchemy": {"study"},
    "click": {"cli"},
    "mlflow": {"tracking"},
    "wandb": {"tracking"},
}


def wings_that_import(package: str) -> set[str]:
    found = set()
    for path in ROOT.rglob("*.py"):
        wing = path.relative_to(ROOT).parent if path.parent != ROOT else Path(path.stem)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == package for name in names):
                found.add(wing.as_posix())
    return found


@pytest.mark.parametrize("package", HEAVY)
def test_a_heavy_package_stays_in_its_wings(package: str) -> None:
    allowed = HEAVY[package]
    found = wings_that_import(package)
    assert found, "nothing imports it any more"
    assert all(any(wing == each or wing.startswith(f"{each}/") for each in allowed) for wing in found), found


def test_imports_go_down_and_in_no_circle() -> None:
    done = subprocess.run(["lint-imports", "--no-cache"], cwd=ROOT.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def loaded_by(code: str) -> set[str]:
    """The top-level packages that a fresh process has loaded after the code."""
    report = "import atexit, sys; atexit.register(lambda: print('loaded', *{n.partition('.')[0] for n in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{report}\n{code}"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.rpartition("loaded ")[2].split())


@pytest.mark.parametrize("module", ["study_view", "report.report", "report.status", "report.json_csv"])
def test_reading_a_study_does_without_torch(module: str) -> None:
    assert not loaded_by(f"import autolambda.{module}") & {"torch", "transformers", "vllm"}


def test_a_merge_from_files_to_files_loads_torch_and_transformers_alone(tmp_path: Path) -> None:
    """The tokenizer alone knows all that ends a response. Importing the rest would take more time."""
    words = ["merge", str(FOLDER / "instruct"), str(FOLDER / "thinking"), str(tmp_path / "out"), "--lambda", "0.5"]
    loaded = loaded_by(f"from autolambda.cli.main import cli\ncli.main({words})")
    assert "torch" in loaded and (tmp_path / "out" / "README.md").exists()
    assert not loaded & {"sqlalchemy", "optuna", "datasets", "vllm"}


@pytest.mark.parametrize(
    "start",
    [
        "import autolambda",
        "import autolambda; autolambda.search",
        "from autolambda.cli.main import cli; cli.main(['--help'], standalone_mode=False)",
        "from autolambda.cli.main import cli; cli.main(['search', '--help'], standalone_mode=False)",
    ],
)
def test_a_start_loads_nothing_heavy(start: str) -> None:
    loaded = loaded_by(start)
    assert "autolambda" in loaded
    assert not loaded & {*HEAVY, "numpy", "pandas"} - {"click"}
