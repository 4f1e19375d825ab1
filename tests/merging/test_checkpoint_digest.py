"""The digest: what a checkpoint is known by, and the values it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import edit_json, edit_tensors, tiny_checkpoint
from torch import Tensor

from autolambda.errors import CheckpointError
from autolambda.merging.checkpoint import open_checkpoint

SINGLE = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "tied")


def digest_of(folder: Path) -> str:
    return open_checkpoint(str(folder)).digest()


def test_sharding_changes_neither_tensors_nor_digest(folder: Path, tmp_path: Path) -> None:
    sharded = tiny_checkpoint(tmp_path / "sharded", max_shard_size=30_000)
    one, other = open_checkpoint(str(folder)), open_checkpoint(str(sharded))
    assert len({info.file for info in other.tensors.values()}) > 1
    assert all(torch.equal(one.read(name), other.read(name)) for name in one.tensors)
    assert one.digest() == other.digest()


def test_the_digest_sees_weights_names_and_behaviour(folder: Path) -> None:
    digest = digest_of(folder)
    edit_json(folder / "config.json", transformers_version="4.0", _name_or_path="x", dtype=None, use_cache=False)
    assert digest_of(folder) == digest
    seen = {digest}
    edit_json(folder / "config.json", rms_norm_eps=1e-5)
    seen.add(digest_of(folder))
    edit_tensors(folder / SINGLE, lambda tensors: tensors["model.norm.weight"][3:4].neg_())
    seen.add(digest_of(folder))
    edit_tensors(folder / SINGLE, lambda tensors: tensors.update(x=tensors.pop("model.norm.weight")))
    seen.add(digest_of(folder))
    edit_tensors(folder / SINGLE, lambda tensors: tensors.update(x=tensors["x"].reshape(2, 16)))
    seen.add(digest_of(folder))
    assert len(seen) == 5


def test_the_digest_reads_tensors_larger_than_its_buffer(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, vocab_size=70_001)  # 4.5 MB of embedding
    digest = digest_of(folder)
    edit_tensors(folder / SINGLE, lambda tensors: tensors["model.embed_tokens.weight"][-1, -1:].neg_())
    assert digest_of(folder) != digest
    edit_tensors(folder / SINGLE, lambda tensors: tensors["model.embed_tokens.weight"][0, :1].fill_(torch.inf))
    with pytest.raises(CheckpointError, match=r"infinite values in model\.embed_tokens\.weight;"):
        digest_of(folder)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_values_that_are_not_finite_are_named(folder: Path, value: float, dtype: torch.dtype) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        name = "model.layers.1.mlp.up_proj.weight"
        tensors[name] = tensors[name].to(dtype)
        tensors[name][5, 7] = value

    edit_tensors(folder / SINGLE, spoil)
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in model\.layers\.1\.mlp\.up_proj\.weight; use"):
        digest_of(folder)


def test_a_file_that_shrinks_while_it_is_read_is_refused(folder: Path) -> None:
    checkpoint = open_checkpoint(str(folder))
    content = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(content[:-10])
    with pytest.raises(CheckpointError, match="ended inside"):
        checkpoint.digest()
    with pytest.raises(CheckpointError, match=r"cannot read tensor 'model\.norm\.weight'"):
        checkpoint.read("model.norm.weight")
    (folder / SINGLE).unlink()
    with pytest.raises(CheckpointError, match="cannot read"):
        checkpoint.digest()


def test_the_digest_of_an_opened_checkpoint_is_read_once(folder: Path) -> None:
    checkpoint = open_checkpoint(str(folder))
    digest = checkpoint.digest()
    (folder / SINGLE).unlink()
    assert checkpoint.digest() == digest
