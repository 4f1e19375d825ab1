"""The main job from end to end on the bundled pair: verdicts, determinism, and studies that go on."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from engine import FakeEngine, lambda_of, no_engine
from small_search import (
    BUDGET,
    NAME,
    close_pair,
    copy_finished,
    database,
    finished,
    finished_storage,
    small_config,
    storage_in,
    texts,
    unconfirmed,
)

from autolambda.bundled import FOLDER
from autolambda.driver import confirm as confirming
from autolambda.driver import models as models_of_driver
from autolambda.driver.events import Began, EvaluationEnded, Event, Generated, Noted
from autolambda.driver.search import confirm, evaluate, search
from autolambda.engines.base import Prompt, Sampling
from autolambda.errors import ConfigError, StudyError, SwappedError
from autolambda.merging.method import Method
from autolambda.optimizer.finalists import Plan
from autolambda.optimizer.space import PARENTS
from autolambda.report import read as reading
from autolambda.report.json_csv import report_json
from autolambda.report.read import read_report
from autolambda.report.sentences import slack_of, verdict_sentences
from autolambda.responses import Response
from autolambda.schedule import Schedule
from autolambda.statistics.verdict import Verdict
from autolambda.study.database import driver_lock
from autolambda.study.reader import stored_config
from autolambda.study.store import Store


@pytest.fixture
def copied(tmp_path: Path) -> str:
    """The finished study's database, copied: what is done to it stays here."""
    return copy_finished(storage_in(tmp_path))


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
    stored = []
    for seed in (0, 1):
        config = small_config(search__seed=seed, search__trials=2, search__ladder=2, confirm__finalists=1)
        search(config, name=NAME, storage=storage_in(tmp_path, str(seed)), engine=FakeEngine())
        stored.append(database(storage_in(tmp_path, str(seed)))["responses"][16:32])
    ours, theirs = stored
    assert [row[2] for row in ours] == [row[2] for row in theirs] and ours != theirs


def test_a_finished_study_answers_again_without_an_engine(copied: str) -> None:
    events: list[Event] = []
    report = search(small_config(), name=NAME, storage=copied, engine=no_engine(), on_event=events.append)
    assert report_json(report) == report_json(finished())
    assert not any(isinstance(event, Generated) for event in events)
    assert any("6 merges are done already" in text for text in texts(events))
    assert any(copied in text for text in texts(events))


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
    report = search(small_config(budget=1.5), name=NAME, storage=copied, engine=FakeEngine())
    after = database(copied)["responses"]
    assert report.verdict is Verdict.INFEASIBLE and report.best is None and report.nearest is not None
    assert report.nearest.measured.mean_tokens.value > 1.5 and report.nearest.confirmed
    kinds = {row[0]: row[1] for row in database(copied)["evaluations"]}
    assert after[: len(before)] == before and sum(kinds[row[0]] == "trial" for row in after) == num_trials
    free = search(small_config(budget=None), name=NAME, storage=copied, engine=FakeEngine())
    assert free.verdict is None and free.best is None and len(free.confirmed_front) >= 2 and free.is_done


def test_a_grader_that_finds_no_answers_is_named_once_and_a_guard_holds_the_verdict(tmp_path: Path) -> None:
    """No response of the bundled pair has a box, so the guard's accuracy is 0 everywhere: nothing can be lost on it."""
    rows = [{"question": f"{a}+{b}=", "answer": str((a + b) % 10)} for a in range(6) for b in range(6)]
    (tmp_path / "boxes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tasks = [
        {"name": "arithmetic", "limit": 16, "repeats": 1},
        {"path": str(tmp_path / "boxes.jsonl"), "grader": "math", "repeats": 1, "guard": {"max_drop": 0.3}},
    ]
    events: list[Event] = []
    config = small_config(tasks=tasks, search__trials=4, search__ladder=3, confirm__finalists=1)
    report = search(config, name=NAME, storage=storage_in(tmp_path), on_event=events.append, engine=FakeEngine())
    named = [text for text in texts(events) if "finds no answer" in text]
    look = "look at some: autolambda report small --format html --out report.html"
    assert named == [f"task 'boxes': grader 'math' finds no answer in 100% of the responses; {look}"]
    [confirmed] = report.confirmed
    assert set(confirmed.measured.tasks) == {"arithmetic", "boxes"} and confirmed.guards == "kept"
    assert confirmed.measured.accuracy == confirmed.measured.tasks["arithmetic"].accuracy
    assert all(parent is not None and "boxes" in parent.measured.tasks for parent in report.parents.values())


def test_a_budget_that_is_no_limit_is_said_to_be_so(copied: str, tmp_path: Path) -> None:
    report = search(small_config(budget=4000), name=NAME, storage=copied, engine=FakeEngine())
    thinking = report.parents["thinking"]
    assert thinking is not None and report.verdict is Verdict.FEASIBLE
    slack = str(slack_of(report))
    assert f"{thinking.score.mean_tokens:.1f} tokens" in slack and "Thinking" in slack
    assert slack.endswith("autolambda search INSTRUCT THINKING --task my.jsonl --budget 4000")
    assert slack_of(finished()) is None
    events: list[Event] = []
    quick = small_config(budget=4000, search__trials=3, search__ladder=3, confirm__finalists=1, confirm__limit=4)
    search(quick, name="early", storage=storage_in(tmp_path, "early"), on_event=events.append, engine=FakeEngine())
    again: list[Event] = []
    search(quick, name="early", storage=storage_in(tmp_path, "early"), engine=no_engine(), on_event=again.append)
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
    report = confirm(small_config(), name=NAME, storage=copied, budget=60, engine=FakeEngine())
    assert report.budget == 60 and report.verdict is not None and report.counts.complete == 6


def notes_on_rounding(events: list[Event]) -> list[str]:
    said = [event.text for event in events if isinstance(event, Noted)]
    return [text for text in said if "differ by at most" in text or "ounded to nearest" in text]


def test_parents_whose_merges_would_be_distorted_are_told_once_and_stored(tmp_path: Path) -> None:
    config, storage = small_config(**close_pair(tmp_path), merge__rounding="dithered"), storage_in(tmp_path)
    events: list[Event] = []
    report = search(config, name=NAME, storage=storage, engine=FakeEngine(), on_event=events.append)
    assert report.parents_differ is not None and report.parents_differ.distorts
    assert notes_on_rounding(events) == list(report.parents_differ.sentences())
    assert "lambda 0.49, 0.5 and 0.51 would have moved 0.00, 0.50 and 1.00" in notes_on_rounding(events)[1]


def test_a_study_that_does_not_know_how_its_parents_differ_is_told(copied: str) -> None:
    """As one that an earlier release made."""
    with closing(sqlite3.connect(copied.removeprefix("sqlite:///"))) as connection, connection:
        gone = connection.execute("DELETE FROM study_user_attributes WHERE key = 'parents_differ'").rowcount
    assert gone == 1 and read_report(NAME, copied, None).parents_differ is None
    events: list[Event] = []
    report = search(small_config(), name=NAME, storage=copied, engine=no_engine(), on_event=events.append)
    assert report.parents_differ == finished().parents_differ != None and notes_on_rounding(events) == []  # noqa: E711


def test_evaluate_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    measured = evaluate(small_config(), Schedule.uniform(0.0))
    assert measured.num_responses == 16 and not list(tmp_path.iterdir())
    assert measured == finished().trials[0].measured


def test_evaluate_opens_the_models_that_its_schedule_reads() -> None:
    """No space of the search reads them."""
    tiny = {"tasks": [{"name": "arithmetic", "limit": 2, "repeats": 1}], "sampling__max_tokens": 4}
    scaled = Schedule.uniform(0.5).beyond(scale=1.2, third=0.1)
    assert evaluate(small_config(**tiny, models__third=str(FOLDER / "base")), scaled).num_responses == 2


def test_bad_input_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_tokens"):
        search(small_config(sampling__max_tokens=4096), name=NAME, storage=storage_in(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_finalist_is_not_gone_on_with_under_other_weights(copied: str) -> None:
    """As if a run had been killed in the middle of confirming, and PyTorch then rounded in another way."""
    with closing(sqlite3.connect(copied.removeprefix("sqlite:///"))) as connection, connection:
        confirming = "SELECT max(id) FROM autolambda_evaluations WHERE kind = 'confirm'"
        last = f"SELECT id FROM autolambda_responses WHERE evaluation = ({confirming}) ORDER BY id DESC LIMIT 3"
        assert connection.execute(f"DELETE FROM autolambda_responses WHERE id IN ({last})").rowcount == 3
        values = "UPDATE study_user_attributes SET value_json = {} WHERE key LIKE 'weights %'"
        assert connection.execute(values.format("replace(value_json, substr(value_json, 2, 4), 'beef')")).rowcount >= 1
    with pytest.raises(StudyError, match=r"study 'small': .* was merged to other weights before"):
        search(small_config(), name=NAME, storage=copied)
    with closing(sqlite3.connect(copied.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("DELETE FROM study_user_attributes WHERE key LIKE 'weights %'")
    report = search(small_config(), name=NAME, storage=copied)
    before = finished()
    assert (report.verdict, report.best) == (before.verdict, before.best)
    assert set(report.digests.values()) <= set(before.digests.values())  # only of the one that was gone on with
    assert len(report.digests) == 1


@pytest.mark.parametrize(
    ("settings", "reason", "words"),
    [
        ({"search__min_gain": 0.5, "search__trials": 20}, "gain", "less than 50 (search.min_gain)"),
        (
            {"search__max_tokens_generated": 4000, "search__trials": 99},
            "tokens",
            "too few of its 1,800 tokens are left for another merge",
        ),
        ({"search__trials": 2, "search__ladder": 2}, "trials", "2 merges are tried (search.trials)"),
    ],
)
def test_why_a_search_stops_is_said_and_kept(
    tmp_path: Path, settings: dict[str, object], reason: str, words: str
) -> None:
    events: list[Event] = []
    config = small_config(**settings, confirm__limit=4)
    report = search(config, name=NAME, storage=storage_in(tmp_path), on_event=events.append, engine=FakeEngine())
    assert report.stop_reason == reason and report.is_done and report.verdict is not None
    [said] = [text for text in texts(events) if text.startswith("Search done: ")]
    assert said.endswith(f"{words}. Now checking the best on new prompts.")
    again = search(config, name=NAME, storage=storage_in(tmp_path), engine=no_engine())
    assert report_json(again) == report_json(report)


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_every_other_sampler_comes_to_a_verdict(tmp_path: Path, sampler: str) -> None:
    config = small_config(search__sampler=sampler, confirm__limit=8, confirm__finalists=1)
    report = search(config, name=NAME, storage=storage_in(tmp_path), engine=FakeEngine())
    assert report.verdict is not None and report.is_done and report.smoothed_front
    assert report.counts.complete + report.counts.pruned == 6 and report.counts.complete >= 4
    assert [entry.schedule for entry in report.trials[:2]] == list(PARENTS.values())


def test_two_drivers_do_not_share_a_study(copied: str) -> None:
    with driver_lock(copied, NAME), pytest.raises(StudyError, match="is being run by process"):
        search(small_config(), name=NAME, storage=copied, engine=no_engine())


def test_the_confirmation_ends_at_the_first_finalist_that_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three finalists in testing order the second is over the budget, so the third is not generated."""
    storage = unconfirmed(storage_in(tmp_path))
    agreed = Plan((0, 1, 2), 32, (32, 16))  # lambda 0, lambda 1 and another
    monkeypatch.setattr(confirming, "plan", lambda *_, **__: agreed)
    monkeypatch.setattr(reading, "plan", lambda *_, **__: agreed)
    report = confirm(small_config(), name=NAME, storage=storage, budget=20.0)
    rows = database(storage)["evaluations"]
    assert [(row[1], row[4]) for row in rows if row[1] != "trial"] == [
        ("parent", 32),
        ("parent", 16),
        ("confirm", 32),
        ("confirm", 32),
    ]
    assert report.verdict is Verdict.FEASIBLE and [each.trial for each in report.confirmed] == [0, 1]
    assert report.best is not None and report.best.parent == "instruct" and report.is_done
    assert report.open is not None and report.open.result.trial == 1
    free = confirm(small_config(), name=NAME, storage=storage, budget=None)  # without a budget all are confirmed
    assert [each.trial for each in free.confirmed] == [0, 1, 2]


@pytest.mark.parametrize("with_guard", [False, True])
def test_a_study_of_an_earlier_release_goes_on_with_more_repeats_or_its_own(tmp_path: Path, with_guard: bool) -> None:
    """It stored no repeats: its default was 1. A task grows; a longer guard would grow less and change their order."""
    tasks: list[dict[str, object]] = [{"name": "arithmetic", "limit": 16}]
    if with_guard:
        lines = [json.dumps({"question": f"{i}+1=", "answer": str(i + 1)}) for i in range(80)]
        (tmp_path / "sums.jsonl").write_text("\n".join(lines))
        tasks.append({"path": str(tmp_path / "sums.jsonl"), "guard": {"max_drop": 0.5}})
    changes = {"search__trials": 4, "search__ladder": 3, "confirm__limit": 8, "confirm__share": 0.5}
    old = small_config(tasks=[{**task, "repeats": 1} for task in tasks], **changes)
    storage = storage_in(tmp_path)
    search(old, name=NAME, storage=storage, engine=FakeEngine())
    before, now = database(storage), small_config(tasks=tasks, confirm__repeats=None, **changes)
    with closing(Store(storage)) as store:
        stored = store.study(NAME)
        assert stored is not None
        store.update_study(NAME, config=now.model_dump(mode="json"), identity=stored.identity)
    search(stored_config(NAME, storage), name=NAME, storage=storage, engine=FakeEngine())
    with closing(Store(storage)) as store:
        after = store.study(NAME)
    assert after is not None and database(storage)["responses"][: len(before["responses"])] == before["responses"]
    repeats = {phase: [each[1] for each in part["prompts"]] for phase, part in after.identity["tasks"].items()}
    own = {"search": [1, 1], "confirm": [1, 1]}
    assert repeats == (own if with_guard else {"search": [8], "confirm": [8]})


def dated(folder: Path) -> dict[str, str]:
    """The Thinking template with the time to the second, as overrides of a config."""
    file = folder / "dated.jinja"
    file.write_text("{{ strftime_now('%d %B %Y, %H:%M:%S') }}" + (FOLDER / "thinking/chat_template.jinja").read_text())
    return {"models__chat_template": str(file)}


def prompts_of(engine: FakeEngine) -> set[str]:
    return {prompt.text for batch in engine.batches for prompt in batch}


def test_a_study_goes_on_at_the_moment_of_its_creation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    config, storage, first, second = dated(tmp_path), storage_in(tmp_path), FakeEngine(), FakeEngine()
    few = {"search__trials": 4, "search__ladder": 4}
    search(small_config(**config, **few), name=NAME, storage=storage, engine=first, on_event=events.append)
    (said,) = [text for text in texts(events) if "asks for the date" in text]

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2031, 1, 1)

    monkeypatch.setattr(models_of_driver, "datetime", Later)
    again: list[Event] = []
    search(small_config(**config), name=NAME, storage=storage, engine=second, on_event=again.append)
    assert said in texts(again) and second.batches
    dates = {text.partition("<|im_start|>")[0] for text in prompts_of(first) | prompts_of(second)} - {""}
    assert len(dates) == 1 and "2031" not in dates.pop()
    with closing(Store(storage)) as store:
        stored = store.study(NAME)
        assert stored is not None
        identity = {
            key: value for key, value in stored.identity.items() if not key.startswith(("models.p", "models.cl"))
        }
        store.update_study(NAME, config=stored.config, identity=identity)
    third = FakeEngine()  # a study of an earlier release takes the moment at which its row was written
    search(small_config(**config, search__trials=9), name=NAME, storage=storage, engine=third)
    assert not any("2031" in text for text in prompts_of(third))


def test_a_think_ratio_of_0_at_lambda_1_is_said_with_the_tag_that_is_there(tmp_path: Path) -> None:
    def thinks_otherwise(method: Method, prompt: Prompt, sampling: Sampling) -> Response:
        return Response("2 and 2 are[/THINK]4", 5, "stop")

    events: list[Event] = []
    engine = FakeEngine(respond=thinks_otherwise)
    search(small_config(), name=NAME, storage=storage_in(tmp_path), engine=engine, on_event=events.append)
    (said,) = [text for text in texts(events) if "Think ratio at lambda 1 is 0" in text]
    assert "no response has </think>; they have [/THINK], and set models.think_end" in said


def test_an_engine_whose_weights_cannot_be_compared_is_said_once_and_in_the_report(tmp_path: Path) -> None:
    events: list[Event] = []
    report = search(
        small_config(), name=NAME, storage=storage_in(tmp_path), engine=FakeEngine(), on_event=events.append
    )
    assert len([text for text in texts(events) if "cannot be compared" in text]) == 1
    assert report.best is not None and report.unchecked(report.best).startswith(" (the engine's weights were not")
    assert finished().best is not None and finished().unchecked(finished().best) == ""
    if report.verdict is Verdict.FEASIBLE and report.best.parent is None:
        assert any("not hashed" in str(each) for each in verdict_sentences(report))


class SwappedEngine(FakeEngine):
    """Thinks at lambda 0, and not at lambda 1."""

    def _made_up(self, method: Method, prompt: Prompt, sampling: Sampling) -> Response:
        return super()._made_up(Method.linear(Schedule.uniform(1 - lambda_of(method))), prompt, sampling)


def test_swapped_parents_stop_the_search_after_both_ends_and_leave_its_name_free(tmp_path: Path) -> None:
    engine, storage = SwappedEngine(), storage_in(tmp_path)
    with pytest.raises(SwappedError, match="the two models are swapped") as stopped:
        search(small_config(), name=NAME, storage=storage, engine=engine)
    assert len(engine.merges) == 2 and stopped.value.kept == "small-swapped"
    assert stopped.value.instruct == str(FOLDER / "instruct") and "INSTRUCT closes its thinking in" in str(
        stopped.value
    )
    report = search(small_config(), name=NAME, storage=storage, engine=FakeEngine())
    assert report.trials[0].trial == 0 and report.is_done
    with closing(Store(storage)) as store:
        assert set(store.names()) == {"small-swapped", NAME}


def test_who_insists_may_search_swapped_parents(tmp_path: Path) -> None:
    config = small_config(models__allow_swapped=True)
    assert search(config, name=NAME, storage=storage_in(tmp_path), engine=SwappedEngine()).is_done
    with pytest.raises(SwappedError) as stopped:  # a longer study keeps its name
        search(small_config(), name=NAME, storage=storage_in(tmp_path), engine=SwappedEngine())
    assert stopped.value.kept == NAME


def test_names_that_are_swapped_are_refused_before_anything_is_opened(tmp_path: Path) -> None:
    swapped = {"models__instruct": str(FOLDER / "thinking"), "models__thinking": str(FOLDER / "instruct")}
    with pytest.raises(SwappedError, match="by their names, the two models are swapped"):
        search(small_config(**swapped), name=NAME, storage=storage_in(tmp_path), engine=no_engine())
    assert not (tmp_path / "studies").exists()


def test_too_few_prompts_to_check_with_leave_the_answer_open(tmp_path: Path) -> None:
    config = small_config(budget=1000.0, confirm__limit=19)
    report = search(config, name=NAME, storage=storage_in(tmp_path), engine=FakeEngine())
    assert report.verdict is Verdict.UNCERTAIN and report.best is None
    assert any("Only 19 prompts were left to check with" in str(each) for each in verdict_sentences(report))
