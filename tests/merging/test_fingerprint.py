"""The SHA-256 of a model's weights, and where a checkpoint's tensors lie in a transformers model."""

import hashlib
import json

import pytest
import torch
from checkpoints import tiny_checkpoint
from transformers import AutoModelForCausalLM

from autolambda.engines.transformers.layout import live_tensors
from autolambda.merging.checkpoint import open_checkpoint
from autolambda.merging.fingerprint import TensorHash, digest_of_hashes, digest_of_tensors, hash_files
from autolambda.merging.shards import TensorInfo, bytes_of

HASHES = {"b": "02" * 32, "a": "01" * 32}


def test_the_digest_is_over_the_tensors_by_name():
    assert digest_of_hashes(HASHES) == hashlib.sha256(b"\x01" * 32 + b"\x02" * 32).hexdigest()
    assert digest_of_hashes(dict(sorted(HASHES.items()))) == digest_of_hashes(HASHES)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: {"a": a + 1},
        lambda a: {"a": -a},  # of 0 too
        lambda a: {"a": a.T},
        lambda a: {"b": a},
    ],
)
def test_values_shapes_and_names_count(change):
    def digest(tensors):
        infos = {name: TensorInfo(torch.bfloat16, tuple(tensor.shape), "", 0) for name, tensor in tensors.items()}
        return digest_of_tensors(tensors, infos)

    a = torch.zeros(2, 3, dtype=torch.bfloat16)
    assert digest({"a": a.float()}) == digest({"a": a}) != digest(change(a))


def test_a_hash_is_that_of_the_whole_and_sees_every_value() -> None:
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    info = TensorInfo(torch.float32, (2, 3), "x.safetensors", 0)
    whole, pieces = TensorHash("a", info), TensorHash("a", info)
    whole.update(tensor)
    for row in tensor:
        pieces.update(row)
    said = json.dumps(["a", "torch.float32", [2, 3]]).encode() + bytes(bytes_of(tensor))
    assert whole.digest() == pieces.digest() == hashlib.sha256(said).digest() and pieces.finite
    pieces.update(torch.tensor([1.0, torch.nan]))
    pieces.update(torch.ones(2))
    assert not pieces.finite and pieces.digest() != whole.digest()


@pytest.mark.parametrize("family", ["qwen3", "llama", "qwen3_moe"])
def test_the_tensors_of_a_model_are_those_of_its_files(tmp_path, family):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, family=family, tie=family == "qwen3")))
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    found = live_tensors(model, {name: info.shape for name, info in checkpoint.tensors.items()})
    assert all(torch.equal(found[name].bfloat16(), checkpoint.read(name)) for name in checkpoint.tensors)
    hashes = {name: each.digest().hex() for name, each in hash_files(checkpoint.folder, checkpoint.tensors).items()}
    assert digest_of_tensors(found, checkpoint.tensors) == digest_of_hashes(hashes)
