"""The command line: its commands and options, exit codes, and one line for every bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import torch
from checkpoints import edit_json, edit_tensors, tiny_checkpoint
from command_line import Run, files, refused
from small_search import NAME, SETTINGS, copy_finished, database, finished, storage_in

from autolambda import __version__
from autolambda.api import default_name
from autolambda.bundled import FOLDER
from autolambda.cli import main as cli

SINGLE = "model.safetensors"
EXECUTABLE = Path(sys.executable).with_name("autolambda")
INSTRUCT, THINKING = str(FOLDER / "instruct"), str(FOLDER / "thinking")
FROM_CONFIG = "instruct thinking --config --set --task"
EVERYDAY = "--engine --grader --limit --max-tokens"
INTERFACE = {
    "init": f"instruct thinking {EVERYDAY} --budget --force --task --verbose",
    "search": f"{FROM_CONFIG} {EVERYDAY} --budget --dry-run --json --log-to --quiet --seed --storage --study --trials "
    "--verbose --workers",
    "demo": "--budget --quiet --storage --verbose",
    "validate": f"paths {EVERYDAY} --budget --config --json --set --task --verbose",
    "list": "--json --storage --verbose",
    "status": "name --budget --json --storage --verbose --watch",
    "report": "name --budget --format --out --storage --verbose",
    "resume": "name --quiet --storage --verbose --workers",
    "confirm": "name --budget --quiet --storage --verbose --workers",
    "transfer": "name --budget --grader --json --limit --quiet --storage --task --trial --verbose --workers",
    "check": "name --budget --concurrency --endpoint --json --label --limit --model --parents --quiet --storage "
    "--timeout --trial --verbose",
    "export": "name out --budget --max-shard-size --push-to-hub --storage --trial",
    "merge": "instruct thinking out --base --lambda --max-shard-size --method --rounding --rounding-seed --schedule "
    "--third --vision",
    "evaluate": f"{FROM_CONFIG} {EVERYDAY} --lambda --quiet --rounding --schedule --verbose --workers",
    "ablate": f"{FROM_CONFIG} --format --only --out --storage --study",
    "stages": "curve --format",
    "schema": "",
}


def options_of(command: click.Command) -> set[str]:
    return {
        max(param.opts, key=len) if isinstance(param, click.Option) else str(param.name) for param in command.params
    }


def small_settings() -> list[str]:
    settings = [f"--set={key}={value}" for key, value in SETTINGS.items() if "." in key]
    return ["--task=arithmetic", "--set=tasks.0.limit=16", "--set=tasks.0.repeats=1", *settings]


def test_the_interface_is_frozen() -> None:
    assert {name: options_of(command) for name, command in cli.cli.commands.items()} == {
        name: set(options.split()) for name, options in INTERFACE.items()
    }


@pytest.mark.parametrize("command", ["", *INTERFACE])
def test_help(run: Run, command: str) -> None:
    ran = run(*filter(None, [command]), "--help")
    assert ran.code == 0 and ran.out.startswith(f"Usage: autolambda {command}".rstrip()) and not ran.err
    named = INTERFACE[command].split() if command else list(INTERFACE)
    assert all(option in ran.out for option in named if option.startswith("--") or not command)


def test_help_lists_the_commands_by_section_in_whole_sentences(run: Run) -> None:
    shown = run("--help").out
    places = [shown.index(f"\n{section}:\n") for section in cli.SECTIONS]
    assert places == sorted(places) and "..." not in shown.partition("Start:")[2]
    assert "_AUTOLAMBDA_COMPLETE=bash_source" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_no_command_shows_the_help(run: Run) -> None:
    ran = run()
    assert ran.code == 2 and ran.err.startswith("Usage: autolambda") and "search" in ran.err


BAD_BUDGETS = {
    "-5": "budget: ",
    "0": "budget: ",
    "nan": "budget: ",
    "inf": "budget: ",
    "many": "give a number of tokens, for example 4000",
}


@pytest.mark.parametrize(("budget", "part"), BAD_BUDGETS.items())
def test_a_bad_budget(run: Run, budget: str, part: str) -> None:
    refused(run("search", "--budget", budget), part, budget)
    assert not files()


@pytest.mark.parametrize("budget", ["-5", "0", "nan", "inf"])
def test_a_bad_budget_of_a_study(run: Run, budget: str) -> None:
    storage = copy_finished(storage_in(Path.cwd()))
    for command in ("report", "confirm", "status"):
        refused(run(command, NAME, "--budget", budget, "--storage", storage), "budget: a positive number", budget)


@pytest.mark.parametrize("name", ["a/b", "..", "", "a..b", "-x", "x" * 65, "a b", "\x1b[2J"])
def test_a_bad_study_name(run: Run, name: str) -> None:
    line = refused(run("search", "--budget=40", f"--study={name}"), "study name '", "use up to 64 letters")
    assert "\x1b" not in line and not files()
    refused(run("report", "--", name), "study name '")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["search", "nowhere/a", "nowhere/b", "--task", "arithmetic"], ["no folder 'nowhere/a'"]),
        (["search", INSTRUCT, "--budget=40"], ["both models.instruct and models.thinking"]),
        (["search", INSTRUCT, THINKING], ["no task: give a benchmark's name, or a JSONL"]),
        (["search", "--task", "nothing.jsonl"], ["nothing.jsonl", "does not exist"]),
        (["search", "--task", "nothing"], ["tasks.0.name", "nothing"]),
        (["search", "--task", "GSM-8K"], ["tasks.0.name", "did you mean 'gsm8k'?"]),
        (["search", INSTRUCT, THINKING, "--task", "some/set"], ["hub dataset 'some/set' cannot be reached"]),
        (["search", INSTRUCT, THINKING, "--task", "openai/gsm8k"], ["hub dataset 'openai/gsm8k' cannot be reached"]),
        (["search", "--budget=40", "--set", "sampling.max_tokens=600"], ["max_tokens", "600", "context of 512"]),
        (["search", "--budget=40", "--max-tokens=500"], ["max_tokens", "500", "context of 512"]),
        (["search", "--budget=40", "--max-tokens=0"], ["sampling.max_tokens", "seen 0"]),
        (["search", "--budget=40", "--limit=0"], ["tasks.0.limit", "seen 0"]),
        (["search", "--budget=40", "--grader=exakt"], ["unknown grader 'exakt'; did you mean 'exact'?"]),
        (["search", "--budget=40", "--engine=vlm"], ["engine.name", "'vlm'"]),
        (["search", "--budget=40", "--storage", "sqlite:////nonexist/x.db"], ["there is no folder '/nonexist'"]),
        (["search", "--set", "search.trails=5"], ["unknown key 'search.trails'", "did you mean 'trials'?"]),
        (["search", "--set", "budget"], ["--set takes KEY=VALUE"]),
        (["search", "--trials", "1"], ["search.trials", "seen 1"]),
        (["search", "--config", "no.yaml"], ["no.yaml", "cannot be read"]),
        (["search", "--budget=40", "--storage", "garbage"], ["storage: not a database URL; give sqlite:///PATH"]),
        (["search", "--budget=40", "--storage", "mysql://me:secret@host/db"], ["'mysql://host/db' is not supported"]),
        (["search", "--nonsense"], ["No such option", "--nonsense"]),
        (["serach"], ["No such command 'serach'"]),
        (["resume", "unknown"], ["no study 'unknown' in ", "/here/studies, which has none; go to the folder"]),
        (["status", "unknown"], ["no study 'unknown' in "]),
        (["export", "unknown", "out"], ["no study 'unknown' in "]),
        (["resume", "unknown", "--storage=sqlite:///x.db"], ["no study database at 'x.db'"]),
        (["init", INSTRUCT, THINKING], ["--task: give the file", "--task my.jsonl"]),
        (["init", INSTRUCT, THINKING, "--task=no.jsonl"], ["task file 'no.jsonl' does not exist"]),
        (["init", "./no", THINKING, "--task=gsm8k"], ["no folder './no'"]),
        (["validate"], ["no autolambda.yaml here: give a config, a folder, or INSTRUCT THINKING --task FILE"]),
        (["export", "unknown", "out", "--max-shard-size", "big"], ["a size is a number", "'big'"]),
        (["report"], ["Missing argument 'NAME'"]),
        (["merge", INSTRUCT, THINKING, "out"], ["give either --lambda X or --schedule FILE"]),
        (["merge", INSTRUCT, THINKING, "out", "--lambda", "2.5"], ["lambda must lie between -1 and 2", "2.5"]),
        (["merge", INSTRUCT, THINKING, "out", "--lambda", "nan"], ["lambda must lie between -1 and 2", "nan"]),
        (["merge", INSTRUCT, THINKING, "no/out", "--lambda", "1"], ["'no' is not a folder"]),
        (["evaluate", "--schedule", "no.yaml"], ["schedule file 'no.yaml' cannot be read"]),
        (["ablate", "--only", "layer"], ["--only: no study 'layer'; there are uniform, layers"]),
        (["ablate", "--set", "ablation.lambdas=[2]"], ["ablation.lambdas.0", "seen 2"]),
        (["stages", "no.csv"], ["no.csv"]),
        (["validate", "no.yaml"], ["no.yaml", "cannot be read"]),
        (["validate", INSTRUCT], ["holds no autolambda.json"]),
    ],
)
def test_bad_arguments(run: Run, arguments: list[str], parts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(run(*arguments), *parts)
    assert not files() and not list(Path().iterdir())


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("search: [", ["config.yaml, line 2", "not valid YAML"]),
        ("just text", ["config.yaml", "expected keys and values"]),
        ("serach: {trials: 3}", ["unknown key 'serach'", "did you mean 'search'?"]),
        ("budget: -1", ["budget: ", "-1"]),
        ("tasks: [{name: arithmetic, limt: 3}]", ["unknown key 'tasks.0.limt'", "did you mean 'limit'?"]),
        ("models: {instruct: 3, thinking: x}", ["models.instruct", "seen 3"]),
        ("engine: {name: fast}", ["engine.name", "fast"]),
        ("engine: {enforce_eager: true}", ["unknown key 'engine.enforce_eager'", "go with engine.name: vllm"]),
        ("engine: {name: vllm, device: cpu}", ["engine.device: 'cpu' is for transformers", "leave it out"]),
    ],
)
def test_a_bad_config(run: Run, text: str, parts: list[str]) -> None:
    Path("config.yaml").write_text(text + "\n")
    for command in (["search", "--config", "config.yaml"], ["validate", "config.yaml"]):
        refused(run(*command), *parts)
    assert files() == [Path("config.yaml")]


ROW = json.dumps({"question": "1+1=", "answer": "2"})


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["0 rows", "at least 2"]),
        (ROW + "\n{", ["line 2: not JSON", "1 of 2 rows cannot be used; at most 5% are left out (max_unusable)"]),
        (ROW + "\n[1]", ["line 2: expected a JSON object"]),
        (ROW + '\n{"question": "2+2="}', ["line 2: no column 'answer'", "it has", "question"]),
        ('{"prompt": "1", "answer": "2"}', ["no column 'question'", "tasks.0.question"]),
        (ROW + '\n{"question": "2", "answer": null}', ["line 2", "'answer' must be a text or a number"]),
        (ROW + "\n" + ROW, ["1 rows; at least 2", "1 rows repeat a prompt"]),
    ],
)
def test_a_bad_task_file(run: Run, content: str, parts: list[str]) -> None:
    Path("mine.jsonl").write_text(content)
    refused(run("search", INSTRUCT, THINKING, "--task", "mine.jsonl", "--study", "x"), "mine.jsonl", *parts)
    assert files() == [Path("mine.jsonl")]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    for i, name in enumerate(("instruct", "thinking")):
        tiny_checkpoint(folder / name, seed=i)
    tiny_checkpoint(folder / "llama", family="llama")
    larger = tiny_checkpoint(folder / "larger", vocab_size=270)
    edit_json(larger / "tokenizer.json", added_tokens=[{"id": 266, "content": "<answer>", "special": False}])
    return folder


def _pickled(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "pytorch_model.bin")


def _cut(folder: Path) -> None:
    (folder / SINGLE).write_bytes((folder / SINGLE).read_bytes()[:-100])


def _with_nan(folder: Path) -> None:
    edit_tensors(folder / SINGLE, lambda tensors: tensors["model.norm.weight"].fill_(torch.nan))


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _escaping(folder: Path) -> None:
    name = "model.\x1b[2J\n.weight"
    edit_tensors(folder / SINGLE, lambda tensors: tensors.update({name: torch.full((2,), torch.nan)}))


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (_empty, "has no config.json"),
        (_pickled, "holds pickled weights only"),
        (_cut, "is not a valid safetensors file"),
        (_with_nan, "holds NaN or infinite values in model.norm.weight"),
        (lambda folder: edit_json(folder / "config.json", num_hidden_layers=0), "num_hidden_layers"),
    ],
)
def test_a_bad_checkpoint(run: Run, originals: Path, spoil: Callable[[Path], None], part: str) -> None:
    shutil.copytree(originals / "instruct", "instruct")
    shutil.copytree(originals / "thinking", "thinking")
    spoil(Path("thinking"))
    before = files()
    refused(run("search", "instruct", "thinking", "--task", "arithmetic", "--set=sampling.max_tokens=50"), part)
    refused(run("merge", "instruct", "thinking", "out", "--lambda", "0.5"), part)
    assert files() == before and not Path("out").exists() and not Path("studies").exists()


@pytest.mark.parametrize(
    ("other", "part"), [("llama", "config 'model_type'"), ("larger", "config 'vocab_size': instruct 264, thinking 270")]
)
def test_a_pair_that_does_not_fit_lists_every_mismatch(run: Run, originals: Path, other: str, part: str) -> None:
    ran = run("search", str(originals / "instruct"), str(originals / other), "--task", "arithmetic")
    first, *rest = ran.err.splitlines()
    assert ran.code == 2 and first.startswith("error: ") and "cannot be merged" in first
    assert rest and all(line.startswith("  - ") for line in rest) and any(part in line for line in rest)
    assert not files()


def test_names_from_files_do_not_reach_the_terminal_raw(run: Run, originals: Path) -> None:
    shutil.copytree(originals / "instruct", "instruct")
    shutil.copytree(originals / "thinking", "thinking")
    for parent in ("instruct", "thinking"):
        _escaping(Path(parent))
    ran = run("merge", "instruct", "thinking", "out", "--lambda", "0.5")
    assert (
        ran.code == 2
        and "\x1b" not in ran.err
        and all(line.startswith(("error: ", "  - ")) for line in ran.err.splitlines())
    )


def test_a_folder_that_cannot_be_written(run: Run) -> None:
    Path("studies").write_text("in the way")
    refused(run("search", "--budget=40", *small_settings()), "study database", "cannot be")
    assert Path("studies").read_text() == "in the way"
    if os.geteuid():  # root may write anywhere
        Path("closed").mkdir(mode=0o500)
        refused(run("merge", INSTRUCT, THINKING, "closed/out", "--lambda", "1"), "cannot write 'closed/out'")


def test_a_database_that_is_none(run: Run) -> None:
    Path("x.db").write_text("not a database, whatever its name says" * 100)
    refused(run("status", "x", "--storage", "sqlite:///x.db"), "cannot be opened")


@pytest.fixture
def storage(run: Run) -> str:
    return copy_finished(storage_in(Path.cwd()))


def test_an_unknown_study_or_trial(run: Run, storage: str) -> None:
    for command in (["report", "other"], ["status", "other"], ["resume", "other"], ["export", "other", "out"]):
        refused(run(*command, "--storage", storage), "no study 'other' in this database; it has: small")
    refused(run("export", NAME, "out", "--trial", "99"), "no complete trial 99; its last is 5")
    assert not Path("out").exists()


def test_a_changed_config_is_refused_and_nothing_is_changed(run: Run, storage: str) -> None:
    before = database(storage)
    changes = "--set=sampling.temperature=0.1", "--set=search.seed=4"
    ran = run("search", "--budget=30", "--study", NAME, *small_settings(), *changes)
    seed = SETTINGS["search.seed"]
    refused(ran, f"another config (sampling.temperature: 1.0 then, 0.1 now; search.seed: {seed} then, 4 now")
    assert database(storage) == before


def test_a_report_before_the_first_trial(run: Run) -> None:
    from contextlib import closing

    from small_search import small_config

    from autolambda.driver.job import open_job
    from autolambda.driver.search import enter
    from autolambda.study.store import Store

    with closing(Store("sqlite:///studies/new/study.db")) as store:
        enter(store, open_job(small_config()), name="new")
    refused(run("report", "new"), "no complete trial yet; go on with 'autolambda resume new'")
    refused(run("export", "new", "out"), "no complete trial yet")


def test_reports(run: Run, storage: str) -> None:
    plain = json.loads(run("report", NAME, "--format", "json").out)
    assert plain["verdict"] == "feasible" and plain["tokens_generated"] == finished().tokens_generated
    assert run("report", NAME, "--format", "csv", "--out", "trials.csv").out == ""
    assert len(Path("trials.csv").read_text().splitlines()) == 7 + len(finished().confirmed)
    table = run("report", NAME).out
    assert "Found: lambda" in table and max(map(len, table.splitlines())) <= 80 and "\x1b" not in table
    assert run("confirm", NAME, "--budget", "1.5").code == 3
    other = json.loads(run("report", NAME, "--budget", "1.5", "--format", "json").out)
    assert other["budget"] == 1.5 and other["verdict"] == "infeasible" and other["best"] is None


def test_a_parent_that_is_the_answer_ends_well_and_cannot_be_exported(run: Run, storage: str) -> None:
    instruct = finished().parents["instruct"]
    assert instruct is not None
    budget = f"{instruct.measured.mean_tokens.high:.1f}"
    ran = run("confirm", NAME, "--budget", budget)
    assert ran.code == 0 and "Found: the Instruct model itself answers " in ran.out
    refused(run("export", NAME, "out", "--budget", budget), "the answer is the Instruct model itself")
    assert json.loads(run("report", NAME, "--budget", budget, "--format", "json").out)["best"]["parent"] == "instruct"
    assert run("export", NAME, "out", "--trial", "2").code == 0


def test_list_and_status(run: Run, storage: str) -> None:
    heads, row, second = run("list").out.splitlines()
    assert heads.split() == ["study", "state", "models", "on", "budget", "trials", "verdict"]
    assert row.split() == [NAME, "done", "instruct", "arithmetic", "30", "6", "of", "6", "feasible"]
    best = finished().best
    assert best is not None
    assert second.split() == ["thinking", f"{best.score.accuracy:.1%}", "at", f"{best.score.mean_tokens:.1f}"]
    assert NAME in run("list", "--storage", storage).out
    [plain] = json.loads(run("list", "--json").out)
    assert (plain["study"], plain["state"], plain["verdict"], plain["budget"]) == (NAME, "done", "feasible", 30)
    assert plain["best"]["trial"] == best.trial and plain["trials"] == {"done": 6, "at_most": 6}
    told = json.loads(run("status", NAME, "--json").out)
    assert told["is_done"] and told["best"]["trial"] == best.trial and told["trials"]["complete"] == 6
    assert run("status", NAME).out.startswith("small: 6 of at most 6 trials are done")
    shutil.rmtree("studies")
    assert run("list").out.startswith("no studies here")


def test_export_validate_and_an_existing_folder(run: Run, storage: str) -> None:
    best = finished().best
    assert best is not None
    ran = run("export", NAME, "out", "--max-shard-size", "1MB")
    assert ran.code == 0 and ran.out == f"out: {best.schedule}\n"
    assert run("validate", "out").out == f"out: intact, {best.schedule}\n"
    provenance = json.loads(Path("out/autolambda.json").read_text())
    assert provenance["verdict"] == "feasible within 30 tokens" and provenance["measured"]["confirmed"] is True
    before = {path: path.read_bytes() for path in files()}
    refused(run("export", NAME, "out"), "'out' exists already")
    assert {path: path.read_bytes() for path in files()} == before
    weights = next(Path("out").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    refused(run("validate", "out"), "changed after the export: ")


def test_an_export_of_a_trial_claims_no_verdict(run: Run, storage: str) -> None:
    ran = run("export", NAME, "out", "--trial", "0")
    provenance = json.loads(Path("out/autolambda.json").read_text())
    confirmed = 0 in {entry.trial for entry in finished().confirmed}
    assert ran.out == "out: lambda 0" + ("" if confirmed else " (not confirmed)") + "\n"
    assert (
        provenance["verdict"] == "not tested against a budget" and "feasible" not in Path("out/README.md").read_text()
    )
    refused(run("export", NAME, "other", "--budget", "1.5"), "has no pick within 1.5 tokens")


def test_merge_and_stages(run: Run) -> None:
    Path("s.yaml").write_text("attention: 0.7\nffn: {knots: [0.2, 0.9]}\n")
    assert run("merge", INSTRUCT, THINKING, "out", "--schedule", "s.yaml").code == 0
    assert "intact, attention 0.7, feed-forward 0.20→0.90" in run("validate", "out").out
    Path("c.csv").write_text("lambda,think_ratio,num_responses\n0,0,100\n0.4,0.02,100\n0.6,0.97,100\n1,1,100\n")
    assert run("stages", "c.csv").out.startswith("Below lambda 0.4")
    assert json.loads(run("stages", "c.csv", "--format", "json").out)["saturation"]["low"] >= 0.4


def test_validate_a_config(run: Run) -> None:
    Path("c.yaml").write_text("tasks: [{name: arithmetic, limit: 8}]\nbudget: 40\n")
    ran = run("validate", "c.yaml")
    assert ran.code == 0 and "search: arithmetic, 8 prompts x 8" in ran.out and "\nc.yaml: valid;" in ran.out
    assert "\nengine: " in ran.out
    assert files() == [Path("c.yaml")]


def test_evaluate(run: Run) -> None:
    ran = run("evaluate", *small_settings(), "--lambda", "0")
    assert ran.code == 0 and "lambda 0" in ran.out and "accuracy %" in ran.out and not files()


def test_ablate_prints_resumes_a_studys_own_config_and_writes_files(run: Run, storage: str) -> None:
    few = ["--only", "modules", "--set", "ablation.responses=16", "--set", "ablation.partial_lambda=0.5"]
    ran = run("ablate", "--study", NAME, *few)  # the prompts are the study's, without its config being given again
    assert ran.code == 0 and not ran.err and "without attention" in ran.out
    assert "ablations: 4 of 4 rows to measure, 16 responses each" in ran.out
    ran = run("ablate", "--study", NAME, "--only=modules", "--format", "csv")
    assert ran.code == 0 and ran.out.startswith("study,row,schedule,") and len(ran.out.splitlines()) == 1 + 2
    assert "ablations:" not in ran.err + ran.out and "note: " in ran.err
    ran = run("ablate", "--study", NAME, "--only=modules", "--format", "json", "--out", "a.json")
    assert ran.code == 0 and list(json.loads(Path("a.json").read_text())) == ["modules"]
    seed = SETTINGS["search.seed"]
    refused(run("ablate", "--study", NAME, "--set", "search.seed=8"), f"another config (search.seed: {seed} then")


@pytest.mark.parametrize(
    ("command", "go_on"),
    [
        (["ablate", "--study", NAME], f"autolambda ablate --study={NAME}"),
        (
            ["ablate", "--study", NAME, "--only=layers", "--out=a b"],
            f"autolambda ablate --study={NAME} --only=layers '--out=a b'",
        ),
        (["ablate", "--study", NAME, "--format=json"], f"autolambda ablate --study={NAME} --format=json"),
        (["ablate", "--study", NAME, "--set=ablation.responses=8"], "the same command"),  # not the stored config yet
        (["ablate", "--study=other"], "the same command"),
        (["confirm", NAME, "--budget", "60.5"], f"autolambda confirm {NAME} --budget 60.5"),
        (["resume", NAME], f"autolambda resume {NAME}"),
        (["search", "--budget=30", "--study", NAME, "--trials=9"], "the same command"),
    ],
)
def test_an_interrupt_names_the_command_to_go_on_with(
    run: Run, storage: str, monkeypatch: pytest.MonkeyPatch, command: list[str], go_on: str
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    for job in ("ablation.run.ablate", "driver.search.confirm", "driver.search.search"):
        monkeypatch.setattr(f"autolambda.{job}", interrupted)
    ran = run(*command)
    *errors, last = ran.err.splitlines()
    assert ran.code == 130 and last == f"interrupted; nothing is lost. Go on with: {go_on}"
    shown, other = (
        (errors, ran.out.splitlines()) if "--format=json" in command else (ran.out.splitlines(), errors)
    )  # JSON goes to the output
    so_far = "no row is complete yet" if command[0] == "ablate" else "Front by the search, estimated"
    assert any(so_far in line for line in shown) == ("--study=other" not in command) and not other


def test_a_search_announces_the_bundled_pair_and_infeasible_is_exit_code_3(run: Run, storage: str) -> None:
    more = "--set=search.trials=7", "--set=search.min_gain=0"  # one more than the study has
    ran = run("search", "--study", NAME, *small_settings(), *more, "--budget", "1.5")
    assert ran.code == 3 and not ran.err
    lines = [line[9:] for line in ran.out.splitlines()]  # without the time of day
    assert lines[0].startswith("note: no models given: this is the demo, the bundled pair") and "arithmetic" in lines[0]
    grown = "budget 1.5 (was 30.0), search.min_gain 0.0 (was 0.002), search.trials 7 (was 6)"
    assert lines[1] == f"note: this study goes on with {grown}"
    assert lines[2].startswith("note: the chat templates of the two models differ; that of thinking is used for all")
    plan = "note: Plan: try at most 7 merges on 16 prompts, then check the best 3 on 32 new prompts. "
    assert lines[3] == f"{plan}6 merges are done already."
    assert lines[4] == "note: Study small is kept in sqlite:///studies/small/study.db."
    assert sum(line.startswith("note: engine: transformers on ") for line in lines) == 1
    assert "None found: every merge checked is over 1.5 tokens. The nearest: " in ran.out
    again = run("search", "--study", NAME, *small_settings(), *more, "--budget", "1.5")
    assert again.code == 3 and "engine:" not in again.out


def test_the_study_is_named_after_the_thinking_model(run: Run) -> None:
    from autolambda.config_file import load_config

    def name(thinking: str) -> str:
        return default_name(load_config(None, overrides={"models.instruct": "a", "models.thinking": thinking}))

    assert [name(thinking) for thinking in ("org/Model-1.5", "x/My Model..v2/", "/", "é" * 80)] == [
        "Model-1.5",
        "My-Model-v2",
        "study",
        "study",
    ]
    assert default_name(load_config(None, overrides={})) == "bundled"


def test_an_interrupt_before_the_study_begins_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autolambda.driver.search.search", interrupted)
    ran = run("search", "--budget=40", *small_settings())
    assert ran.code == 130 and ran.err == "interrupted; nothing is lost. Go on with: the same command\n"
    monkeypatch.setattr("autolambda.export.export.check_export", interrupted)
    ran = run("validate", ".")
    assert ran.code == 130 and ran.err.strip() == "interrupted"


@pytest.mark.parametrize("command", [[str(EXECUTABLE)], [sys.executable, "-m", "autolambda"]], ids=["script", "module"])
def test_the_installed_command(tmp_path: Path, command: list[str]) -> None:
    ran = subprocess.run([*command, "search", "--budget", "x"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 2 and not ran.stdout and not list(tmp_path.iterdir())
    assert ran.stderr == "error: Invalid value for '--budget': 'x': give a number of tokens, for example 4000\n"


def test_the_version(run: Run) -> None:
    assert run("--version").out == f"autolambda, version {__version__}\n"


def test_a_report_as_a_page(run: Run) -> None:
    storage = copy_finished(storage_in(Path.cwd()))
    ran = run("report", NAME, "--format", "html", "--out", "report.html")
    assert ran.code == 0 and not ran.out and ran.err == "note: report.html is written; open it in a browser\n"
    page = Path("report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "Found: lambda" in page
    shown = run("report", NAME, "--format", "html", "--budget", "40", "--storage", storage)
    assert shown.code == 0 and shown.out.startswith("<!doctype html>") and "within 40 tokens" in shown.out
    assert f"--storage {storage}</code>" in shown.out  # the command to go on with
    refused(run("report", "other", "--format", "html"), "no study 'other' in ", "; it has: small")
    refused(run("report", "smal", "--format", "html"), "no study 'smal' in ", "did you mean 'small'?")
    refused(run("report", NAME, "--format", "html", "--budget", "nan"), "budget: a positive number")
    refused(run("report", NAME, "--format", "html", "--out", "no/where.html"), "No such file or directory")


def test_watching_ends_with_the_study_and_takes_another_budget(run: Run, storage: str) -> None:
    ran = run("status", NAME, "--watch")
    assert (
        ran.code == 0 and "Found: lambda" in ran.out and "6 of at most 6 trials are done, the search is over" in ran.out
    )
    ran = run("status", NAME, "--watch", "--budget", "20")
    assert ran.code == 0 and "--budget 20" in ran.out and "within 30 tokens" not in ran.out


def test_python_starts_the_package_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "autolambda", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("autolambda, version")
