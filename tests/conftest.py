"""Fixtures that several test files share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from checkpoints import edit_tensors, tiny_checkpoint
from command_line import run
from postgres import server
from torch import Tensor

__all__ = ["run", "server"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Runs PyTorch with one thread, for tests that compute with tiny models outside an engine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def parents(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a tiny Instruct and Thinking model with -0.0 among their weights and 22 ids that end a response."""
    folders = []
    for name, seed in (("instruct", 1), ("thinking", 2)):
        folder = tiny_checkpoint(tmp_path_factory.mktemp("parents") / name, seed=seed, tie=False)
        edit_tensors(folder / "model.safetensors", _put_negative_zeros)
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(0, 264, 12))}))
        folders.append(folder)
    return folders[0], folders[1]


def _put_negative_zeros(tensors: dict[str, Tensor]) -> None:
    for tensor in tensors.values():
        tensor.view(-1)[::7] = -0.0
