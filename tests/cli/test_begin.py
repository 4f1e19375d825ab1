"""The way in: the project file and its notes, the demo, what is found and asked by ``init``, all problems at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from command_line import Run, files, refused
from small_search import SETTINGS

from autolambda.bundled import FOLDER
from autolambda.project.schema import FILE, schema_json

INSTRUCT, THINKING = str(FOLDER / "instruct"), str(FOLDER / "thinking")
PAIR = f"models: {{instruct: {INSTRUCT}, thinking: {THINKING}}}\n"


def rows(name: str, row: Callable[[int], dict[str, object]], number: int = 60) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("".join(json.dumps(row(i)) + "\n" for i in range(number)))
    return name


def sums(name: str = "my.jsonl", number: int = 60) -> str:
    return rows(name, lambda i: {"question": f"{i}+1=", "answer": str(i + 1)}, number)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The searches that would have run, as name, storage and config."""
    found: list[dict[str, object]] = []

    def search(config: object, *, name: str, storage: str, on_event: object) -> None:
        found.append({"config": config, "name": name, "storage": storage})
        raise KeyboardInterrupt

    monkeypatch.setattr("autolambda.driver.search.search", search)
    return found


def test_the_project_file_is_the_default_config_here_and_below(
    run: Run, asked: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    sums("data/my.jsonl")
    here = Path.cwd()
    Path("autolambda.yaml").write_text(PAIR + "tasks: [data/my.jsonl]\nbudget: 50\nsearch: {trials: 9}\n")
    ran = run("search", "--budget", "4k")
    assert ran.code == 130 and ran.err.splitlines()[0] == "note: config: autolambda.yaml"
    assert "no models given" not in ran.out
    Path("a/b").mkdir(parents=True)
    monkeypatch.chdir("a/b")
    ran = run("search", "--trials=12", "--grader=exact", "--limit=20", "--max-tokens=99", "--engine=transformers")
    assert ran.err.splitlines()[0] == "note: config: ../../autolambda.yaml"
    first, second = (each["config"] for each in asked)
    assert (first.budget, first.search.trials, first.tasks[0].path) == (4000, 9, str(here / "data/my.jsonl"))
    assert (second.budget, second.search.trials, second.tasks[0].path) == (50, 12, str(here / "data/my.jsonl"))
    assert (second.tasks[0].grader, second.tasks[0].limit, second.confirm.limit) == ("exact", 20, 20)
    assert (second.sampling.max_tokens, second.engine.name) == (99, "transformers")
    assert asked[1]["name"] == "thinking" and asked[1]["storage"] == f"sqlite:///{here}/studies/thinking/study.db"


def test_models_win_over_the_project_file_and_config_replaces_it(run: Run, asked: list[dict]) -> None:
    sums()
    Path("autolambda.yaml").write_text(PAIR + "tasks: [my.jsonl]\nbudget: 50\n")
    Path("other.yaml").write_text("tasks: [{name: arithmetic}]\n")
    run("search", THINKING, INSTRUCT, "-q")
    ran = run("search", "--config", "other.yaml")
    assert "note: config" not in ran.err and "this is the demo" in ran.out
    swapped, other = (each["config"] for each in asked)
    assert (swapped.models.instruct, swapped.tasks[0].label, swapped.budget) == (THINKING, "my", 50)
    assert (other.models.bundled, other.budget) == (True, None)


def test_a_project_file_without_models_is_not_searched_with_the_demo_pair(run: Run) -> None:
    sums()
    Path("autolambda.yaml").write_text("tasks: [my.jsonl]\nbudget: 50\n")
    ran = run("search")
    assert ran.code == 2 and "no models given for the task 'my'" in ran.err


@pytest.mark.parametrize("command", [["search", "--budget=4000"], ["search", "--task=my.jsonl", "--budget=40"],
                                     ["evaluate", "--task=my.jsonl", "--lambda=0.5"]])  # fmt: skip
def test_without_models_three_lines_say_how_to_begin(run: Run, command: list[str]) -> None:
    sums()
    ran = run(*command)
    assert ran.code == 2 and ran.err.startswith("error: no models") and len(ran.err.splitlines()) == 4
    assert "autolambda init INSTRUCT THINKING --task my.jsonl" in ran.err and "autolambda demo" in ran.err
    assert files() == [Path("my.jsonl")]


def test_the_demo_is_the_bundled_pair(run: Run, asked: list[dict]) -> None:
    Path("autolambda.yaml").write_text(PAIR)
    ran = run("demo")
    assert (
        " note: no models given: this is the demo, the bundled pair" in ran.out.splitlines()[0]
        and "config:" not in ran.err
    )
    run("demo", "--budget=60", "--quiet")
    assert [(each["name"], each["config"].budget) for each in asked] == [("bundled", 40), ("bundled", 60)]
    assert all(each["config"].models.bundled for each in asked)


BUDGETS = {"4000": 4000, "4k": 4000, "1.5K": 1500, "4,000": 4000, "1,234,567.5": 1234567.5, "4_000": 4000, " 40 ": 40}


@pytest.mark.parametrize(("text", "budget"), BUDGETS.items())
def test_budgets_as_people_write_them(run: Run, asked: list[dict], text: str, budget: float) -> None:
    run("search", INSTRUCT, THINKING, "--task=arithmetic", "--budget", text)
    assert asked[0]["config"].budget == budget


@pytest.mark.parametrize("text", ["forty", "4,00", "4kk", "k", "", "4 000"])
def test_no_budget_at_all(run: Run, text: str) -> None:
    refused(run("search", "--budget", text), "give a number of tokens, for example 4000")


def test_a_tilde_is_the_home_folder_everywhere(run: Run, asked: list[dict], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    sums("data/my.jsonl")
    for name in ("instruct", "thinking"):
        Path(name).symlink_to(FOLDER / name)
    Path("c.yaml").write_text(
        "models: {instruct: ~/instruct, thinking: ~/thinking}\ntasks: [{path: ~/data/my.jsonl}]\n"
    )
    run("search", "--config", "~/c.yaml")
    run("search", "~/instruct", "~/thinking", "--task", "~/data/my.jsonl", "--budget=9")
    run("search", "--budget=9", "--set=models.instruct=~/instruct", "--set=models.thinking=~/thinking",
        "--task=~/data/my.jsonl")  # fmt: skip
    assert len(asked) == 3
    for each in asked:
        config = each["config"]
        assert (config.models.thinking, config.tasks[0].path) == (THINKING, str(Path.cwd() / "data/my.jsonl"))


def test_init_finds_columns_and_grader_and_the_file_runs(run: Run, asked: list[dict]) -> None:
    rows("my.jsonl", lambda i: {"Problem": f"{i}+1=", "Final_Answer": str(i + 1)})
    ran = run("init", INSTRUCT, THINKING, "--task=my.jsonl", "--max-tokens=64")
    assert ran.code == 0 and not ran.err
    plain = yaml.safe_load(Path("autolambda.yaml").read_text())
    assert plain["models"] | {} == {
        "instruct": INSTRUCT, "thinking": THINKING, "chat_template": "thinking", "think_end": "</think>",
    }  # fmt: skip
    assert plain["tasks"] == [{"path": "my.jsonl", "question": "Problem", "answer": "Final_Answer", "grader": "number"}]
    assert plain["sampling"] == {"max_tokens": 64} and "budget" not in plain
    text = Path("autolambda.yaml").read_text()
    assert text.startswith(f"# yaml-language-server: $schema={FILE}\n")
    assert "the last number of a response is compared" in text
    assert "found: task my.jsonl, 60 rows: question Problem, answer Final_Answer, grader number" in ran.out
    assert "what 40 prompts in the confirmation can prove" in ran.out and "\ntokens: at most" in ran.out
    assert ran.out.endswith("Next: autolambda search --budget 4000\n")
    run("search", "--budget=4000")
    assert asked[0]["config"].tasks[0].question == "Problem"
    before = Path("autolambda.yaml").read_text()
    refused(run("init", INSTRUCT, THINKING, "--task=my.jsonl"), "'autolambda.yaml' exists already", "--force")
    assert Path("autolambda.yaml").read_text() == before


def test_init_asks_for_what_it_does_not_find(run: Run) -> None:
    rows("my.jsonl", lambda i: {"foo": f"{i}+1=", "bar": str(i + 1)})
    Path("autolambda.yaml").write_text("old")
    ran = run("init", INSTRUCT, THINKING, "--task=my.jsonl", "--force", "--budget=1.5k", "--grader=exact", "--limit=20")
    assert ran.code == 2 and ran.err.startswith("error: autolambda.yaml is written, but not complete")
    text = Path("autolambda.yaml").read_text()
    assert "# question: COLUMN" in text and "TO DO: which column holds the answer? There are foo, bar" in text
    plain = yaml.safe_load(text)
    assert plain["budget"] == 1500 and plain["confirm"] == {"limit": 20}
    assert plain["tasks"] == [{"path": "my.jsonl", "grader": "exact", "limit": 20}]


def test_validate_lists_all_problems_and_what_is_known(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def missing(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr("autolambda.engines.vllm.arguments.metadata.version", missing)
    sums()
    Path("c.yaml").write_text(
        f"models: {{instruct: ./gone, thinking: {THINKING}}}\nengine: {{name: vllm}}\n"
        "sampling: {max_tokens: 64}\ntasks: [my.jsonl, no.jsonl]\n"
    )
    ran = run("validate", "c.yaml")
    assert ran.code == 2 and [line.partition(";")[0] for line in ran.err.splitlines()] == [
        "error: engine.name: vllm is not installed",
        "error: task file 'no.jsonl' does not exist",
        "error: no folder './gone'",
    ]
    assert "search: my, 20 prompts" in ran.out and "can prove" in ran.out and "tokens: at most" in ran.out
    assert ran.out.endswith("c.yaml: not valid: 3 problems\n")
    plain = json.loads(run("validate", "c.yaml", "--json").out)
    assert plain["valid"] is False and len(plain["problems"]) == 3 and plain["max_tokens"] == 64


def test_validate_goes_on_without_vllm(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from autolambda.errors import ConfigError

    def missing() -> str:
        raise ConfigError("engine.name: vllm is not installed")

    for module in ("project.inspection", "driver.job"):
        monkeypatch.setattr(f"autolambda.{module}.installed_version", missing)
    ran = run("validate", INSTRUCT, THINKING, "--task=arithmetic", "--set=engine.name=vllm", "--limit=30")
    assert ran.code == 2 and ran.err == "error: engine.name: vllm is not installed\n"
    assert all(
        part in ran.out for part in ("search: arithmetic, 30 prompts", "\nmemory: 1.38 MB", "\ndisk: ", "\nsampling")
    )


def test_validate_takes_what_search_takes_and_the_project_file(run: Run) -> None:
    sums()
    Path("autolambda.yaml").write_text(PAIR + "tasks: [my.jsonl]\nsampling: {max_tokens: 64}\n")
    ran = run("validate", "--json")
    plain = json.loads(ran.out)
    assert ran.code == 0 and plain["valid"] and plain["source"] == "autolambda.yaml" and not plain["problems"]
    assert [(each["phase"], each["task"], each["prompts"]) for each in plain["prompts"]] == [
        ("search", "my", 20), ("confirm", "my", 40),
    ]  # fmt: skip
    dry = run("search", "--dry-run", "--budget=40", "--set=sampling.max_tokens=32")
    assert dry.code == 0 and "thinking: valid; 690,528 parameters, at most 32 tokens" in dry.out
    assert not Path("studies").exists()


def test_the_schema_is_shipped_and_describes_every_key(run: Run) -> None:
    assert FILE.read_text(encoding="utf-8") == schema_json() == run("schema").out
    plain = json.loads(schema_json())
    assert plain["$defs"]["SearchConfig"]["properties"]["trials"]["default"] == 18
    assert all(each["description"] for name, each in plain["$defs"].items() if name != "JsonValue")


def test_search_prints_json_or_its_answer_alone(run: Run) -> None:
    small = [f"--set={key}={value}" for key, value in SETTINGS.items() if "." in key]
    words = ["search", "--budget=30", "--task=arithmetic", "--limit=8", "--set=search.trials=3", *small[4:]]
    ran = run(*words, "--study=a", "--json")
    plain = json.loads(ran.out)
    assert plain["study"] == "a" and plain["budget"] == 30 and "trial 0" in ran.err
    ran = run(*words, "--study=a", "--quiet")
    assert "note:" not in ran.out + ran.err and "Front of" not in ran.out and "trial 0 " not in ran.out and ran.out


def test_a_study_that_runs_is_told_by_every_command(run: Run) -> None:
    from small_search import NAME, storage_in, unconfirmed

    from autolambda.study.database import driver_lock

    storage = unconfirmed(storage_in(Path.cwd()))
    with driver_lock(storage, NAME):
        assert json.loads(run("list", "--json").out)[0]["state"] == "running"
        status = run("status", NAME).out
        assert status.startswith("small: running (process ") and "autolambda status small --watch" in status
        ran = run("report", NAME)
        assert "note: study 'small' is still running (process " in ran.err and "autolambda confirm" not in ran.out
        for command in (["resume", NAME], ["confirm", NAME, "--budget=9"], ["search", "--budget=30", "--study", NAME]):
            refused(run(*command), "is being run by process ", "wait for it or stop it")
    status = run("status", NAME)
    assert "Best so far within 30 tokens, not confirmed:" in status.out and "autolambda resume small" in status.out


@pytest.mark.parametrize(
    "words",
    [
        ["search", "A", "B", "--task", "nofile.jsonl", "--budget", "40"],
        ["search", "./A", "./B", "--task", "gsm8k"],
        ["search", "--config", "no.yaml"],
        ["resume", "nosuch"],
        ["--help"],
    ],
    ids=" ".join,
)
def test_a_missing_file_is_told_without_slow_imports(tmp_path: Path, words: list[str]) -> None:
    started = time.process_time()
    code = (
        f"import sys; sys.argv[1:] = {words}\nfrom autolambda.cli.main import cli\n"
        "try: cli.main()\nexcept BaseException: pass\nfinally: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "autolambda.cli.main" in loaded
    assert not loaded & {"torch", "transformers", "optuna", "pandas", "pydantic", "sqlalchemy"}
    assert time.process_time() - started < 5
