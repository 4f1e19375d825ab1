"""The main job from end to end on the bundled pair: verdicts, determinism, resuming, kills and interrupts."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from small_search import (
    BUDGET,
    NAME,
    SETTINGS,
    copy_finished,
    database,
    finished,
    finished_storage,
    small_config,
    storage_in,
)

from autolambda.bundled import FOLDER
from autolambda.config import SearchConfig
from autolambda.driver import run as runs
from autolambda.driver.engine import open_engine
from autolambda.driver.events import Began, EvaluationEnded, Event, Generated, Noted
from autolambda.driver.job import Job, open_job
from autolambda.driver.run import PARENTS
from autolambda.driver.search import confirm, evaluate, search
from autolambda.engines.base import Engine, Fingerprint, Prompt, Sampling, Watch
from autolambda.errors import ConfigError, EngineError, StudyError
from autolambda.merging.method import Method
from autolambda.optimizer.aims import Aims
from autolambda.optimizer.observations import Observations
from autolambda.optimizer.propose import Proposal, Stop
from autolambda.optimizer.space import uniform_params
from autolambda.report.json_csv import report_json
from autolambda.report.report import Report
from autolambda.report.sentences import slack_of
from autolambda.responses import Response
from autolambda.schedule import Schedule
from autolambda.statistics.verdict import Verdict
from autolambda.study.database import driver_lock

CLI = [str(Path(sys.executable).with_name("autolambda"))]


@pytest.fixture
def copied(tmp_path: Path) -> str:
    """The finished study's database, copied: what is done to it stays here."""
    return copy_finished(storage_in(tmp_path))


class NoEngine:
    """Fails the test where anything is generated."""

    streams, in_words = False, "none"

    def set_merge(self, method: Method) -> None:
        raise AssertionError("an engine was used")

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        raise AssertionError("an engine was used")

    def fingerprint(self) -> Fingerprint:
        raise AssertionError("an engine was used")

    def close(self) -> None:
        raise AssertionError("an engine that was given is not ours to close")


def texts(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Noted)]


def test_a_search_ends_with_a_feasible_pick_and_its_confirmation() -> None:
    report = finished()
    assert report.verdict is Verdict.FEASIBLE and report.counts.complete == 6 and report.is_done
    assert report.best is not None and report.best.confirmed and report.best.measured.mean_tokens.value < BUDGET
    assert report.best.measured.num_responses == 32 and report.trials[0].measured.num_responses == 16
    assert [entry.schedule for entry in report.trials[:2]] == list(PARENTS.values())
    parents = report.parents["instruct"], report.parents["thinking"]
    assert all(parent is not None and parent.confirmed for parent in parents)
    assert report.stop_reason == "trials" and report.tokens_generated == sum(
        row[5] for row in database(finished_storage())["responses"]
    )


def test_the_confirmation_uses_other_prompts_than_the_search() -> None:
    rows = database(finished_storage())
    kinds = {row[0]: row[1] for row in rows["evaluations"]}
    asked: dict[str, set[str]] = {"trial": set(), "confirm": set(), "parent": set()}
    for row in rows["responses"]:
        asked[kinds[row[0]]].add(row[2])
    assert asked["confirm"] == asked["parent"] and len(asked["confirm"]) == 32 and len(asked["trial"]) == 16
    assert not asked["trial"] & asked["confirm"]


def test_two_runs_with_one_seed_are_identical(tmp_path: Path) -> None:
    again = search(small_config(), name=NAME, storage=storage_in(tmp_path))
    assert report_json(again) == report_json(finished())
    assert database(storage_in(tmp_path)) == database(finished_storage())


def test_another_seed_is_another_study(tmp_path: Path) -> None:
    config = small_config(search__seed=1, search__trials=2, search__ladder=2, confirm__finalists=1)
    search(config, name=NAME, storage=storage_in(tmp_path))
    ours, theirs = (database(storage)["responses"][16:32] for storage in (storage_in(tmp_path), finished_storage()))
    assert [row[2] for row in ours] == [row[2] for row in theirs] and ours != theirs


def test_a_finished_study_answers_again_without_an_engine(copied: str) -> None:
    events: list[Event] = []
    report = search(small_config(), name=NAME, storage=copied, engine=NoEngine(), on_event=events.append)
    assert report_json(report) == report_json(finished())
    assert not any(isinstance(event, Generated) for event in events)
    assert any("6 trials done so far" in text and copied in text for text in texts(events))


def test_more_trials_go_on_with_the_same_study(copied: str) -> None:
    before = database(copied)
    events: list[Event] = []
    report = search(small_config(search__trials=7), name=NAME, storage=copied, on_event=events.append)
    after = database(copied)
    assert report.counts.complete == 7 and after["trials"][:6] == before["trials"]
    assert after["responses"][: len(before["responses"])] == before["responses"]
    first = next(event for event in events if isinstance(event, Began))
    assert first.title == "trial 6" and first.num_responses == 16 and 0.4 < first.done < 0.6


def test_another_budget_reuses_every_trial(copied: str) -> None:
    num_trials = 16 * 6
    before = database(copied)["responses"]
    report = search(small_config(budget=1.5), name=NAME, storage=copied)
    after = database(copied)["responses"]
    assert report.verdict is Verdict.INFEASIBLE and report.best is None and report.nearest is not None
    assert report.nearest.measured.mean_tokens.value > 1.5 and report.nearest.confirmed
    kinds = {row[0]: row[1] for row in database(copied)["evaluations"]}
    assert after[: len(before)] == before and sum(kinds[row[0]] == "trial" for row in after) == num_trials
    free = search(small_config(budget=None), name=NAME, storage=copied)
    assert free.verdict is None and free.best is None and len(free.confirmed_front) >= 2 and free.is_done


def test_a_grader_that_finds_no_answers_is_named_once_and_a_guard_holds_the_verdict(tmp_path: Path) -> None:
    """No response of the bundled pair has a box, so the guard's accuracy is 0 everywhere: nothing can be lost on it."""
    rows = [{"question": f"{a}+{b}=", "answer": str((a + b) % 10)} for a in range(6) for b in range(6)]
    (tmp_path / "boxes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tasks = [
        {"name": "arithmetic", "limit": 16},
        {"path": str(tmp_path / "boxes.jsonl"), "grader": "math", "guard": {"max_drop": 0.3}},
    ]
    events: list[Event] = []
    config = small_config(tasks=tasks, search__trials=4, search__ladder=3, confirm__finalists=1)
    report = search(config, name=NAME, storage=storage_in(tmp_path), on_event=events.append)
    named = [text for text in texts(events) if "finds no answer" in text]
    assert named == ["task 'boxes': grader 'math' finds no answer in 100% of the responses"]
    [confirmed] = report.confirmed
    assert set(confirmed.measured.tasks) == {"arithmetic", "boxes"} and confirmed.guards == "kept"
    assert confirmed.measured.accuracy == confirmed.measured.tasks["arithmetic"].accuracy
    assert all(parent is not None and "boxes" in parent.measured.tasks for parent in report.parents.values())


def test_a_budget_that_is_no_limit_is_said_to_be_so(copied: str, tmp_path: Path) -> None:
    report = search(small_config(budget=4000), name=NAME, storage=copied)
    thinking = report.parents["thinking"]
    assert thinking is not None and report.verdict is Verdict.FEASIBLE
    slack = str(slack_of(report))
    assert f"{thinking.score.mean_tokens:.1f} tokens" in slack and "Thinking" in slack
    assert slack.endswith("autolambda search INSTRUCT THINKING --task my.jsonl --budget 4000")
    assert slack_of(finished()) is None
    events: list[Event] = []
    quick = small_config(budget=4000, search__trials=3, search__ladder=3, confirm__finalists=1, confirm__limit=4)
    search(quick, name="early", storage=storage_in(tmp_path, "early"), on_event=events.append)
    again: list[Event] = []
    search(quick, name="early", storage=storage_in(tmp_path, "early"), engine=NoEngine(), on_event=again.append)
    assert (
        sum("is no limit" in text for text in texts(again)) == sum("is no limit" in text for text in texts(events)) == 1
    )
    at = next(i for i, event in enumerate(events) if isinstance(event, Noted) and "is no limit" in event.text)
    assert [event.title for event in events[:at] if isinstance(event, EvaluationEnded)] == ["trial 0", "trial 1"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"search__seed": 1}, "search.seed"),
        ({"sampling__temperature": 0.5}, "sampling.temperature"),
        ({"confirm__limit": 31}, "confirm.prompts"),
        ({"search__rungs": [8]}, "search.rungs"),
        ({"models__chat_template": "instruct"}, "models.chat_template"),
    ],
)
def test_a_changed_config_is_refused_by_name(copied: str, change: dict[str, object], key: str) -> None:
    before = database(copied)
    with pytest.raises(StudyError, match=rf"another config \({key}: ") as raised:
        search(small_config(**change), name=NAME, storage=copied)
    assert "--study" in str(raised.value) and database(copied) == before


def test_confirm_decides_another_budget(copied: str) -> None:
    report = confirm(small_config(), name=NAME, storage=copied, budget=60)
    assert report.budget == 60 and report.verdict is not None and report.counts.complete == 6


def test_evaluate_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    measured = evaluate(small_config(), Schedule.uniform(0.0))
    assert measured.num_responses == 16 and not list(tmp_path.iterdir())
    assert measured == finished().trials[0].measured


def test_bad_input_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_tokens"):
        search(small_config(sampling__max_tokens=4096), name=NAME, storage=storage_in(tmp_path))
    assert not list(tmp_path.iterdir())


class Breaking:
    """The real engine, which fails with ``error`` where it generates its ``dies_at``-th batch, from 0."""

    def __init__(self, job: Job, *, dies_at: int | None, error: Exception) -> None:
        self._real: Engine = open_engine(job)
        self.streams, self.in_words = self._real.streams, self._real.in_words
        self.set_merge, self.fingerprint = self._real.set_merge, self._real.fingerprint
        self.num_batches = 0
        self.num_closed = 0
        self._dies_at, self._error = dies_at, error

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        if self.num_batches == self._dies_at:
            raise self._error
        self.num_batches += 1
        return self._real.generate(prompts, sampling, watch=watch)

    def close(self) -> None:
        self.num_closed += 1
        self._real.close()


SHORT = small_config(
    engine__batch_size=8,
    search__trials=3,
    search__ladder=3,
    confirm__finalists=1,
    confirm__limit=8,
)  # two batches a trial, one for each parent and finalist


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An undisturbed run of ``SHORT``."""
    storage = storage_in(tmp_path_factory.mktemp("short"))
    return Finished(search(SHORT, name=NAME, storage=storage), database(storage))


@dataclass(frozen=True)
class Finished:
    report: Report
    database: dict[str, list[object]]


@pytest.mark.parametrize("error", [RuntimeError("the power went"), EngineError("the power went")])
def test_a_given_engine_that_breaks_loses_nothing(tmp_path: Path, short: Finished, error: Exception) -> None:
    """It is not ours to close, nor to open again."""
    events: list[Event] = []
    engine = Breaking(open_job(SHORT), dies_at=3, error=error)  # in the middle of the second trial
    with pytest.raises(type(error), match=r"^the power went$"):
        search(SHORT, name=NAME, storage=storage_in(tmp_path), engine=engine, on_event=events.append)
    assert len(database(storage_in(tmp_path))["responses"]) == 3 * 8
    assert engine.num_closed == 0 and RETRIED not in texts(events)
    report = search(SHORT, name=NAME, storage=storage_in(tmp_path))
    assert answer(report) == answer(short.report)
    assert database(storage_in(tmp_path)) == short.database


class Opener:
    """Stands in for ``open_engine``: its engines die at these batches, one after the other (``None``: never).

    Where an exception stands in the place of a number, it is raised instead of opening; after the last, engines live.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *deaths: int | Exception | None) -> None:
        self.engines: list[Breaking] = []
        self._deaths = list(deaths)
        monkeypatch.setattr("autolambda.driver.engine.open_engine", self)

    def __call__(self, job: Job, **_: object) -> Breaking:
        death = self._deaths.pop(0) if self._deaths else None
        if isinstance(death, Exception):
            raise death
        assert all(engine.num_closed == 1 for engine in self.engines), "two engines at once"
        self.engines.append(Breaking(job, dies_at=death, error=EngineError("the power went")))
        return self.engines[-1]


RETRIED = "the engine failed (the power went); once more with a new one"


@pytest.mark.parametrize("dies_at", [0, 3, 6])  # the first batch, in mid-trial, the confirmation's first
def test_an_engine_that_fails_is_replaced_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: Finished, dies_at: int
) -> None:
    opener, events = Opener(monkeypatch, dies_at), list[Event]()
    report = search(SHORT, name=NAME, storage=storage_in(tmp_path), on_event=events.append)
    assert texts(events).count(RETRIED) == 1
    assert report_json(report) == report_json(short.report)
    assert database(storage_in(tmp_path)) == short.database
    num_batches = len(short.database["responses"]) // 8
    assert [engine.num_batches for engine in opener.engines] == [dies_at, num_batches - dies_at]  # none done twice
    assert [engine.num_closed for engine in opener.engines] == [1, 1]


def test_each_trial_has_a_second_engine_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: Finished
) -> None:
    opener = Opener(monkeypatch, 1, 2, 2, 2)  # each in the second batch of a trial, then in a confirmation
    search(SHORT, name=NAME, storage=storage_in(tmp_path))
    assert database(storage_in(tmp_path)) == short.database and len(opener.engines) == 5


def test_a_trial_that_fails_twice_is_left_out_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener, events = Opener(monkeypatch, 5, 0, None), list[Event]()  # in the middle of the third trial, and again
    report = search(SHORT, name=NAME, storage=storage_in(tmp_path), on_event=events.append)
    assert texts(events).count(RETRIED) == 1 and len(opener.engines) == 3
    assert "trial 2 failed (the power went); its schedule is left out" in texts(events)
    assert (report.counts.complete, report.counts.failed, report.counts.running) == (3, 1, 0) and report.is_done
    assert [(entry.trial, entry.schedule.lam) for entry in report.trials] == [(0, 0.0), (1, 1.0), (3, 0.25)]
    again = search(SHORT, name=NAME, storage=storage_in(tmp_path), engine=NoEngine())
    assert report_json(again) == report_json(report)


def test_failures_that_are_not_in_a_row_do_not_stop_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Opener(monkeypatch, 0, 0, 3, 0)  # trial 0; then trial 2, after a complete one
    report = search(SHORT, name=NAME, storage=storage_in(tmp_path))
    assert (report.counts.complete, report.counts.failed) == (3, 2)
    assert [entry.trial for entry in report.trials] == [1, 3, 4]


def test_two_trials_in_a_row_that_fail_stop_the_search_which_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener, events = Opener(monkeypatch, 4, 0, 0, 0), list[Event]()
    with pytest.raises(EngineError, match=r"^the power went; 2 trials in a row failed\..* run the same command again$"):
        search(SHORT, name=NAME, storage=storage_in(tmp_path), on_event=events.append)
    assert texts(events).count(RETRIED) == 2 and [engine.num_closed for engine in opener.engines] == [1] * 4
    assert len(database(storage_in(tmp_path))["responses"]) == 2 * 16
    report = search(SHORT, name=NAME, storage=storage_in(tmp_path))
    assert (report.counts.complete, report.counts.failed) == (3, 1) and report.is_done  # the last one is measured now
    assert [(entry.trial, entry.schedule.lam) for entry in report.trials] == [(0, 0.0), (1, 1.0), (3, 0.25)]


def test_a_confirmation_that_fails_twice_ends_the_run_and_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: Finished
) -> None:
    opener = Opener(monkeypatch, 7, 0)
    with pytest.raises(EngineError, match=r"^the power went$"):
        search(SHORT, name=NAME, storage=storage_in(tmp_path))
    assert [engine.num_closed for engine in opener.engines] == [1, 1]
    assert answer(search(SHORT, name=NAME, storage=storage_in(tmp_path))) == answer(short.report)
    assert database(storage_in(tmp_path)) == short.database


@pytest.mark.parametrize("deaths", [(EngineError("no GPU"),), (3, EngineError("no GPU"))])
def test_an_engine_that_does_not_open_ends_the_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: Finished, deaths: tuple[int | Exception, ...]
) -> None:
    """The first or the second one; the trial is gone on with."""
    opener, events = Opener(monkeypatch, *deaths), list[Event]()
    with pytest.raises(EngineError, match=r"^no GPU$"):
        search(SHORT, name=NAME, storage=storage_in(tmp_path), on_event=events.append)
    assert texts(events).count(RETRIED) == len(opener.engines) == len(deaths) - 1
    assert answer(search(SHORT, name=NAME, storage=storage_in(tmp_path))) == answer(short.report)
    assert database(storage_in(tmp_path)) == short.database


def started(folder: Path, *options: str) -> subprocess.Popen[str]:
    """The real command in ``folder``, with the config of ``finished()``."""
    config = {key: value for key, value in SETTINGS.items() if "." not in key}
    settings = [f"--set={key}={value}" for key, value in SETTINGS.items() if "." in key]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return subprocess.Popen(
        [*CLI, "search", "--config=config.yaml", f"--study={NAME}", f"--budget={BUDGET:g}", *settings, *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )


def wait_for_line(process: subprocess.Popen[str], start: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return
    raise AssertionError(f"no line that starts with {start!r}: {process.communicate()[1]}")


def answer(report: Report) -> dict[str, object]:
    plain: dict[str, object] = json.loads(report_json(report))
    return plain


def test_kills_at_any_moment_change_nothing(tmp_path: Path) -> None:
    finished()
    rng = random.Random(0)
    storage = storage_in(tmp_path)
    starts = ["note: study", "note: engine", "trial 1 ", "trial 3 ", "trial 5 ", "thinking as is"]
    for start in starts:
        process = started(tmp_path)
        wait_for_line(process, start)
        time.sleep(rng.uniform(0.0, 0.8))
        assert process.poll() is None, "it ended before the kill"
        process.kill()
        process.communicate()
    process = started(tmp_path)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "Feasible within 30 tokens" in output
    assert database(storage) == database(finished_storage())
    config = small_config()
    assert answer(search(config, name=NAME, storage=storage, engine=NoEngine())) == answer(finished())


def test_a_finalist_is_not_gone_on_with_under_other_weights(copied: str) -> None:
    """As if a run had been killed in the middle of confirming, and PyTorch then rounded in another way."""
    with closing(sqlite3.connect(copied.removeprefix("sqlite:///"))) as connection, connection:
        confirming = "SELECT max(id) FROM autolambda_evaluations WHERE kind = 'confirm'"
        last = f"SELECT id FROM autolambda_responses WHERE evaluation = ({confirming}) ORDER BY id DESC LIMIT 3"
        assert connection.execute(f"DELETE FROM autolambda_responses WHERE id IN ({last})").rowcount == 3
        values = "UPDATE study_user_attributes SET value_json = {} WHERE key LIKE 'weights %'"
        assert connection.execute(values.format("replace(value_json, substr(value_json, 2, 4), 'beef')")).rowcount > 1
    with pytest.raises(StudyError, match=r"study 'small': .* was merged to other weights before"):
        search(small_config(), name=NAME, storage=copied)
    with closing(sqlite3.connect(copied.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("DELETE FROM study_user_attributes WHERE key LIKE 'weights %'")
    report = search(small_config(), name=NAME, storage=copied)
    before = finished()
    assert (report.verdict, report.best) == (before.verdict, before.best)
    assert set(report.digests.values()) < set(before.digests.values())  # of the one that was gone on with


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_in_one_line_with_the_command_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    process = started(tmp_path)
    wait_for_line(process, "trial 1 ")
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.splitlines() == [f"interrupted; nothing is lost. Go on with: autolambda resume {NAME}"]
    assert f"Front of {NAME}, smoothed over all trials, unconfirmed" in output
    assert len(database(storage_in(tmp_path))["responses"]) >= 32
    if number == signal.SIGINT:
        report = search(small_config(), name=NAME, storage=storage_in(tmp_path))
        assert answer(report) == answer(finished())


@pytest.mark.parametrize(
    ("settings", "reason", "words"),
    [
        ({"search__min_gain": 0.5, "search__trials": 20}, "gain", "less than 50 (search.min_gain)"),
        ({"search__max_tokens_generated": 4000, "search__trials": 99}, "tokens", "(search.max_tokens_generated)"),
        ({"search__trials": 2, "search__ladder": 2}, "trials", "2 trials are done (search.trials)"),
    ],
)
def test_why_a_search_stops_is_said_and_kept(
    tmp_path: Path, settings: dict[str, object], reason: str, words: str
) -> None:
    events: list[Event] = []
    config = small_config(**settings, confirm__limit=4)
    report = search(config, name=NAME, storage=storage_in(tmp_path), on_event=events.append)
    assert report.stop_reason == reason and report.is_done and report.verdict is not None
    [said] = [text for text in texts(events) if text.startswith("the search is over")]
    assert said.endswith(words)
    again = search(config, name=NAME, storage=storage_in(tmp_path), engine=NoEngine())
    assert report_json(again) == report_json(report)


@pytest.mark.parametrize("sampler", ["surrogate", "gp", "tpe", "random", "grid"])
def test_every_sampler_comes_to_a_verdict(tmp_path: Path, sampler: str) -> None:
    config = small_config(search__sampler=sampler, confirm__limit=8, confirm__finalists=1)
    report = search(config, name=NAME, storage=storage_in(tmp_path))
    assert report.verdict is not None and report.is_done and report.smoothed_front
    assert report.counts.complete + report.counts.pruned == 6 and report.counts.complete >= 4
    assert [entry.schedule for entry in report.trials[:2]] == list(PARENTS.values())


RACED = small_config(
    budget=10.0,
    tasks=[{"name": "arithmetic", "limit": 32}],
    engine__batch_size=8,
    search__rungs=[8],
    search__ladder=2,
    confirm__limit=8,
    confirm__finalists=1,
)
SCRIPT = [(0.0, 0, 8), (1.0, 0, 8), (0.9, 0, 32), (0.0, 8, 32), (0.1, 0, 8)]  # lambda, from and to which response
COST = {0: 8, 1: 8, 2: 8, 3: 24, 4: 8}  # responses of each: of the third just the first rung, aborted


def read_script(evidence: Observations, config: SearchConfig, aims: Aims) -> Proposal | Stop:
    """Stands in for the sampler."""
    if evidence.num_trials == len(SCRIPT):
        return Stop("gain", 0.0)
    lam, start, stop = SCRIPT[evidence.num_trials]
    return Proposal(uniform_params(lam, num_knots=3), start, stop)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that measures what ``SCRIPT`` says, whatever the sampler would think of it."""
    monkeypatch.setattr(runs, "propose", read_script)


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An undisturbed run of ``RACED``."""
    storage = storage_in(tmp_path_factory.mktemp("raced"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "propose", read_script)
        return Finished(search(RACED, name=NAME, storage=storage), database(storage))


def rows_of_trials(storage: str) -> dict[int, list[tuple[object, ...]]]:
    """The stored responses of each trial."""
    tables = database(storage)
    found: dict[int, list[tuple[object, ...]]] = {number: [] for number in range(len(SCRIPT))}
    trials = {row[0]: int(row[2]) for row in tables["evaluations"] if row[1] == "trial"}
    for row in tables["responses"]:
        if row[0] in trials:
            found[trials[row[0]]].append(row)
    return found


def test_a_trial_far_over_the_budget_is_stopped_in_mid_response(tmp_path: Path, scripted: None) -> None:
    events: list[Event] = []
    report = search(RACED, name=NAME, storage=storage_in(tmp_path), on_event=events.append)
    rows = rows_of_trials(storage_in(tmp_path))
    assert {number: len(each) for number, each in rows.items()} == COST
    assert any(row[6] == "aborted" for row in rows[2]) and not any(row[6] == "aborted" for row in rows[1] + rows[3])
    states = {row[1]: row[2] for row in database(storage_in(tmp_path))["trials"]}
    assert states == {0: "COMPLETE", 1: "COMPLETE", 2: "PRUNED", 3: "COMPLETE", 4: "COMPLETE"}
    [ended] = [event for event in events if isinstance(event, EvaluationEnded) and event.title == "trial 2"]
    assert ended.measured is None and ended.stopped == "over the budget"
    assert report.counts.pruned == 1 and Schedule.uniform(0.9) not in [entry.schedule for entry in report.trials]
    # what it cost is counted all the same
    assert report.tokens_generated == sum(row[5] for row in database(storage_in(tmp_path))["responses"])
    again = search(RACED, name=NAME, storage=storage_in(tmp_path), engine=NoEngine())
    assert report_json(again) == report_json(report) and report.stop_reason == "gain"


def test_trials_of_one_schedule_are_pooled(tmp_path: Path, scripted: None) -> None:
    report = search(RACED, name=NAME, storage=storage_in(tmp_path))
    assert [(entry.trial, entry.schedule.lam, entry.measured.num_responses) for entry in report.trials] == [
        (0, 0.0, 32),
        (1, 1.0, 8),
        (4, 0.1, 8),
    ]
    rows = rows_of_trials(storage_in(tmp_path))
    places = [row[1:4] for row in rows[0] + rows[3]]
    assert len(set(places)) == 32 and [row[1:4] for row in rows[1]] == [row[1:4] for row in rows[0]]
    mean = sum(int(str(row[5])) for row in rows[0] + rows[3]) / 32
    assert report.trials[0].measured.mean_tokens.value == pytest.approx(mean)


@pytest.mark.parametrize("dies_at", range(2, 9))
def test_a_raced_search_that_dies_in_any_batch_changes_nothing(
    tmp_path: Path, scripted: None, raced: Finished, dies_at: int
) -> None:
    """In the trial that is aborted, in the one that goes on with another, in the confirmation."""
    engine = Breaking(open_job(RACED), dies_at=dies_at, error=RuntimeError("the power went"))
    with pytest.raises(RuntimeError, match="the power went"):
        search(RACED, name=NAME, storage=storage_in(tmp_path), engine=engine)
    assert report_json(search(RACED, name=NAME, storage=storage_in(tmp_path))) == report_json(raced.report)
    assert database(storage_in(tmp_path)) == raced.database


def test_two_tasks_are_asked_in_proportion_from_the_first_rung_on(tmp_path: Path, scripted: None) -> None:
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(json.dumps({"question": f"{i}+1=", "answer": str(i + 1)}) + "\n" for i in range(16)))
    tasks = [{"name": "arithmetic", "limit": 24}, {"path": str(file), "weight": 3.0}]
    config = small_config(**{"budget": 10.0, "engine__batch_size": 8, "search__rungs": [8], "search__ladder": 2,
                             "confirm__limit": 4, "confirm__finalists": 1, "tasks": tasks})  # fmt: skip
    report = search(config, name=NAME, storage=storage_in(tmp_path))
    first, whole = (rows_of_trials(storage_in(tmp_path))[number] for number in (1, 3))
    assert [row[1] for row in first].count("sums") == 2 and [row[1] for row in whole].count("sums") == 6
    assert report.trials[0].measured.tasks.keys() == {"arithmetic", "sums"} and report.is_done


def test_baselines_are_measured_beside_the_finalists_and_kept(copied: str) -> None:
    """They are added to a study that is done: nothing else is generated anew."""
    before = database(copied)
    config = small_config(search__baselines=["task_arithmetic", "slerp", "cut"])
    report = search(config, name=NAME, storage=copied)
    names = list(report.baselines)
    assert names[0] == "task_arithmetic" and names[1].startswith("slerp at lambda ") and len(names) >= 2
    assert all(entry.confirmed and entry.trial is None for entry in report.baselines.values())
    accuracies = {entry.score.accuracy for entry in report.baselines.values()}
    assert len(accuracies) == len(names)  # each has weights or a cut of its own
    plain = json.loads(report_json(report))
    assert [each["method"] for each in plain["baselines"]] == names
    after = database(copied)
    assert [row for row in after["responses"] if row in before["responses"]] == before["responses"]
    assert answer(report) | {"baselines": []} == answer(finished()) | {"tokens_generated": plain["tokens_generated"]}
    again = search(config, name=NAME, storage=copied, engine=NoEngine())
    assert answer(again) == answer(report)


def test_a_baseline_has_a_second_engine_too(copied: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, undisturbed = small_config(search__baselines=["slerp", "cut"]), storage_in(tmp_path / "undisturbed")
    expected = search(config, name=NAME, storage=copy_finished(undisturbed))
    opener, events = Opener(monkeypatch, 0, 1, 0), list[Event]()  # in the first baseline, then twice in the second
    with pytest.raises(EngineError, match=r"^the power went$"):
        search(config, name=NAME, storage=copied, on_event=events.append)
    assert texts(events).count(RETRIED) == 2 and [engine.num_closed for engine in opener.engines] == [1, 1, 1]
    assert report_json(search(config, name=NAME, storage=copied)) == report_json(expected)
    assert database(copied) == database(undisturbed)


def test_a_baseline_without_its_base_is_refused_before_anything_is_generated(copied: str) -> None:
    parents = FOLDER
    config = small_config(
        search__baselines=["slerp", "ties"],
        models__instruct=str(parents / "instruct"),
        models__thinking=str(parents / "thinking"),
    )
    with pytest.raises(ConfigError, match=r"models\.base: ties needs the base model"):
        search(config, name=NAME, storage=copied, engine=NoEngine())


def test_two_drivers_do_not_share_a_study(copied: str) -> None:
    with driver_lock(copied, NAME), pytest.raises(StudyError, match="another process"):
        search(small_config(), name=NAME, storage=copied, engine=NoEngine())
