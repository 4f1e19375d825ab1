"""Configs, --set, schedules and curves drawn at random and out of valid ones: read right, or refused in one line.

How many examples, and how to run more: see fuzz.py.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzz import PIECES, changed, damaged, examples, numbers, plain, refused_or, texts
from hypothesis import given
from hypothesis import strategies as st

from autolambda.config import Config, parse_config
from autolambda.config_file import load_config
from autolambda.errors import ConfigError, InputError, ScheduleError
from autolambda.schedule import Location, Schedule, read_schedule
from autolambda.statistics.curve import read_curve
from autolambda.statistics.stages import detect_stages

WHOLE: dict[str, Any] = {
    "models": {
        "instruct": "a/b", "thinking": "c/d", "base": "e/f", "chat_template": "thinking", "think_end": "</think>",
        "chat_template_kwargs": {"enable_thinking": "x", "more": [1, {"deep": None}]}, "tokenizer": "instruct",
    },
    "engine": {"name": "transformers", "device": "cpu", "dtype": "float32", "batch_size": 8, "threads": 1},
    "tasks": [
        {"path": "a.jsonl", "limit": 5, "repeats": 2, "weight": 1.5, "grader": "math", "question": "q", "answer": "a"},
        {"name": "gsm8k", "split": "train", "confirm_on": {"name": "math500"}, "guard": {"max_drop": 0.1}},
        {"path": "b.csv", "choices": "c", "prompt": "{question} {choices}", "confirm_on": "c.csv", "label": "third"},
        {"lm_eval": "arc", "include_path": "x", "num_fewshot": 2, "on_grader_error": "unparsed"},
    ],
    "sampling": {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.1, "stop": ["a", "b"], "max_tokens": 9},
    "search": {
        "spaces": ["uniform", "both"], "trials": 9, "ladder": 5, "knots": 3, "sampler": "tpe", "rungs": [4, 8],
        "max_tokens_generated": 10**6, "min_gain": 0.01, "baselines": ["ties"], "seed": 7,
    },
    "confirm": {"limit": 9, "repeats": 2, "finalists": 2, "margin": 0.02, "share": 0.4},
    "budget": 40.5,
}  # fmt: skip
VLLM = {"engine": {"name": "vllm", "merge": "direct", "parents": "host", "max_num_seqs": 8, "x": {"y": [1]}}}
TEXT = yaml.safe_dump(WHOLE, sort_keys=False).encode()
SCHEDULES: list[dict[str, Any]] = [
    {"lambda": 0.6},
    {"lambda": {"knots": [0.1, 0.5, 1]}, "other": 0.3},
    {"attention": {"bands": [0, 1]}, "ffn": 0.5, "other": 1},
]


def dumped(value: object) -> bytes:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@examples(60)
@given(data=st.data())
def test_a_config_file_means_what_it_says_or_is_refused(folder: Path, data: st.DataObject) -> None:
    path = folder / "config.yaml"
    whole = data.draw(st.just(WHOLE) | changed(data.draw(st.sampled_from([WHOLE, WHOLE | VLLM]))))
    is_damaged = data.draw(st.booleans())
    path.write_bytes(data.draw(damaged(dumped(whole))) if is_damaged else dumped(whole))
    found = refused_or(load_config, path, overrides={})
    if isinstance(found, InputError):
        assert whole != WHOLE or is_damaged
        assert isinstance(found, ConfigError)
        return
    assert parse_config(json.loads(json.dumps(found.model_dump(mode="json"), allow_nan=False))) == found
    if not is_damaged:
        assert found == load_config(None, overrides=whole)
        for key in {"trials", "knots"} & whole.get("search", {}).keys():
            assert getattr(found.search, key) == float(whole["search"][key])


@examples(60)
@given(content=st.one_of(st.binary(max_size=60), st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)))
def test_any_bytes_as_a_config_or_schedule(folder: Path, content: bytes) -> None:
    path = folder / "any.yaml"
    path.write_bytes(content)
    assert isinstance(refused_or(load_config, path, overrides={}), Config | ConfigError)
    assert isinstance(refused_or(read_schedule, path), Schedule | ScheduleError)


KEYS = st.sampled_from(
    ["budget", "search.trials", "tasks.0.limit", "tasks.9.limit", "tasks", "models", "models.base", "search", "a.b.c",
     "engine.name", "tasks.0", "tasks.-1", "sampling.stop.0", "models.chat_template_kwargs.x", ".", "", "search..", "="]
) | texts  # fmt: skip


@examples(60)
@given(
    settings=st.lists(st.tuples(KEYS, plain.map(lambda v: dumped(v).decode("utf-8", "replace")) | texts), max_size=3)
)
def test_any_setting(folder: Path, settings: list[tuple[str, str]]) -> None:
    path = folder / "set.yaml"
    path.write_bytes(TEXT)
    found = refused_or(load_config, path, overrides={}, settings=[f"{key}={value}" for key, value in settings])
    assert isinstance(found, Config | ConfigError)


@examples(60)
@given(data=st.data())
def test_a_changed_schedule_file(folder: Path, data: st.DataObject) -> None:
    path = folder / "schedule.yaml"
    content = dumped(data.draw(changed(data.draw(st.sampled_from(SCHEDULES)), other=numbers | plain)))
    path.write_bytes(data.draw(st.just(content) | damaged(content)))
    found = refused_or(read_schedule, path)
    assert isinstance(found, ScheduleError) or -1 <= found.at(Location(3, "ffn"), num_layers=4).lam <= 2


@examples(60)
@given(data=st.data())
def test_a_changed_curve(folder: Path, data: st.DataObject) -> None:
    table = [["lambda", "think_ratio", "num_responses"], ["0", "0.01", "64"], ["0.5", "0.4", ""], ["1", "0.97", "9"]]
    table = data.draw(st.just(table) | changed(table, other=(texts | numbers.map(str)) | st.lists(texts, max_size=4)))
    path = folder / "curve.csv"
    content = _csv(table)
    path.write_bytes(data.draw(st.just(content) | damaged(content)))
    found = refused_or(read_curve, path)
    if not isinstance(found, InputError):
        assert all(0 <= point.lam <= 1 and 0 <= point.think_ratio <= 1 for point in found)
        stages = refused_or(detect_stages, found)
        for boundary in [] if isinstance(stages, InputError) else filter(None, (stages.emergence, stages.saturation)):
            assert 0 <= boundary.low <= boundary.lam <= boundary.high <= 1


def _csv(table: Any) -> bytes:
    file = io.StringIO()
    rows = table if isinstance(table, list) else [[table]]
    csv.writer(file, escapechar="\\").writerows(row if isinstance(row, list) else [row] for row in rows)
    return file.getvalue().encode("utf-8", "surrogatepass")
