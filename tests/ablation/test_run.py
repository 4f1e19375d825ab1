"""Ablations on the bundled pair: what each row measures, resuming, growing, and what they leave alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from checkpoints import edit_json, tiny_checkpoint
from engine import FakeEngine
from small_ablation import NAME, ROWS, ablated, ablated_storage, ablation_config, results
from small_search import SETTINGS, copy_finished, database, finished, small_config, storage_in

from autolambda.ablation.run import _size, ablate
from autolambda.bundled import FOLDER
from autolambda.config import AblationName
from autolambda.config_file import load_config
from autolambda.driver.events import EvaluationEnded, Event, Generated, Noted
from autolambda.driver.search import search
from autolambda.errors import ConfigError, StudyError
from autolambda.merging.method import Method
from autolambda.report.json_csv import report_json
from autolambda.responses import Graded
from autolambda.schedule import Schedule
from autolambda.study.database import driver_lock
from autolambda.study.store import Store


def notes(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Noted)]


def responses(storage: str = "") -> dict[str, list[Graded]]:
    """The responses of each row by its key."""
    with closing(Store(storage or ablated_storage())) as store:
        return {each.key: store.graded(each) for each in store.evaluations(NAME, kind="ablation")}


def said(**parts: object) -> list[tuple[str, str]]:
    """The texts of the one row whose key holds these parts, by prompt."""
    found = [
        graded
        for key, graded in responses().items()
        if {name: value for name, value in json.loads(key).items() if name != "weights"} == parts
    ]
    assert len(found) == 1
    return [(each.sample_id, each.response.text) for each in found[0]]


def test_every_study_has_its_rows() -> None:
    assert {name: list(found) for name, found in results().items()} == {
        "uniform": ["Instruct as is", "Thinking as is", "lambda 0", "lambda 0.5", "lambda 1"],
        "layers": [
            "lambda 0",
            "lambda 0.5",
            *(f"only layers {span}" for span in ("0 to 1", "2 to 3", "4 to 5", "0 to 3", "2 to 5")),
        ],
        "modules": ["lambda 0", "lambda 0.5", "without attention", "without ffn"],
        "decoding": ["lambda 0.5", "lambda 0.5, T 0.3, top-p 0.7"],
        "backbones": ["lambda 0", "lambda 1", "base, lambda 0", "base, lambda 1"],
        "methods": ["lambda 0.5", "task arithmetic", "TIES", "SLERP, lambda 0.5"],
    }
    assert all(each.measured.num_responses == 16 for found in results().values() for each in found.values())


def test_rows_are_what_they_are_called() -> None:
    ablated()
    uniform = {lam: said(study="uniform", schedule={"lambda": lam}) for lam in (0.0, 0.5, 1.0)}
    assert said(study="uniform", schedule={"lambda": 1.0}, parent="thinking") == uniform[1.0]  # one template
    assert said(study="uniform", schedule={"lambda": 0.0}, parent="instruct") != uniform[0.0]  # its own template
    assert said(study="backbones", schedule={"lambda": 1.0}, backbone="base") == uniform[1.0]
    assert said(study="backbones", schedule={"lambda": 0.0}, backbone="base") != uniform[0.0]
    for method in ("task_arithmetic", "ties"):  # 16 answers of SLERP may well be those of the interpolation
        assert said(study="methods", schedule={"lambda": 0.5}, method=method) != uniform[0.5]


def test_the_confirm_slice_answers_and_differences_are_paired() -> None:
    ablated()
    with closing(Store(ablated_storage())) as store:
        assert {row[3] for row in store.outcomes(NAME)} <= {f"confirm-{number:04d}" for number in range(1024)}
    for found in results().values():
        for result in found.values():
            if result.change is not None:
                reference = results()["uniform"][result.reference or ""]
                gain = result.measured.accuracy.value - reference.measured.accuracy.value
                assert result.change.value == pytest.approx(gain) and result.change.num_prompts == 16
    assert results()["uniform"]["lambda 1"].change is None and results()["layers"]["lambda 0"].is_reference


def test_decoding_rows_are_drawn_with_their_own_sampling(tmp_path: Path) -> None:
    config = ablation_config()
    engine = FakeEngine()
    ablate(config, name=NAME, storage=storage_in(tmp_path), only=["decoding"], engine=engine)
    assert engine.num_closed == 0  # it is not ours to close
    assert [(each.temperature, each.top_p) for each in engine.samplings] == [(1.0, 1.0), (0.3, 0.7)]
    assert engine.merges == [Method.linear(Schedule.uniform(0.5))] * 2
    assert {each.max_tokens for each in engine.samplings} == {64}


def test_a_finished_ablation_is_told_at_once_and_generates_nothing() -> None:
    ablated()
    before, events = database(ablated_storage()), list[Event]()
    again = ablate(ablation_config(), name=NAME, storage=ablated_storage(), on_event=events.append)
    assert again == ablated() and database(ablated_storage()) == before
    assert not [event for event in events if isinstance(event, EvaluationEnded | Generated)]
    assert not any("engine" in note or "ablations:" in note for note in notes(events))


def test_an_interrupted_ablation_goes_on_where_it_was(tmp_path: Path) -> None:
    ablated()
    seen: list[Event] = []

    def interrupt(event: Event) -> None:
        seen.append(event)
        if sum(isinstance(each, EvaluationEnded) for each in seen) == 4 and isinstance(event, Generated):
            raise KeyboardInterrupt

    only: list[AblationName] = ["uniform", "decoding"]
    with pytest.raises(KeyboardInterrupt):
        ablate(ablation_config(), name=NAME, storage=storage_in(tmp_path), only=only, on_event=interrupt)
    events: list[Event] = []
    again = ablate(ablation_config(), name=NAME, storage=storage_in(tmp_path), only=only, on_event=events.append)
    assert again == tuple(each for each in ablated() if each.name in only)
    assert responses(storage_in(tmp_path)).items() <= responses().items()
    assert "ablations: 1 of 6 rows to measure, 16 responses each" in notes(events)


def test_more_responses_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    config = ablation_config(ablation=ROWS | {"lambdas": [1.0]})
    ablate(config, name=NAME, storage=storage, only=["uniform"], engine=FakeEngine())
    before = responses(storage)
    grown = ablation_config(ablation=ROWS | {"lambdas": [1.0], "responses": 24})
    (found,) = ablate(grown, name=NAME, storage=storage, only=["uniform"], engine=FakeEngine())
    assert {result.measured.num_responses for result in found.results} == {24}
    assert all(after[:16] == before[key] for key, after in responses(storage).items())


def test_fewer_responses_are_enough_for_a_row_that_was_begun_with_more(tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Generated):
            raise KeyboardInterrupt

    rows, storage = ROWS | {"lambdas": [1.0]}, storage_in(tmp_path)
    begun = ablation_config(ablation=rows, engine__batch_size=8)
    with pytest.raises(KeyboardInterrupt):
        ablate(begun, name=NAME, storage=storage, only=["uniform"], engine=FakeEngine(), on_event=interrupt)
    fewer = ablation_config(ablation=rows | {"responses": 8}, engine__batch_size=8)
    (found,) = ablate(fewer, name=NAME, storage=storage, only=["uniform"], engine=FakeEngine())
    assert {result.label: result.measured.num_responses for result in found.results} == {
        "Instruct as is": 8,
        "Thinking as is": 8,
        "lambda 1": 8,
    }


def test_a_search_does_not_see_the_ablations_of_its_study(tmp_path: Path) -> None:
    storage = copy_finished(storage_in(tmp_path))
    ablate(small_config(ablation=ROWS), name=NAME, storage=storage, only=["modules"])
    report = search(small_config(), name=NAME, storage=storage)
    ours, theirs = (json.loads(report_json(each)) for each in (report, finished()))
    assert ours.pop("tokens_generated") > theirs.pop("tokens_generated") and ours == theirs


def test_one_process_at_a_time_and_one_identity(tmp_path: Path) -> None:
    storage = storage_in(tmp_path)
    with driver_lock(storage, NAME), pytest.raises(StudyError, match="is being run by process"):
        ablate(ablation_config(), name=NAME, storage=storage)
    copied = copy_finished(storage_in(tmp_path, "other"))
    seed = SETTINGS["search.seed"]
    with pytest.raises(StudyError, match=rf"made with another config \(search\.seed: {seed} then, 1 now\)"):
        ablate(ablation_config(search__seed=1), name=NAME, storage=copied)


def test_a_backbone_with_other_rope_settings_is_measured_with_a_warning(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "base", tmp_path / "old-base")
    edit_json(tmp_path / "old-base" / "config.json", rope_parameters={"rope_theta": 5000.0, "rope_type": "default"})
    other = tiny_checkpoint(tmp_path / "other")
    rows = ROWS | {"backbones": [str(other), str(tmp_path / "old-base")]}
    events: list[Event] = []
    (found,) = ablate(
        ablation_config(ablation=rows),
        name=NAME,
        storage=storage_in(tmp_path),
        only=["backbones"],
        on_event=events.append,
    )
    assert [result.label for result in found.results][2:] == ["old-base, lambda 0", "old-base, lambda 1"]
    assert (
        "backbone old-base: config 'rope settings: rope_theta': instruct 5000.0, thinking 10000.0; the merge uses "
        "thinking's, so near lambda 0 it does not behave like the other model"
    ) in notes(events)
    (left,) = [note for note in notes(events) if note.startswith("backbone other is left out: ")]
    assert "config 'hidden_size'" in left and "\n" not in left


def test_without_a_base_there_is_one_method_and_no_backbone(tmp_path: Path) -> None:
    folders = {f"models__{name}": str(FOLDER / name) for name in ("instruct", "thinking")}
    config = ablation_config(**folders, tasks=[{"name": "arithmetic", "limit": 16}])
    events: list[Event] = []
    found = ablate(
        config, name=NAME, storage=storage_in(tmp_path), only=["backbones", "methods"], on_event=events.append
    )
    assert list(results(found)) == ["methods"] and list(results(found)["methods"]) == [
        "lambda 0.5",
        "SLERP, lambda 0.5",
    ]
    assert sum("models.base" in note for note in notes(events)) == 2
    with pytest.raises(ConfigError, match=r"nothing to measure for backbones: give models\.base"):
        ablate(config, name=NAME, storage=storage_in(tmp_path), only=["backbones"])


def test_a_base_that_does_not_fit_costs_its_own_rows_only(tmp_path: Path) -> None:
    other = tiny_checkpoint(tmp_path / "other")
    folders = {f"models__{name}": str(FOLDER / name) for name in ("instruct", "thinking")}
    config = ablation_config(**folders, models__base=str(other), tasks=[{"name": "arithmetic", "limit": 16}])
    events: list[Event] = []
    (found,) = ablate(config, name=NAME, storage=storage_in(tmp_path), only=["methods"], on_event=events.append)
    assert [result.label for result in found.results] == ["lambda 0.5", "SLERP, lambda 0.5"]
    left = [note for note in notes(events) if "is left out" in note]
    assert [note.partition(" is left out: ")[0] for note in left] == ["task arithmetic", "TIES"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [({}, 70), ({"confirm.repeats": 2}, 80), ({"ablation.responses": 9}, 9), ({"ablation.responses": 10**6}, 320)],
)
def test_a_row_has_a_response_a_prompt_or_the_benchmarks_repeats(keys: dict[str, int], expected: int) -> None:
    """Of 30 prompts and 10 of a benchmark with 4 repeats, though the confirmation has up to 8 responses to each."""
    tasks = [{"path": "a.jsonl"}, {"name": "gpqa_diamond", "confirm_on": "gpqa_diamond"}]
    config = load_config({"tasks": tasks}, overrides=keys)
    parts = [SimpleNamespace(samples=range(num), num_responses=8 * num) for num in (30, 10)]
    assert _size(SimpleNamespace(config=config, confirm=parts)) == expected  # type: ignore[arg-type]
