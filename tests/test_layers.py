"""Imports go down only, heavy packages stay where they belong, and the start-up loads none of them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import autolambda

ROOT = Path(autolambda.__file__).parent
PARENTS = [str(ROOT / "bundled" / name) for name in ("instruct", "thinking")]
LAYERS = (
    {
        "__init__",
        "allowance",
        "byte_bar",
        "engines.__init__",
        "engines.device",
        "engines.rows",
        "errors",
        "files",
        "gaussian_process",
        "graders.latex",
        "graders.reading",
        "json_text",
        "limits",
        "quantiles",
        "responses",
        "schema",
        "tasks.__init__",
        "yaml_text",
    },
    {
        "chat",
        "curve",
        "databases.base",
        "engines.vllm_layout",
        "engines.vllm_process",
        "estimates",
        "folders",
        "graders.choice",
        "graders.contains",
        "graders.exact",
        "graders.ifeval",
        "graders.lm_eval_tasks",
        "graders.math",
        "graders.number",
        "graders.own",
        "graders.regex",
        "hub",
        "merge",
        "pareto",
        "schedule",
        "settings",
        "shards",
        "strict",
        "tasks.rows",
    },
    {
        "ablation_config",
        "checkpoint",
        "databases.postgresql",
        "databases.sqlite",
        "graders.lm_eval",
        "guards",
        "methods",
        "metrics",
        "shard_writer",
        "stages",
        "surrogate",
        "tasks.base",
        "tasks.sources",
    },
    {
        "databases.__init__",
        "digest",
        "engines.base",
        "engines.transformers_layout",
        "entry",
        "fingerprint",
        "events",
        "graders.__init__",
        "ladder",
        "owed",
        "returns",
        "tasks.arithmetic",
        "tasks.free_form",
        "tasks.ifeval",
        "tasks.lm_eval",
        "tokenizer_files",
    },
    {
        "ablation",
        "engines.draw",
        "graders.worker",
        "mismatch",
        "store",
        "tasks.aime24",
        "tasks.gsm8k",
        "tasks.math500",
        "tasks.multiple_choice",
    },
    {"graders.pool", "pair", "tasks.aime25", "tasks.gpqa_diamond"},
    {"engines.by_method", "engines.decoder", "merges"},
    {
        "engines.batch",
        "engines.vllm_call",
        "engines.vllm_parents",
        "graders.marking",
        "pieces",
        "recipe",
        "stream",
        "tasks.benchmarks",
    },
    {
        "engines.transformers",
        "engines.vllm_memory",
        "engines.vllm_worker",
        "evaluation",
        "tasks.config",
        "worker",
    },
    {"cluster", "config", "engines.cut", "engines.vllm_arguments", "member"},
    {"crew", "engines.vllm"},
    {"box", "models", "tasks.slices", "workers"},
    {"acquisition", "evidence", "forecast", "identity", "prompts"},
    {"optuna_samplers"},
    {"sampler"},
    {"confirm", "growth", "job", "racing", "study"},
    {"ablation_results", "baselines", "history", "job_engine", "record"},
    {"entries", "worth"},
    {"report"},
    {"measurement", "run"},
    {"ablation_run", "baseline_run", "card"},
    {"arguments", "confirm_run", "export", "findings", "task_tables"},
    {"commands.base", "comparison", "frames", "tables"},
    {"figures.base", "formats", "progress", "search", "status"},
    {
        "ablation_tables",
        "figures.ablation",
        "figures.curve",
        "figures.front",
        "figures.lengths",
        "figures.progress",
        "figures.race",
        "figures.schedules",
    },
    {"figures.__init__"},
    {"page"},
    {"opened"},
    {f"commands.{name}" for name in ("measure", "merge", "search", "study")},
    {"commands.__init__"},
    {"cli"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
HEAVY = {
    "torch": {
        "merge",
        "shards",
        "shard_writer",
        "checkpoint",
        "pair",
        "merges",
        "stream",
        "engines.device",
        "engines.draw",
        "engines.rows",
        "engines.batch",
        "engines.transformers",
        "engines.vllm",
        "engines.vllm_layout",
        "engines.vllm_parents",
        "engines.transformers_layout",
        "engines.vllm_process",
        "engines.vllm_worker",
        "fingerprint",
    },
    "transformers": {"chat", "engines.decoder", "engines.rows", "engines.transformers", "engines.vllm"},
    "optuna": {"optuna_samplers", "study"},
    "sqlalchemy": {"schema", "store", *(f"databases.{name}" for name in ("__init__", "base", "postgresql", "sqlite"))},
    "pandas": {"ablation_tables", "formats", "frames", "history", "findings", "comparison", "opened", "figures.race"},
    "plotly": {"opened", "page", "figures.__init__", "figures.base"}
    | {f"figures.{name}" for name in ("ablation", "front", "curve", "schedules", "lengths", "progress", "race")},
    "jinja2": {"page"},
    "rich": {
        "ablation_tables",
        "byte_bar",
        "commands.base",
        "formats",
        "page",
        "progress",
        "status",
        "tables",
        "task_tables",
    },
    "click": {"cli"} | {f"commands.{name}" for name in ("__init__", "base", "measure", "merge", "search", "study")},
    "datasets": {"tasks.sources"},
    "math_verify": {"graders.latex"},
    "nltk": {"graders.ifeval"},
    "vllm": {
        "engines.vllm_arguments",
        "engines.vllm_call",
        "engines.vllm_layout",
        "engines.vllm_process",
        "engines.vllm_worker",
    },
    "ray": {"cluster", "member"},
}


def modules():
    """Every file by its dotted name below the package."""
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")}


def imports(source):
    """The dotted names that a source imports anywhere, in functions and for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide their layer"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def own(names):
    """The files of the package among imported names; a folder stands for its ``__init__``."""
    known = modules()
    below = {name.removeprefix("autolambda.") for name in names if name.startswith("autolambda.")}
    return {each for name in below for each in (name, f"{name}.__init__") if each in known}


def too_high(name, source):
    """What a file imports from its own layer or a higher one; a folder's ``__init__`` has a layer of its own."""
    return {each for each in own(imports(source)) if LEVEL[each] >= LEVEL[name]}


def test_every_file_has_its_layer():
    assert modules().keys() == LEVEL.keys()
    assert sum(map(len, LAYERS)) == len(LEVEL)


@pytest.mark.parametrize("name", sorted(LEVEL))
def test_a_file_imports_only_from_lower_layers(name):
    source = modules()[name].read_text()
    package, _, _ = name.rpartition(".")
    ups = too_high(name, source)
    if package:  # a peer's import runs its folder's __init__ and names it in passing
        ups -= {f"{package}.__init__"} - {each for each in own(_plain(source)) if each.endswith("__init__")}
    assert not ups


def _plain(source):
    """Names imported from a folder itself, such as GRADERS, not from a file in it."""
    known = modules()
    return {
        name.rpartition(".")[0]
        for name in imports(source)
        if f"{name.rpartition('.')[0].removeprefix('autolambda.')}.__init__" in known
        and name.removeprefix("autolambda.") not in known
    }


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("metrics", "from autolambda.report import Report", {"report"}),
        ("metrics", "def f():\n    from autolambda import search", {"search"}),
        ("metrics", "import autolambda.stages", {"stages"}),  # a peer
        ("metrics", "from autolambda.errors import InputError", set()),
        ("responses", "from autolambda.graders import GRADERS", {"graders.__init__"}),
        ("search", "if TYPE_CHECKING:\n    from autolambda.cli import cli", {"cli"}),
    ],
)
def test_an_import_upwards_is_found(name, source, expected):
    assert too_high(name, source) == expected


@pytest.mark.parametrize("package", HEAVY)
def test_heavy_packages_are_imported_where_they_belong(package):
    users = {
        name
        for name, path in modules().items()
        if any(each.partition(".")[0] == package for each in imports(path.read_text()))
    }
    assert users == HEAVY[package]


@pytest.mark.parametrize("module", ["report", "status", "formats", "opened"])
def test_reading_a_study_does_without_torch(module):
    code = f"import sys, autolambda.{module}\nprint(sorted({{'torch', 'transformers', 'vllm'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_merge_from_files_to_files_loads_torch_alone(tmp_path):
    """Most of its time would be spent on importing the rest."""
    words = ["merge", *PARENTS, str(tmp_path / "out"), "--lambda", "0.5"]
    code = (
        "import atexit, sys\nfrom autolambda.cli import cli\n"
        "atexit.register(lambda: print('loaded', *{name.partition('.')[0] for name in sys.modules}))\n"
        f"cli.main({words})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rpartition("loaded ")[2].split())
    assert "torch" in loaded and (tmp_path / "out" / "README.md").exists()
    assert not loaded & {"transformers", "tokenizers", "sqlalchemy", "optuna", "scipy", "pandas", "datasets", "vllm"}


@pytest.mark.parametrize(
    "start",
    [
        "import autolambda",
        "from autolambda.cli import cli; cli.main(['--help'], standalone_mode=False)",
        "from autolambda.cli import cli; cli.main(['search', '--help'], standalone_mode=False)",
    ],
)
def test_starting_loads_nothing_heavy(start):
    code = f"import sys\n{start}\nprint('loaded', *sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rpartition("loaded ")[2].split())
    assert "autolambda" in loaded
    assert not loaded & {
        "torch",
        "transformers",
        "optuna",
        "pandas",
        "datasets",
        "vllm",
        "ray",
        "numpy",
        "sqlalchemy",
        "plotly",
    }
