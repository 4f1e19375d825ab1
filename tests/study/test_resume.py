"""What may change in a study that goes on, by hand and in real searches: growth is measured on, the rest is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from engine import FakeEngine
from small_search import NAME, copy_finished, database, finished, finished_storage, small_config, storage_in

from autolambda.config import parse_config
from autolambda.driver.events import Noted
from autolambda.driver.search import search
from autolambda.errors import StudyError
from autolambda.responses import Sample
from autolambda.study.resume import check_identity, comparable, growth_sentence, has_grown, moment_of
from autolambda.study.store import StoredStudy
from autolambda.tasks.base import Slice
from autolambda.tasks.digest import prompts_key

IDENTITY = {
    "models.thinking": "abc",
    "sampling.top_k": 20,
    "sampling.stop": ["x"],
    "tasks": prompts_key(([], [])),
    "seed": None,
}


@pytest.mark.parametrize("role", ["base", "third"])
def test_a_study_may_grow_into_a_space_that_reads_a_further_model(role):
    """No earlier schedule reads it. From then on its weights may not change, and it may not be left out."""
    before, now = {"models.thinking": "t"}, {"models.thinking": "t", f"models.{role}": "b"}
    old, new = comparable(before, now)
    assert old == new
    for changed in (before, now | {f"models.{role}": "other"}):
        old, new = comparable(now, changed)
        assert old != new


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampling.top_k": 5}, ["sampling.top_k: 20 then, 5 now"]),
        ({"seed": "9" * 200}, ["seed: none then, 999", "... now"]),
        ({"seed": 0, "models.thinking": "x"}, ["(models.thinking: other weights than then; seed: none then, 0 now)"]),
        ({"new.key": 1}, ["new.key: none then, 1 now"]),
        ({"seed": "a\nb"}, ["seed: none then, 'a\\nb' now"]),
    ],
)
def test_a_changed_identity_is_refused_by_name(change, named):
    stored = StoredStudy("one", {}, IDENTITY, "2026-01-01")
    with pytest.raises(StudyError, match="study 'one' was made with another config") as caught:
        check_identity(stored, IDENTITY | change, slices=([], []))
    assert all(part in str(caught.value) for part in named)
    assert "\n" not in str(caught.value)
    assert "sampling.stop" not in str(caught.value)


def test_a_study_made_before_the_choice_of_rounding_goes_on_rounding_to_nearest():
    stored = StoredStudy("old", {"budget": 40.0}, IDENTITY, "")
    assert parse_config(stored.settings).merge.rounding == "nearest"
    check_identity(stored, IDENTITY | {"merge.rounding": "nearest"}, slices=([], []))
    with pytest.raises(StudyError, match=r"merge\.rounding: nearest then, dithered now"):
        check_identity(stored, IDENTITY | {"merge.rounding": "dithered"}, slices=([], []))


def test_the_same_identity_passes():
    check_identity(StoredStudy("one", {}, IDENTITY, ""), dict(reversed(IDENTITY.items())), slices=([], []))


@pytest.mark.parametrize(("role", "space"), [("base", "scale"), ("third", "third")])
def test_a_space_that_is_left_out_is_named(role, space):
    stored = StoredStudy("one", {}, IDENTITY | {f"models.{role}": "b"}, "")
    with pytest.raises(StudyError, match=rf"search\.spaces: with {space} then, without it now"):
        check_identity(stored, IDENTITY, slices=([], []))


def test_a_narrower_range_is_refused_and_a_wider_one_goes_on():
    """Samplers fail at measured points outside the range."""
    stored = StoredStudy("one", {"search": {"range": [-0.1, 1.2]}}, IDENTITY, "")
    check_identity(stored, IDENTITY, slices=([], []), config=parse_config({"search": {"range": [-0.1, 1.3]}}))
    for narrower in ([-0.05, 1.3], [-0.1, 1.1]):
        with pytest.raises(StudyError, match=r"in \[-0.1, 1.2\], and search.range .* is narrower; take a range that"):
            check_identity(stored, IDENTITY, slices=([], []), config=parse_config({"search": {"range": narrower}}))


def part(task="a", prompts=4, repeats=2, **more):
    samples = tuple(Sample(str(n), ({"role": "user", "content": f"{task}{n}"},), "1") for n in range(prompts))
    return Slice(task, "exact", samples, repeats, **more)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ([part()], [part()], True),
        ([part()], [part(repeats=5)], True),
        ([part()], [part(repeats=1)], False),
        ([part(repeats=1)], [part(prompts=7, repeats=1)], True),
        ([part(repeats=1)], [part(prompts=7, repeats=2)], True),
        ([part(repeats=2)], [part(prompts=7, repeats=2)], False),  # the new prompts come before the second repeats
        ([part(repeats=1)], [part(prompts=3, repeats=1)], False),
        ([part(), part("b")], [part(repeats=4), part("b", repeats=4)], True),
        ([part(), part("b")], [part(repeats=4), part("b", repeats=2)], False),  # they alternate in another way
        ([part()], [part(repeats=4), part("b", repeats=4)], False),
        ([part()], [part("b", repeats=4)], False),
        ([part()], [part(repeats=4, weight=2.0)], False),
        ([part(), part("b", max_drop=0.1)], [part(repeats=4), part("b", repeats=4, max_drop=0.2)], True),
    ],
)
def test_what_counts_as_growth(before, now, expected):
    key = prompts_key((before, [part("c")]))
    assert has_grown(key, (now, [part("c")])) is expected
    assert has_grown(prompts_key(([part("c")], before)), ([part("c")], now)) is expected


def test_other_prompts_are_no_growth():
    other = replace(part(), samples=(*part().samples[:3], Sample("3", ({"role": "user", "content": "x"},), "1")))
    assert not has_grown(prompts_key(([other], [])), ([part(repeats=4)], []))


def test_what_is_missing_is_no_growth():
    assert not has_grown({}, ([part()], [part()]))
    assert not has_grown(prompts_key(([part()], [])), ([part()], [part()]))


def test_another_task_and_other_models_are_named_without_hashes():
    """The default name is that of the Thinking model, so a second task is the usual next step."""
    before = prompts_key(([part()], [part("c")]))
    plain = small_config().model_dump(mode="json")
    stored = StoredStudy("one", plain, {"tasks": before, "models.instruct": "ab", "models.thinking": "cd"}, "")
    slices = ([part("b")], [part("d")])
    now = {"tasks": prompts_key(slices), "models.instruct": "ab", "models.thinking": "cd", "models.prompt": "x"}
    other = small_config(tasks=[{"path": "data/good.jsonl"}])
    with pytest.raises(StudyError) as caught:
        check_identity(stored, now, slices=slices, config=other)
    assert str(caught.value) == (
        "study 'one' has another task file (arithmetic then, good.jsonl now); start this one with --study good"
    )
    models = small_config(models__instruct="x/Some-Instruct", models__thinking="x/Some-Thinking")
    with pytest.raises(StudyError) as caught:
        check_identity(stored, {**stored.identity, "models.thinking": "zz", "seed": 1}, slices=slices, config=models)
    assert str(caught.value) == (
        "study 'one' has other models (instruct and thinking then, Some-Instruct and Some-Thinking now); "
        "also changed: seed: none then, 1 now; start this one with --study Some-Thinking"
    )
    with pytest.raises(StudyError, match=r"made with another config \(models\.thinking: other weights than then\)"):
        check_identity(stored, {**stored.identity, "models.thinking": "zz"}, slices=slices, config=small_config())


def test_other_prompts_are_named_by_their_sizes():
    before = prompts_key(([part(), part("b", 3, 1)], [part("c")]))
    stored = StoredStudy("one", {}, {"tasks": before}, "")
    slices = ([part(), part("b", 2, 1)], [part("c")])
    with pytest.raises(StudyError, match=re.escape("(tasks: 4x2 + 3x1 to search, 4x2 to confirm then, ")) as caught:
        check_identity(stored, {"tasks": prompts_key(slices)}, slices=slices)
    assert "4x2 + 2x1 to search" in str(caught.value)
    other = ([part("x"), part("b", 3, 1)], [part("c")])
    with pytest.raises(StudyError, match=r"tasks: other prompts, 4x2 \+ 3x1 to search"):
        check_identity(stored, {"tasks": prompts_key(other)}, slices=other)


def test_what_changed_is_said_by_its_key():
    key = {"search": {"prompts": [[16, 1]], "digest": "a"}, "confirm": {"prompts": [[32, 1]], "digest": "b"}}
    stored = StoredStudy("one", small_config().model_dump(mode="json"), {"tasks": key}, "")
    assert growth_sentence(stored, small_config(), key) is None
    config = small_config(search__trials=9, engine__threads=2, search__spaces=["uniform"])
    said = growth_sentence(stored, config, key)
    assert said == (
        "this study goes on with engine.threads 2 (was 1), search.spaces ['uniform'] (was ['uniform', 'module', "
        "'both']), search.trials 9 (was 6)"
    )
    more = {**key, "search": {"prompts": [[16, 2]], "digest": "c"}}
    grown = growth_sentence(stored, small_config(tasks=[{"name": "arithmetic", "limit": 16, "repeats": 2}]), more)
    assert grown == (
        "this study goes on with prompts x repeats 16x2 to search, 32x1 to confirm (was 16x1 to search, 32x1 to "
        "confirm), tasks[0].repeats 2 (was 1)"
    )


@pytest.mark.parametrize(
    "task", [{"name": "arithmetic", "limit": 16, "repeats": 2}, {"name": "arithmetic", "limit": 24}]
)
def test_a_study_grows_in_repeats_and_prompts(tmp_path, task):
    """What it has measured counts: no response is generated again, and its schedules may be measured further."""
    storage = copy_finished(storage_in(tmp_path))
    events = []
    grown = search(
        small_config(tasks=[task], search__trials=10, search__min_gain=0.0),
        name=NAME,
        storage=storage,
        engine=FakeEngine(),
        on_event=events.append,
    )
    before, after = database(finished_storage()), database(storage)
    assert after["responses"][: len(before["responses"])] == before["responses"]
    assert len(after["responses"]) > len(before["responses"]) and grown.is_done and grown.verdict is not None
    assert after["trials"][: len(before["trials"])] == before["trials"]
    said = [event.text for event in events if isinstance(event, Noted) and event.text.startswith("this study goes on")]
    assert len(said) == 1 and "tasks[0]." in said[0] and "search.trials 10 (was 6)" in said[0]
    assert max(entry.measured.num_responses for entry in grown.trials) > 16


def test_a_study_does_not_shrink(tmp_path):
    storage = copy_finished(storage_in(tmp_path))
    before = database(storage)
    with pytest.raises(StudyError, match="another config") as caught:
        search(small_config(tasks=[{"name": "arithmetic", "limit": 8}]), name=NAME, storage=storage)
    assert "tasks: 16x1 to search" in str(caught.value) and database(storage) == before
    finished()


NEW = {
    "sampling.frequency_penalty": 0.0, "sampling.repetition_penalty": 1.0, "sampling.end_ids": [2],
    "models.prompt": "abc", "models.clock": "2026-01-01T00:00:00", "engine.rope": "long",
}  # fmt: skip


def test_a_study_of_an_earlier_release_goes_on_without_the_new_keys():
    check_identity(StoredStudy("old", {}, IDENTITY, ""), IDENTITY | NEW, slices=([], []))
    with pytest.raises(StudyError, match=r"sampling\.repetition_penalty: 1\.0 then, 1\.1 now"):
        check_identity(
            StoredStudy("old", {}, IDENTITY, ""),
            IDENTITY | NEW | {"sampling.repetition_penalty": 1.1},
            slices=([], []),
        )


@pytest.mark.parametrize("key", NEW)
def test_a_new_key_may_not_change_once_it_is_stored(key):
    with pytest.raises(StudyError, match=key.replace(".", r"\.")):
        check_identity(StoredStudy("one", {}, IDENTITY | NEW, ""), IDENTITY | NEW | {key: "other"}, slices=([], []))


def test_other_prompts_are_named_only_if_nothing_else_says_why():
    stored = StoredStudy("one", {}, IDENTITY | NEW, "")
    with pytest.raises(StudyError) as caught:
        check_identity(stored, IDENTITY | NEW | {"models.prompt": "x", "seed": 1}, slices=([], []))
    assert "seed" in str(caught.value) and "models.prompt" not in str(caught.value)


def test_an_earlier_study_drew_without_the_new_penalties():
    sampling = parse_config(StoredStudy("old", {"sampling": {"top_k": 5}}, IDENTITY, "").settings).sampling
    assert (sampling.top_k, sampling.frequency_penalty, sampling.repetition_penalty) == (5, 0.0, 1.0)
    now = StoredStudy("new", parse_config({}).model_dump(mode="json"), IDENTITY, "")
    assert parse_config(now.settings) == parse_config({})


def test_the_moment_of_a_study_is_the_stored_one_or_that_of_its_creation():
    stored = StoredStudy("one", {}, IDENTITY | NEW, "2026-02-03 04:05:06+00:00")
    assert moment_of(stored) == datetime(2026, 1, 1)
    created = moment_of(replace(stored, identity=IDENTITY))
    assert created.astimezone(UTC).isoformat() == "2026-02-03T04:05:06+00:00" and created.tzinfo is None


def test_a_default_that_is_resolved_to_the_stored_value_is_no_change():
    config = small_config().model_dump(mode="json")
    before = {**config, "models": {**config["models"], "think_end": "</think>"}}
    before["sampling"] = {**config["sampling"], "stop": [], "presence_penalty": 0.0}
    key = {"search": {"prompts": [[16, 1]], "digest": "a"}, "confirm": {"prompts": [[32, 1]], "digest": "b"}}
    assert growth_sentence(StoredStudy("one", before, {"tasks": key}, ""), small_config(), key) is None
