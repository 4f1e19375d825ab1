"""The bundled pair and its data: what they are, and that the pair behaves as a pair should, loosely."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from functools import cache
from types import ModuleType

import pytest
import torch
from paths import ROOT
from safetensors.torch import load_file
from small_search import small_config

from autolambda.bundled import FOLDER
from autolambda.config import parse_config
from autolambda.config_file import bundled_defaults
from autolambda.driver.job import open_job
from autolambda.driver.models import open_models
from autolambda.driver.search import evaluate
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured

STUDY = ROOT / "studies" / "bundled_pair"
SPLITS = {"search": 512, "confirm": 1024, "test": 2048}
MODELS = ("base", "instruct", "thinking")


@cache
def recipe(name: str) -> ModuleType:
    """A module of the training recipe, under the name by which they import each other."""
    spec = importlib.util.spec_from_file_location(name, STUDY / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text().splitlines()]


def test_the_splits_are_disjoint_and_never_trained_on() -> None:
    questions = [row["question"] for split in SPLITS for row in rows(split)]
    assert len(set(questions)) == len(questions) == sum(SPLITS.values())
    assert all(recipe("arithmetic").is_held_out(question) for question in questions)
    rng = random.Random(5)
    drawn = [recipe("arithmetic").question(rng, 4) for _ in range(400)]
    assert 0.1 < sum(map(recipe("arithmetic").is_held_out, drawn)) / 400 < 0.3  # most prompts are trained on


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_is_right_and_difficulties_have_equal_shares(split: str) -> None:
    counts: dict[int, int] = {}
    for i, row in enumerate(rows(split)):
        value = int(row["question"][0])
        for operator, digit in zip(row["question"][1:-1:2], row["question"][2:-1:2], strict=True):
            value = {"+": value + int(digit), "-": value - int(digit), "*": value * int(digit)}[operator] % 10
        assert row["answer"] == str(value) and row["id"] == f"{split}-{i:04d}" and row["question"].endswith("=")
        assert sum(character in "+-*" for character in row["question"]) == row["difficulty"]
        counts[int(row["difficulty"])] = counts.get(int(row["difficulty"]), 0) + 1
    assert set(counts) == {2, 3, 4, 5, 6} and max(counts.values()) - min(counts.values()) <= 1
    assert len(rows(split)) == SPLITS[split]


@pytest.mark.parametrize("parent", ["instruct", "thinking"])
def test_a_prompt_has_the_tokens_that_training_saw(parent: str) -> None:
    for imported in ("arithmetic", "training"):
        recipe(imported)
    train = recipe("train")
    tokenizers = {name: train.build_tokenizer(template) for name, template in train.TEMPLATES.items()}
    prefixes = {name: train.template_parts(tokenizer) for name, tokenizer in tokenizers.items()}
    chat = open_models(small_config()).own_chats[parent]
    for sample in open_job(small_config()).search[0].samples:
        question = sample.messages[0]["content"]
        before, after = prefixes[parent]
        trained = before + tokenizers["thinking"](question).input_ids + after
        assert chat.tokenizer(chat.render(sample), add_special_tokens=False).input_ids == trained


def test_the_thinking_template_opens_the_thought_and_the_other_does_not() -> None:
    models, sample = open_models(small_config()), open_job(small_config()).search[0].samples[0]
    assert models.own_chats["thinking"].render(sample).endswith("<|im_start|>assistant\n<think>\n")
    assert models.own_chats["instruct"].render(sample).endswith("<|im_start|>assistant\n")


def test_the_models_are_small_and_stored_in_bfloat16() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 12_000_000
    for name in MODELS:
        tensors = load_file(FOLDER / name / "model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
        assert 500_000 <= sum(tensor.numel() for tensor in tensors.values()) <= 1_500_000
        config = json.loads((FOLDER / name / "config.json").read_text())
        assert config["architectures"] == ["Qwen3ForCausalLM"] and config["head_dim"] in (32, 64)


def test_the_pair_differs_in_its_template_only() -> None:
    assert open_models(small_config()).pair.warnings == ("the tokenizers differ in their chat template",)


def test_the_default_config_is_valid() -> None:
    config = parse_config(bundled_defaults(with_task=True))
    job = open_job(config)
    assert config.models.bundled and [task.name for task in config.tasks] == ["arithmetic"]
    assert len(job.search[0].samples) == SPLITS["search"] and len(job.confirm[0].samples) == SPLITS["confirm"]
    assert not {s.id for s in job.search[0].samples} & {s.id for s in job.confirm[0].samples}


@cache
def measured(lam: float) -> Measured:
    changes = {
        "sampling__max_tokens": 192,
        "tasks": [{"name": "arithmetic", "limit": 60, "repeats": 1}],
        "engine__batch_size": 60,
    }
    return evaluate(small_config(**changes), Schedule.uniform(lam))


def test_the_three_stages_are_visible() -> None:
    instruct, thinking = measured(0.0), measured(1.0)
    assert instruct.think_ratio.value < 0.05 and thinking.think_ratio.value > 0.9
    assert thinking.mean_tokens.value > 10 * instruct.mean_tokens.value
    assert 0.05 < measured(0.65).think_ratio.value < 0.95 or 0.05 < measured(0.6).think_ratio.value < 0.95


def test_a_merge_is_far_more_accurate_than_instruct_and_shorter_than_thinking() -> None:
    best = max((measured(lam) for lam in (0.65, 0.7)), key=lambda m: m.accuracy.value)
    assert best.accuracy.value > measured(0.0).accuracy.value + 0.2
    assert best.mean_tokens.value < measured(1.0).mean_tokens.value
