"""The activations of a checkpoint's layers, and their mutual information."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from autolambda.bundled import FOLDER
from autolambda.engines.transformers.activations import NUM_POSITIONS, layer_activations, mutual_information
from autolambda.merging.checkpoint import open_checkpoint

TEXTS = [list(range(2, 40)), [3, 5, 7]]


def test_each_layer_passes_on_what_transformers_says() -> None:
    found = layer_activations(open_checkpoint(FOLDER / "instruct"), TEXTS)
    model = AutoModelForCausalLM.from_pretrained(FOLDER / "instruct", dtype="auto")
    with torch.inference_mode():
        states = model(torch.tensor([TEXTS[1]]), output_hidden_states=True).hidden_states[1:]
    assert found.shape == (len(states), NUM_POSITIONS + 3, states[0].shape[-1]) and found.dtype == torch.float32
    for layer, state in zip(found, states, strict=True):
        assert torch.equal(layer[NUM_POSITIONS:], state[0].float())


def test_a_model_has_more_in_common_with_itself_than_with_another() -> None:
    base, thinking = (layer_activations(open_checkpoint(FOLDER / name), TEXTS) for name in ("base", "thinking"))
    own, other = mutual_information(base, base), mutual_information(base, thinking)
    assert min(own) > max(other) > 0


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_the_information_of_normal_activations_is_the_textbooks(correlation: float) -> None:
    generator = torch.Generator().manual_seed(0)
    one, noise = (torch.randn(2, 4000, 64, generator=generator) for _ in range(2))
    other = correlation * one + math.sqrt(1 - correlation**2) * noise
    expected = -math.log(1 - correlation**2) / 2
    assert mutual_information(one, 3 * other + 1) == pytest.approx([expected, expected], abs=0.01)


def test_a_unit_that_never_changes_says_nothing() -> None:
    still = torch.ones(1, 10, 4)
    assert mutual_information(still, torch.randn(1, 10, 4)) == [0.0]
