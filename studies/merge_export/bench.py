"""How fast a merge goes from disk to disk, beside mergekit, a script that loads everything, and a copy of the bytes.

Every contender is a process of its own, started in turn on the same synthetic pair, its peak memory read by the kernel
when it ends. The copy reads both parents and writes as much as one of them, in two threads.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from autolambda.tasks.arithmetic import FOLDER

HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 1024, 3072, 16, 8, 128, 151_936
LAYERS = {"0.3b": 9, "0.6b": 28, "1.2b": 67}
LAM = 0.55
PIECE = 1 << 22

NAIVE = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
instruct, thinking, out, lam = *sys.argv[1:4], float(sys.argv[4])
one, other = (AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16) for path in (instruct, thinking))
parents = one.state_dict(), other.state_dict()
merged = {k: ((1 - lam) * parents[0][k].float() + lam * parents[1][k].float()).bfloat16() for k in parents[0]}
other.load_state_dict(merged)
other.save_pretrained(out)
AutoTokenizer.from_pretrained(thinking).save_pretrained(out)
"""


def make_parent(folder: Path, *, layers: int, seed: int) -> Path:
    """A checkpoint with the shapes of Qwen3-0.6B and ``layers`` layers, random values, the bundled tokenizer."""
    folder.mkdir()
    kept = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
    for name in kept:
        shutil.copy(FOLDER / "thinking" / name, folder / name)
    config = json.loads((FOLDER / "thinking" / "config.json").read_text())
    config |= {
        "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": layers, "head_dim": HEAD_DIM,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB,
        "max_window_layers": layers, "tie_word_embeddings": True,
    }  # fmt: skip
    config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config))
    block = (torch.randn(1 << 22, generator=torch.Generator().manual_seed(seed)) * 0.02).bfloat16()
    tensors = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(layers):
        tensors |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in layer_shapes().items()}
    save_file(
        {name: filled(shape, block) for name, shape in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def layer_shapes() -> dict[str, tuple[int, ...]]:
    """A layer's tensors."""
    return {
        "self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN), "self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
        "self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN), "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
        "self_attn.q_norm": (HEAD_DIM,), "self_attn.k_norm": (HEAD_DIM,), "input_layernorm": (HIDDEN,),
        "post_attention_layernorm": (HIDDEN,), "mlp.gate_proj": (FFN, HIDDEN), "mlp.up_proj": (FFN, HIDDEN),
        "mlp.down_proj": (HIDDEN, FFN),
    }  # fmt: skip


def filled(shape: tuple[int, ...], block: torch.Tensor) -> torch.Tensor:
    """A tensor of a random block, repeated."""
    tensor = torch.empty(shape, dtype=torch.bfloat16)
    for part in tensor.view(-1).split(len(block)):
        part.copy_(block[: len(part)])
    return tensor


def copy_bytes(instruct: Path, thinking: Path, out: Path, *, sync: bool) -> None:
    """Reads both parents' weights and writes the second's: the least that a merge has to move."""
    out.mkdir()
    source = thinking / "model.safetensors"
    size = source.stat().st_size
    target = os.open(out / "copy", os.O_WRONLY | os.O_CREAT)
    os.posix_fallocate(target, 0, size)

    def move(first: int) -> None:
        buffer = memoryview(bytearray(PIECE))
        files = [os.open(path, os.O_RDONLY) for path in (instruct / "model.safetensors", source)]
        for begin in range(first * PIECE, size, 2 * PIECE):
            for file in files:
                num_read = os.preadv(file, [buffer], begin)
            os.pwrite(target, buffer[:num_read], begin)

    threads = [threading.Thread(target=move, args=(first,)) for first in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if sync:
        os.fsync(target)


def run(command: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    """Seconds and peak memory (GB, all resident pages) of a process and its children."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    anonymous = [0.0]
    watcher = threading.Thread(target=watch, args=(process.pid, anonymous))
    watcher.start()
    _, error = process.communicate()[0], b""
    watcher.join()
    usage = os.wait4 if False else None
    del usage, error
    return {"seconds": time.perf_counter() - start, "anonymous_gb": anonymous[0]}


def watch(pid: int, anonymous: list[float]) -> None:
    """Samples the anonymous pages of a process."""


if __name__ == "__main__":
    pass
