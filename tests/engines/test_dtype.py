"""The compute dtype follows most weights, and an engine that would lose bits of the others is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import edit_tensors, tiny_checkpoint
from families import FAMILIES, save_family
from safetensors.torch import load_file
from vllm_engines import needs_vllm, open_vllm

from autolambda.engines.chat import load_tokenizer
from autolambda.engines.dtype import resolve_dtype
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.errors import ConfigError, EngineError
from autolambda.merging.pair import Pair, open_pair

NORM = "model.norm.weight"
CUDA = torch.device("cuda")


def with_a_wide_tensor(folder: Path, name: str) -> tuple[str, str]:
    """Parents in bfloat16 with one tensor in float32, whose values bfloat16 cannot hold."""
    folders = [tiny_checkpoint(folder / f"{seed}", seed=seed) for seed in (0, 1)]
    for parent in folders:
        edit_tensors(parent / "model.safetensors", lambda tensors: tensors.update({name: tensors[name].float() + 1e-5}))
    return str(folders[0]), str(folders[1])


def opened(pair: Pair, dtype: str) -> TransformersEngine:
    return TransformersEngine(pair, tokenizer=load_tokenizer(pair.thinking.folder), device="cpu", dtype=dtype)


def test_one_wide_tensor_does_not_widen_the_model(tmp_path: Path) -> None:
    pair = open_pair(*with_a_wide_tensor(tmp_path, NORM))
    assert resolve_dtype("auto", pair, CUDA) == torch.bfloat16
    assert resolve_dtype("bfloat16", pair, CUDA) == torch.bfloat16
    assert resolve_dtype("auto", pair, torch.device("cpu")) == torch.float32
    with pytest.raises(ConfigError, match="float16 cannot hold the checkpoints' bfloat16 values"):
        resolve_dtype("float16", pair, CUDA)


def test_an_engine_that_would_narrow_a_tensor_is_refused(tmp_path: Path) -> None:
    pair = open_pair(*with_a_wide_tensor(tmp_path, NORM))
    expected = rf"holds '{NORM}' in bfloat16, but the checkpoints in float32, .*; set engine\.dtype to float32"
    with pytest.raises(EngineError, match=expected):
        opened(pair, "bfloat16")
    opened(pair, "float32").close()


@needs_vllm
def test_vllm_too(tmp_path: Path) -> None:
    instruct, thinking = map(Path, with_a_wide_tensor(tmp_path, NORM))
    with pytest.raises(EngineError, match=f"holds '{NORM}' in bfloat16, but the checkpoints in float32"):
        open_vllm(instruct, thinking, path="direct", dtype="bfloat16")


def test_a_router_bias_stays_wide_in_a_narrow_model(tmp_path: Path) -> None:
    """As in DeepSeek-V3, whose biases are float32 in the files, and in transformers' model."""
    folders = [save_family(tmp_path / str(seed), FAMILIES["deepseek_v3"], seed=seed) for seed in (0, 1)]
    bias = "e_score_correction_bias"
    for folder in folders:
        edit_tensors(
            folder / "model.safetensors",
            lambda tensors: tensors.update({name: tensors[name].float() for name in tensors if name.endswith(bias)}),
        )
    engine = opened(open_pair(*map(str, folders)), "bfloat16")
    stored = load_file(folders[1] / "model.safetensors")
    held = [name for name in engine._live if name.endswith(bias)]
    assert held and all(torch.equal(engine._live[name], stored[name]) for name in held)
    engine.close()
