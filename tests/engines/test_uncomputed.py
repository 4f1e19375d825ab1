"""Which tensors may have no place in an engine, and what is said of them."""

from __future__ import annotations

import pytest

from autolambda.engines.uncomputed import check_unplaced, in_words
from autolambda.errors import EngineError

MTP = [
    "model.layers.4.eh_proj.weight",
    "mtp.layers.0.mlp.up_proj.weight",
    "model.mtp_block.0.norm.weight",
    "mtp.fc.weight",
]


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.3.mlp.gate.e_score_correction_bias",
        "model.layers.3.mtp_gate",
        "vision_tower.encoder.layers.9.mlp.fc1.weight",
        "visual.layers.9.weight",
        "lm_head.weight",
    ],
)
def test_whatever_else_has_no_place_is_an_error(name):
    with pytest.raises(EngineError, match=f"^ThisModel has no place for '{name}' and for 1 more tensors of the"):
        check_unplaced(["z.weight", name, *MTP], num_layers=4, model="ThisModel")


def test_tensors_that_are_not_computed_are_said():
    check_unplaced(MTP, num_layers=4, model="ThisModel")
    assert in_words([]) == ""
    assert in_words(MTP).startswith("; 4 tensors are merged in files only") and MTP[0] in in_words(MTP)
