"""Prompts are prefilled in groups of like length."""

from __future__ import annotations

import random

import pytest

from autolambda.engines.base import Prompt, Sampling
from autolambda.engines.chat import load_tokenizer
from autolambda.engines.transformers import batch
from autolambda.engines.transformers.batch import Batch, alike
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.merging.pair import open_pair


def test_groups_hold_every_row_once_and_the_longest_first():
    lengths = [random.Random(0).randint(1, 300) for _ in range(96)]
    groups = alike(lengths)
    assert sorted(row for group in groups for row in group) == list(range(96))
    assert [lengths[row] for group in groups for row in group] == sorted(lengths, reverse=True)
    assert len(groups) > 2 and all(len(group) % 16 == 0 for group in groups)
    assert all(len(group) * lengths[group[0]] >= batch.PREFILL for group in groups[:-1])


def test_less_is_padded_than_in_one_group():
    lengths = [20] * 48 + [200] * 16
    padded = sum(len(group) * lengths[group[0]] for group in alike(lengths))
    assert padded == sum(lengths) < 64 * 200


@pytest.mark.parametrize(("lengths", "expected"), [([0] * 16, []), ([0] * 16 + [100] * 16, [list(range(16, 32))])])
def test_rows_without_a_token_before_the_last_are_left_out(lengths, expected):
    assert alike(lengths) == expected


def test_short_prompts_are_read_together():
    assert alike([9] * 32) == [list(range(32))]


def test_a_batch_is_prefilled_in_its_groups(parents, monkeypatch):
    pair = open_pair(*map(str, parents))
    engine = TransformersEngine(pair, tokenizer=load_tokenizer(parents[1]), device="cpu")
    sampling = Sampling(0.0, 1.0, 0, 0.0, 0.0, (), 3)
    prompts = [Prompt("a" * length, 0) for length in [21] * 16 + [101] * 16]
    together = engine.generate(prompts, sampling)
    shapes, masks, forward, masks_of = [], [], Batch._forward, batch.attention_masks
    monkeypatch.setattr(
        Batch, "_forward", lambda self, ids, *a, **k: shapes.append(ids.shape) or forward(self, ids, *a, **k)
    )
    monkeypatch.setattr(batch, "attention_masks", lambda *a, **k: masks.append(masks_of(*a, **k)) or masks[-1])
    monkeypatch.setattr(batch, "PREFILL", 1)
    assert engine.generate(prompts, sampling) == together
    assert shapes[:3] == [(16, 100), (16, 20), (32, 1)]
    shapes_of_masks = [next(iter(each.values())).shape if isinstance(each, dict) else each.shape for each in masks[:3]]
    assert shapes_of_masks == [(1, 1, 100, 128), (1, 1, 20, 32), (32, 1, 1, 128)]  # one for all rows of a prefill
