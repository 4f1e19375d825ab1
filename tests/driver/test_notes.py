"""What a run tells its watcher in words: the plan, the rows that are wanted, the forecast, why the search is over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine import FakeEngine
from small_search import NAME, small_config, storage_in, texts

from autolambda.driver import notes
from autolambda.driver.cost import in_bytes
from autolambda.driver.events import Began, Event, Opened
from autolambda.driver.job import open_job
from autolambda.driver.models import open_models
from autolambda.driver.notes import stop_sentence
from autolambda.driver.search import search
from autolambda.engines.transformers import packed
from autolambda.optimizer.propose import Stop
from autolambda.optimizer.token_allowance import TokenAllowance
from autolambda.project.inspection import memory_lines

SETTINGS = small_config().search_settings
ALLOWANCE = TokenAllowance(200_000.0, 100.0, 1024, 1024)


@pytest.mark.parametrize(
    ("stop", "why"),
    [
        (Stop("tokens"), "too few of its 90,000 tokens are left for another merge"),
        (Stop("trials"), "6 merges are tried (search.trials)"),
        (Stop("spaces"), "every merge of search.spaces is tried"),
        (
            Stop("gain", 0.0005),
            "one more finalist should raise the accuracy of the answer by 0.05 points, less than 0.2 (search.min_gain)",
        ),
    ],
)
def test_the_end_of_a_search_is_told_with_what_comes_next(stop: Stop, why: str) -> None:
    assert stop_sentence(stop, SETTINGS, ALLOWANCE) == f"Search done: {why}. Now checking the best on new prompts."


def watched(folder: Path, **changes: object) -> list[Event]:
    events: list[Event] = []
    config = small_config(**changes)
    search(config, name=NAME, storage=storage_in(folder), engine=FakeEngine(), on_event=events.append)
    return events


def test_plan_and_forecast_come_once_and_again_on_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = watched(tmp_path)
    plan = "Plan: try at most 6 merges on 16 prompts, then check the best 3 on 32 new prompts."
    assert [text for text in texts(first) if text.startswith("Plan")] == [plan]
    [forecast] = [text for text in texts(first) if text.startswith("Forecast")]
    assert "tokens in all, of which" in forecast and "more at the present speed" in forecast
    assert "memory" not in forecast  # megabytes
    ended = [type(event).__name__ for event in first].index("EvaluationEnded")
    assert first.index(next(e for e in first if texts([e]) == [forecast])) > ended
    monkeypatch.setattr(notes, "LITTLE_BYTES", 0.0)
    again = watched(tmp_path, search__trials=7)
    assert f"{plan.replace('most 6', 'most 7')} 6 merges are done already." in texts(again)
    [forecast] = [text for text in texts(again) if text.startswith("Forecast")]
    assert "; memory: 2.76 MB of weights for the merge, 1.38 MB for each of the two models, and about " in forecast


def test_events_tell_the_stage_the_allowance_and_what_is_left_to_check(tmp_path: Path) -> None:
    first = watched(tmp_path)
    [opened] = [event for event in first if isinstance(event, Opened)]
    assert (opened.study, opened.budget, opened.num_trials, opened.earlier) == (NAME, 30.0, 6, ())
    began = [event for event in first if isinstance(event, Began)]
    stages = [event.stage for event in began]
    assert stages == sorted(stages, key=["first sweep", "search", "confirmation"].index)
    assert set(stages) == {"first sweep", "search", "confirmation"}
    assert began[0].allowance is None and all(event.allowance for event in began[2:])
    left = [event.num_left for event in began if event.title.startswith("confirm")]
    assert left == list(range(left[0], left[0] - len(left), -1)) and left[-1] >= 0
    [again] = [event for event in watched(tmp_path) if isinstance(event, Opened)]
    assert [each.title for each in again.earlier][:2] == ["trial 0", "trial 1"] and again.num_tokens > 0


def test_too_few_rows_are_told_before_the_search(tmp_path: Path) -> None:
    file = tmp_path / "ten.jsonl"
    file.write_text("".join(json.dumps({"question": f"{i}+1=", "answer": str(i + 1)}) + "\n" for i in range(10)))
    events = watched(tmp_path, tasks=[{"path": str(file), "repeats": 1}], search__trials=2)
    few = "Only 7 prompts were left to check with: add rows to ten.jsonl (an answer takes at least 20)."
    assert f"{few} At least 30 rows are wanted in all, better 200." in texts(events)


def test_the_memory_counts_the_further_models() -> None:
    models = open_models(small_config(), further=("base",))
    (line,) = memory_lines(models, None)
    assert "the merge and three models take" in line and in_bytes(4 * models.pair.num_bytes) in line
    (line,) = memory_lines(open_models(small_config()), None)
    assert "the merge and both parents take" in line and in_bytes(3 * models.pair.num_bytes) in line


def test_the_forecast_counts_the_further_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "LITTLE_BYTES", 0.0)
    job = open_job(small_config(), further=("base",))
    assert "for each of the three models" in notes._memory(job, 100.0)


def test_the_memory_counts_the_packed_weights_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "LITTLE_BYTES", 0.0)
    monkeypatch.setattr(packed, "SMALLEST", 1)
    job = open_job(small_config())
    pair = job.models.pair
    num_bytes = packed.packed_bytes(pair, dtype=torch.float32)
    assert num_bytes > pair.num_bytes
    assert f"{in_bytes(num_bytes)} of the merge's weights packed for the CPU" in notes._memory(job, 100.0)
    (line,) = memory_lines(job.models, job)
    total = in_bytes(4 * pair.num_bytes + num_bytes)  # the merge in float32, both parents in bfloat16
    assert f"take {total}, of which {in_bytes(num_bytes)} are packed for the CPU" in line
    on_vllm = replace(job, engine="vllm")
    assert "packed" not in notes._memory(on_vllm, 100.0) + "".join(memory_lines(job.models, on_vllm))
