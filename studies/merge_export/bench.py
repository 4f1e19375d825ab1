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
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from autolambda.bundled import FOLDER

HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 1024, 3072, 16, 8, 128, 151_936
LAYERS = {"0.3b": 9, "0.6b": 28, "1.2b": 67}
LAM = 0.55
PIECE = 1 << 18  # bytes; larger ones copy slower

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


def run(command: Sequence[object]) -> dict[str, float]:
    """Seconds, CPU seconds and peak memory (GB: all resident pages, and anonymous ones) of a process."""
    start = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peaks = {"VmHWM": 0, "RssAnon": 0}
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        for line in read_status(process.pid).splitlines():
            key, _, value = line.partition(":")
            if key in peaks:
                peaks[key] = max(peaks[key], int(value.split()[0]))
        time.sleep(0.01)
    seconds, usage = time.perf_counter() - start, ended[2]
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_gb": peaks["VmHWM"] / 1e6,
        "anonymous_gb": peaks["RssAnon"] / 1e6,
    }


def read_status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def contenders(place: Path, mergekit: str | None) -> dict[str, list[object]]:
    """The commands by name; each writes the folder ``out``."""
    instruct, thinking, out = place / "instruct", place / "thinking", place / "out"
    recipe = place / "recipe.yml"
    models = [{"model": str(path), "parameters": {"weight": w}} for path, w in ((instruct, 1 - LAM), (thinking, LAM))]
    recipe.write_text(json.dumps({"merge_method": "linear", "dtype": "bfloat16", "models": models}))
    ours = [Path(sys.executable).with_name("autolambda"), "merge", instruct, thinking, out, "--lambda", LAM]
    python = [sys.executable, __file__]
    found: dict[str, list[object]] = {
        "autolambda merge": ours,
        "weights alone, parents hashed": [*python, "--write", place, "--identify"],
        "weights alone": [*python, "--write", place],
        "copy": [*python, "--copy", place],
        "copy, synced": [*python, "--copy", place, "--sync"],
        "load everything": [sys.executable, "-c", NAIVE, instruct, thinking, out, LAM],
    }
    return found | ({"mergekit": [mergekit, recipe, out]} if mergekit else {})


def timed(work: Callable[[], object]) -> None:
    """Runs the work of a contender in this process and tells its seconds, without the start of Python."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    found = {"work_seconds": time.perf_counter() - start, "work_cpu_seconds": time.process_time() - cpu}
    Path(os.environ["BENCH_SECONDS"]).write_text(json.dumps(found))


def write_alone(place: Path, *, identify: bool) -> None:
    """The merge without model card, tokenizer and synced files: what is compared with a copy that is not synced."""
    from autolambda.merging.merge import open_merge
    from autolambda.merging.pair import open_pair
    from autolambda.merging.writing.write import write_weights
    from autolambda.schedule import Schedule

    os.fsync = os.fdatasync = lambda descriptor: None
    merge = open_merge(open_pair(str(place / "instruct"), str(place / "thinking")), Schedule.uniform(LAM))
    (place / "out").mkdir()
    timed(lambda: write_weights(place / "out", merge, max_shard_size=5 * 10**9, identify=identify))


def bench(size: str, *, mergekit: str | None, repeats: int, only: Sequence[str]) -> list[dict[str, object]]:
    """Every contender ``repeats`` times, in turn; one line each."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        for seed, name in enumerate(("instruct", "thinking")):
            make_parent(place / name, layers=LAYERS[size], seed=seed)
        os.environ["BENCH_SECONDS"] = str(place / "seconds")
        for _ in range(repeats):
            for name, command in contenders(place, mergekit).items():
                if only and name not in only:
                    continue
                shutil.rmtree(place / "out", ignore_errors=True)
                (place / "seconds").unlink(missing_ok=True)
                os.sync()  # no contender pays for what another wrote
                row: dict[str, object] = {"size": size, "name": name, "load": round(os.getloadavg()[0], 1)}
                row |= run(command)
                if (place / "seconds").exists():
                    row |= json.loads((place / "seconds").read_text())
                rows.append(row)
                print(json.dumps(row), flush=True)
    return rows


def show(rows: list[dict[str, object]]) -> None:
    """Medians and spreads by contender, as a table."""
    print("| size | | seconds, median (least to most) | CPU seconds | peak GB, all | anonymous |")
    print("|---|---|---|---|---|---|")
    for size, name in dict.fromkeys((row["size"], row["name"]) for row in rows):
        own = [row for row in rows if (row["size"], row["name"]) == (size, name)]

        def values(key: str, own: list[dict[str, object]] = own) -> list[float]:
            return sorted(float(str(row.get(f"work_{key}", row[key]))) for row in own)

        seconds, medians = values("seconds"), [
            statistics.median(values(key)) for key in ("seconds", "cpu_seconds", "peak_gb", "anonymous_gb")
        ]  # fmt: skip
        spread = f"{medians[0]:.2f} ({seconds[0]:.2f} to {seconds[-1]:.2f})"
        print(f"| {size} | {name} | {spread} | {medians[1]:.1f} | {medians[2]:.2f} | {medians[3]:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=LAYERS, action="append", help="repeatable; default 0.6b")
    parser.add_argument("--mergekit", help="mergekit-yaml of an environment of its own")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], help="a contender's name; repeatable")
    parser.add_argument("--copy", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--sync", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--identify", action="store_true", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.copy:
        place: Path = said.copy
        timed(lambda: copy_bytes(place / "instruct", place / "thinking", place / "out", sync=said.sync))
    elif said.write:
        write_alone(said.write, identify=said.identify)
    else:
        rows: list[dict[str, object]] = []
        for size in said.size or ["0.6b"]:
            rows += bench(size, mergekit=said.mergekit, repeats=said.repeats, only=said.only)
        show(rows)


if __name__ == "__main__":
    main()
