"""What is no whole model in safetensors is named in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import edit_json, tiny_checkpoint

from autolambda.errors import CheckpointError
from autolambda.merging.checkpoint import open_checkpoint
from autolambda.merging.source import find_folder


def without_weights(folder: Path) -> Path:
    tiny_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    return folder


def adapter(folder: Path) -> None:
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "adapter_model.safetensors").write_bytes(b"")


def gguf(folder: Path) -> None:
    folder.mkdir()
    (folder / "model-Q4_K_M.gguf").write_bytes(b"GGUF")


def consolidated(folder: Path) -> None:
    folder.mkdir()
    (folder / "params.json").write_text("{}")
    (folder / "consolidated.safetensors").write_bytes(b"")


def pickled(folder: Path) -> None:
    (without_weights(folder) / "pytorch_model.bin").write_bytes(b"")


def fp8(folder: Path) -> None:
    quantisation = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    edit_json(tiny_checkpoint(folder) / "config.json", quantization_config=quantisation)


def mxfp4(folder: Path) -> None:
    edit_json(tiny_checkpoint(folder) / "config.json", quantization_config={"quant_method": "mxfp4"})


def nested_fp8(folder: Path) -> None:
    edit_json(tiny_checkpoint(folder) / "config.json", text_config={"quantization_config": {"quant_method": "fp8"}})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (adapter, "is an adapter (LoRA), not a whole model; merge it into its base model"),
        (gguf, "holds GGUF files, which cannot be merged; use the safetensors checkpoint"),
        (consolidated, "holds consolidated weights only; use the files for transformers"),
        (pickled, "holds pickled weights only, which can run code when loaded; convert it to safetensors"),
        (fp8, "is quantised (fp8, quantization_config); use the bfloat16 checkpoint"),
        (nested_fp8, "is quantised (fp8, quantization_config)"),
        (mxfp4, "is quantised (mxfp4, quantization_config); use the bfloat16 checkpoint"),
        (without_weights, "has no model.safetensors and no model.safetensors.index.json"),
    ],
)
def test_other_forms_of_weights_are_named(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "model")
    with pytest.raises(CheckpointError) as raised:
        open_checkpoint(str(tmp_path / "model"))
    assert message in str(raised.value) and len(str(raised.value).splitlines()) == 1


def test_a_gguf_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match="is a GGUF file, which cannot be merged"):
        find_folder(str(tmp_path / "model.gguf"))


def test_weights_in_safetensors_count_whatever_lies_beside_them(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "model")
    for name in ("consolidated.safetensors", "pytorch_model.bin", "model.gguf"):
        (folder / name).write_bytes(b"")
    assert open_checkpoint(str(folder)).num_layers == 2
