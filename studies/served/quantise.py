"""Quantises an export to int8 weights and activations (W8A8), in the format of compressed-tensors.

Each row of a linear layer's weight has one scale; activations are quantised while the model runs. vLLM's CPU engine
runs this scheme. It is no recommendation: it shows what `autolambda check` says of a quantised merge.

    python studies/served/quantise.py EXPORT OUT
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
ACTIVATIONS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
SCHEME = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": WEIGHTS, "input_activations": ACTIVATIONS}},
}


def quantised(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the tensors with every linear layer of the decoder in int8 and its scales, float32 [rows, 1]."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if ".layers." not in name or not name.endswith("_proj.weight"):
            found[name] = tensor
            continue
        scale = tensor.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
        found[name] = (tensor.float() / scale).round().clamp(-127, 127).to(torch.int8)
        found[f"{name}_scale"] = scale
    return found


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    shutil.copytree(source, target)
    save_file(quantised(load_file(source / "model.safetensors")), target / "model.safetensors", {"format": "pt"})
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (target / "config.json").write_text(
        json.dumps(config | {"quantization_config": SCHEME}, indent=2), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
