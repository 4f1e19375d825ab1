"""The cache of rows, the masks, and logits that are bit for bit the same whatever the batch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from autolambda.engines.transformers.cache import RowCache, attention_masks, round_up

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("value", "rounded"), [(1, 32), (31, 32), (32, 32), (33, 64), (64, 64)])
def test_round_up(value, rounded):
    assert round_up(value, 32) == rounded


def states(rows: int, tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, rows, 2, tokens, 4, generator=generator)
    return keys, values


def test_each_row_keeps_its_tokens_in_its_own_slots():
    cache = RowCache(3)
    prompt_keys, prompt_values = states(3, 5, 0)
    cache.select(torch.arange(5).expand(3, -1), width=32)
    keys, values = cache.update(prompt_keys, prompt_values, 0)
    assert keys.shape == values.shape == (3, 2, 32, 4)
    assert torch.equal(keys[:, :, :5], prompt_keys)
    next_keys, next_values = states(3, 1, 1)
    slots = torch.tensor([[5], [2], [3]])  # rows 1 and 2 were padded: their next token overwrites the padding
    cache.select(slots, width=32)
    keys, values = cache.update(next_keys, next_values, 0)
    for row, slot in enumerate([5, 2, 3]):
        assert torch.equal(keys[row, :, slot], next_keys[row, :, 0])
        assert torch.equal(values[row, :, slot], next_values[row, :, 0])
        assert torch.equal(keys[row, :, :2], prompt_keys[row, :, :2])


def test_growing_keeps_what_is_there_and_dropping_keeps_the_order():
    cache = RowCache(4)
    keys, values = states(4, 20, 0)
    for layer in range(2):
        cache.select(torch.arange(20).expand(4, -1), width=32)
        cache.update(keys, values, layer)
    cache.keep(torch.tensor([3, 1]))
    more_keys, more_values = states(2, 1, 1)
    cache.select(torch.tensor([[40], [33]]), width=64)
    for layer in range(2):
        all_keys, all_values = cache.update(more_keys, more_values, layer)
        assert all_keys.shape[:3] == (2, 2, 64)
        assert torch.equal(all_keys[:, :, :20], keys[[3, 1]])
        assert torch.equal(all_values[0, :, 40], more_values[0, :, 0])
        assert torch.equal(all_values[1, :, 33], more_values[1, :, 0])
    assert cache.keys[0].shape[2] % 32 == 0


def seen(mask: Tensor) -> list[list[list[int]]]:
    """By row and query: the slots that are seen."""
    assert set(mask.unique().tolist()) <= {0.0, -torch.inf}
    return [[(query == 0).nonzero().squeeze(-1).tolist() for query in row] for row in mask[:, 0]]


POSITIONS = torch.tensor([[0, 1, 2], [4, 5, 6]])
FULL = [[[0], [0, 1], [0, 1, 2]], [list(range(5)), list(range(6)), list(range(7))]]
NEAR = [[[0], [0, 1], [1, 2]], [[3, 4], [4, 5], [5, 6]]]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, FULL),
        ({"sliding_window": None}, FULL),
        ({"sliding_window": 2}, NEAR),
        ({"sliding_window": None, "layer_types": ["full_attention"]}, {"full": FULL, "sliding": FULL}),
        ({"sliding_window": 2, "layer_types": ["sliding_attention"]}, {"full": FULL, "sliding": NEAR}),
    ],
)
def test_masks_show_the_slots_up_to_the_own_one(config, expected):
    masks = attention_masks(SimpleNamespace(**config), POSITIONS, width=32, dtype=torch.bfloat16)
    if isinstance(masks, dict):
        assert {kind.removesuffix("_attention"): seen(mask) for kind, mask in masks.items()} == expected
        masks = masks["full_attention"]
    else:
        assert seen(masks) == expected
    assert masks.shape == (2, 1, 3, 32)
    assert masks.dtype == torch.bfloat16
