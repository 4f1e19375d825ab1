"""Where a checkpoint's tensors lie in vLLM's models, by vLLM's own renamings and layers."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checkpoints import edit_tensors, tiny_checkpoint
from torch import nn
from vllm_engines import needs_vllm, opened

from autolambda.engines.vllm.arguments import import_vllm
from autolambda.engines.vllm.places import _full_sizes, _renamed, live_parameters
from autolambda.errors import EngineError

pytestmark = [pytest.mark.usefixtures("one_thread"), needs_vllm]


class Named(nn.Module):
    """A module with vLLM's renamings of its tensors."""

    def __init__(self, children: dict[str, nn.Module] | None = None, **renamings: Any) -> None:
        import_vllm()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from vllm.model_executor.models.utils import WeightsMapper

        super().__init__()
        if renamings:
            self.hf_to_vllm_mapper = WeightsMapper(**renamings)
        for name, child in (children or {}).items():
            self.add_module(name, child)


def nested() -> nn.Module:
    """The renamings of Qwen3-VL, around a language model with those of Falcon-H1."""
    inner = Named(
        {"layers": nn.ModuleList([Named()])},
        orig_to_new_substr={"A_log": "A", "mamba": "mamba.mamba"},
        orig_to_new_stacked={".q_proj": (".qkv_proj", "q")},
    )
    prefixes = {
        "model.visual.": "visual.",
        "lm_head.": "language_model.lm_head.",
        "model.language_model.": "language_model.model.",
        "dropped.": None,
    }
    return Named({"language_model": Named({"model": inner}), "visual": Named()}, orig_to_new_prefix=prefixes)


@pytest.mark.parametrize(
    ("tensor", "name"),
    [
        ("model.language_model.layers.0.mamba.A_log", "language_model.model.layers.0.mamba.mamba.A"),
        (
            "model.language_model.layers.0.self_attn.q_proj.weight",
            "language_model.model.layers.0.self_attn.q_proj.weight",
        ),
        ("model.visual.patch_embed.weight", "visual.patch_embed.weight"),
        ("lm_head.weight", "language_model.lm_head.weight"),
        ("dropped.weight", None),
    ],
)
def test_tensors_are_renamed_as_by_every_loader_on_the_way(tensor, name):
    assert _renamed(nested(), tensor) == name


@pytest.mark.parametrize(
    ("layer", "rows", "total", "sizes"),
    [
        ({}, [8], 16, [16]),  # a shard of a plain layer
        ({"output_sizes": [6, 10]}, [3, 5], 16, [6, 10]),
        ({"total_num_heads": 4, "total_num_kv_heads": 1, "head_size": 2}, [4, 2, 2], 12, [8, 2, 2]),  # shared heads
    ],
)
def test_the_members_of_a_tensor_that_is_fused_in_the_files(layer, rows, total, sizes):
    assert _full_sizes(SimpleNamespace(**layer), rows, total) == sizes


def test_a_parameter_of_which_tensors_fill_a_part_is_an_error():
    linear = nn.Linear(2, 6, bias=False)
    linear.output_partition_sizes = [2, 2, 2]  # type: ignore[assignment]
    model = nn.ModuleDict({"attn": nn.ModuleDict({"qkv_proj": linear})})
    shapes = {f"attn.{name}_proj.weight": (2, 2) for name in "qkv"}
    assert len(live_parameters(model, shapes, rank=0, size=1)["attn.qkv_proj.weight"].parts) == 3
    del shapes["attn.v_proj.weight"]
    with pytest.raises(EngineError, match=r"'attn\.qkv_proj\.weight', for which the checkpoints have no tensor of all"):
        live_parameters(model, shapes, rank=0, size=1)


def test_a_tensor_without_a_place_is_an_error_of_one_line(tmp_path):
    parents = [tiny_checkpoint(tmp_path / str(seed), seed=seed) for seed in range(2)]
    for parent in parents:
        extra = {"model.layers.0.mlp.gate.e_score_correction_bias": torch.zeros(4, dtype=torch.bfloat16)}
        edit_tensors(parent / "model.safetensors", lambda tensors, extra=extra: tensors.update(extra))
    with (
        pytest.raises(
            EngineError, match=r"vLLM.*(no place for|no module or parameter named) .*e_score_correction_bias"
        ),
        opened(*parents),
    ):
        pass
