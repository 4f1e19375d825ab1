"""Fixtures that several test files share, and how tests are shared out to pytest-xdist's workers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is loaded: the workers share the cores

import torch
from checkpoints import edit_tensors, tiny_checkpoint
from command_line import run
from groups import GroupScheduling, rank_of
from postgres import server
from shared import shared_folder
from torch import Tensor

__all__ = ["run", "server"]


def pytest_configure(config: pytest.Config) -> None:
    shared_folder()  # before there are workers, which inherit its name


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling | None:
    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False  # the order is ours
    return GroupScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank_of(item.nodeid))  # stable: within a file tests keep their order


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
