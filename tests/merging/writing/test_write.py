"""A merge from files to files: the bits of the engine, what it hashes, what it refuses, the memory it takes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from checkpoints import edit_tensors, tiny_checkpoint, write_merge
from paths import HELPERS
from safetensors.torch import load_file, save_file
from torch import Tensor

from autolambda.engines.base import Fingerprint
from autolambda.engines.chat import load_tokenizer
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.errors import CheckpointError, OutputError
from autolambda.merging.checkpoint import open_checkpoint
from autolambda.merging.fingerprint import TensorHash, digest_of_hashes, hash_files
from autolambda.merging.kernels.sums import PIECE
from autolambda.merging.merge import Merge, open_merge
from autolambda.merging.method import METHODS, Method
from autolambda.merging.pair import open_pair
from autolambda.merging.writing.atomic_folder import atomic_folder
from autolambda.merging.writing.write import write_weights
from autolambda.schedule import Profile, Schedule

pytestmark = pytest.mark.usefixtures("one_thread")

Pairs = Callable[..., tuple[Path, Path]]
SINGLE = "model.safetensors"
EXECUTABLE = Path(sys.executable).with_name("autolambda")
MIXED = Schedule.by_depth_and_module(Profile((0.2, 0.9)), Profile((1.0, 0.4)), other=0.0)
BIASES = {"attention_bias": True, "mlp_bias": True}
KINDS: dict[str, dict[str, object]] = {
    "bfloat16 tied": {},
    "bfloat16 untied": {"tie": False},
    "float16 untied": {"tie": False, "dtype": torch.float16},
    "float32 tied": {"dtype": torch.float32},
    "biases": {"family": "llama", "tie": False, **BIASES},
    "experts and routers": {"family": "qwen3_moe", "tie": False},
    "experts and routers, float16 tied": {"family": "qwen3_moe", "dtype": torch.float16},
}


def merge_of(*folders: Path, method: Schedule | Method = MIXED) -> Merge:
    return open_merge(open_pair(*map(str, folders)), method)


def spoil(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    edit_tensors(folder / SINGLE, change)
    return folder


def bits(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    return {name: tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items()}


def written(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's shards."""
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.fixture
def pair_of(tmp_path: Path) -> Pairs:
    def make(**kind: object) -> tuple[Path, Path]:
        one, other = (tiny_checkpoint(tmp_path / f"{seed}", seed=seed, **kind) for seed in (1, 2))  # type: ignore[arg-type]
        return one, other

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_files_hold_the_bits_of_the_engine(pair_of: Pairs, tmp_path: Path, kind: str) -> None:
    instruct, thinking = pair_of(**KINDS[kind])
    merge = merge_of(instruct, thinking)
    (tmp_path / "out").mkdir()
    hashes = write_merge(tmp_path / "out", merge, max_shard_size=20_000)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    with closing(engine_on(instruct, thinking)) as engine:
        engine.set_merge(Method.linear(MIXED))
        evaluated = engine.fingerprint()
    assert evaluated == Fingerprint(digest_of_hashes(hashes), whole=True)
    with closing(engine_on(tmp_path / "out", tmp_path / "out", tokenizer=thinking)) as engine:
        engine.set_merge(Method.linear(Schedule.uniform(0.0)))
        assert engine.fingerprint() == evaluated
    assert bits(written(tmp_path / "out")) == bits({name: merge.tensor(name) for name in merge.infos})


def hashes_in(folder: Path) -> dict[str, TensorHash]:
    return hash_files(folder, open_checkpoint(str(folder)).tensors)


def engine_on(instruct: Path, thinking: Path, *, tokenizer: Path | None = None) -> TransformersEngine:
    pair = open_pair(str(instruct), str(thinking))
    return TransformersEngine(pair, tokenizer=load_tokenizer(tokenizer or thinking), device="cpu")


@pytest.mark.parametrize("ties", [(True, False), (False, True)])
def test_the_head_that_one_parent_lends(tmp_path: Path, ties: tuple[bool, bool]) -> None:
    folders = [tiny_checkpoint(tmp_path / f"{seed}", tie=tie, seed=seed) for seed, tie in enumerate(ties)]
    (tmp_path / "out").mkdir()
    for number, schedule in enumerate((Schedule.uniform(0.0), Schedule.uniform(0.3), Schedule.uniform(1.0))):
        merge = merge_of(*folders, method=schedule)
        out = tmp_path / f"out{number}"
        out.mkdir()
        found = write_weights(out, merge, max_shard_size=1 << 30, identify=True)
        assert bits(written(out)) == bits({name: merge.tensor(name) for name in merge.infos})
        assert found.models == {
            name: open_checkpoint(str(folder)).digest()
            for name, folder in zip(("instruct", "thinking"), folders, strict=True)
        }
        (out / "config.json").write_text(json.dumps(merge.config))
        assert {name: each.digest().hex() for name, each in hashes_in(out).items()} == found.tensors


def test_buffers_that_are_no_weights_are_copied(pair_of: Pairs, tmp_path: Path) -> None:
    name, scale = "model.layers.0.self_attn.positions", "model.layers.1.self_attn.scale"
    extra = {name: torch.arange(5), "model.layers.0.mlp.mask": torch.tensor([True, False]), scale: torch.tensor(2.5)}
    folders = [spoil(folder, lambda tensors: tensors.update(extra)) for folder in pair_of()]
    (tmp_path / "out").mkdir()
    write_merge(tmp_path / "out", merge_of(*folders, method=Schedule.uniform(0.3)))
    found = load_file(tmp_path / "out" / SINGLE)
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in extra.items())


@pytest.mark.parametrize("method", METHODS)
def test_tensors_of_many_pieces_are_merged_as_a_whole(tmp_path: Path, method: str) -> None:
    """Any number of threads, any shards: pieces end where they end."""
    folders = [tiny_checkpoint(tmp_path / f"{seed}", seed=seed, vocab_size=PIECE * 5 // 2 // 32) for seed in range(3)]
    chosen = Method.from_dict(
        {"method": method} | ({} if method in ("ties", "task_arithmetic") else {"schedule": {"lambda": 0.3}}),
        base=str(folders[2]) if method in ("ties", "task_arithmetic") else None,
    )
    merge = merge_of(*folders[:2], method=chosen)
    found = []
    for num_threads, size in ((1, 1 << 30), (3, 100_000)):
        out = tmp_path / f"out{num_threads}"
        out.mkdir()
        result = write_weights(out, merge, max_shard_size=size, identify=True, num_threads=num_threads)
        found.append((result, bits(written(out))))
        assert result.models.keys() == merge.models.keys()
    assert found[0] == found[1]
    assert found[0][1] == bits({name: merge.tensor(name) for name in merge.infos})


def test_progress_adds_up_to_the_bytes_of_the_merge(pair_of: Pairs, tmp_path: Path) -> None:
    merge, counted = merge_of(*pair_of()), []
    (tmp_path / "out").mkdir()
    write_weights(tmp_path / "out", merge, max_shard_size=1 << 30, identify=False, on_bytes=counted.append)
    assert sum(counted) == merge.pair.num_bytes


@pytest.mark.parametrize("identify", [True, False])
@pytest.mark.parametrize("parent", [0, 1])
@pytest.mark.parametrize(("lam", "value"), [(0.0, torch.nan), (0.5, torch.nan), (0.5, -torch.inf), (1.0, torch.inf)])
def test_a_broken_parent_ends_it(
    pair_of: Pairs, tmp_path: Path, identify: bool, parent: int, lam: float, value: float
) -> None:
    folders = pair_of()
    spoil(folders[parent], lambda tensors: tensors["model.norm.weight"][3:4].fill_(value))
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match=rf"/{parent + 1}' holds NaN or infinite values in model\.norm\.weight;"):
        merge = merge_of(*folders, method=Schedule.uniform(lam))
        write_weights(tmp_path / "out", merge, max_shard_size=1 << 30, identify=identify)


@pytest.mark.parametrize("name", ["linear", "task_arithmetic", "ties", "slerp"])
def test_a_sum_that_overflows_breaks_no_model(pair_of: Pairs, tmp_path: Path, name: str) -> None:
    """Values at the ends of float16's range: all models are finite, whatever their merge is."""
    folders = [*pair_of(dtype=torch.float16), tiny_checkpoint(tmp_path / "base", dtype=torch.float16)]
    for folder, value in zip(folders, (65504.0, 65504.0, -65504.0), strict=True):
        spoil(folder, lambda tensors, value=value: tensors["model.norm.weight"][3:4].fill_(value))
    half = Schedule.uniform(0.5)
    method = Method(name, half) if name in ("linear", "slerp") else Method(name, base=str(folders[2]))
    merge = merge_of(*folders[:2], method=method)
    (tmp_path / "out").mkdir()
    write_merge(tmp_path / "out", merge)
    assert bits(written(tmp_path / "out")) == bits({name: merge.tensor(name) for name in merge.infos})


def test_a_parent_that_shrinks_meanwhile_ends_it(pair_of: Pairs, tmp_path: Path) -> None:
    folders = pair_of()
    merge = merge_of(*folders)
    with (folders[1] / SINGLE).open("r+b") as file:
        file.truncate(1000)
    (tmp_path / "out").mkdir()
    num_threads, num_open = torch.get_num_threads(), len(os.listdir("/proc/self/fd"))
    with pytest.raises(CheckpointError, match="ended inside"):
        write_merge(tmp_path / "out", merge)
    assert torch.get_num_threads() == num_threads and len(os.listdir("/proc/self/fd")) == num_open


def big_pair(folder: Path, *, num_layers: int) -> list[str]:
    """Two checkpoints of 8.4 MB a layer."""
    found = []
    for name, value in (("instruct", 0.5), ("thinking", 0.25)):
        tiny_checkpoint(folder / name, num_hidden_layers=num_layers)
        tensors = load_file(folder / name / SINGLE)
        layer = {f"model.layers.{i}.mlp.up_proj.weight": (2048, 2048) for i in range(num_layers)}
        tensors |= {key: torch.full(shape, value).bfloat16() for key, shape in layer.items()}
        save_file(tensors, folder / name / SINGLE)
        found.append(str(folder / name))
    return found


def merge_command(parents: list[str], out: Path) -> list[str]:
    return [str(EXECUTABLE), "merge", *parents, str(out), "--lambda", "0.5"]


def write_atomically(parents: list[str], out: Path) -> None:
    with atomic_folder(out) as folder:
        write_merge(folder, merge_of(*map(Path, parents), method=Schedule.uniform(0.5)))


MERGING = """
import resource, signal, sys
from pathlib import Path
from autolambda.errors import AutolambdaError
from tests.merging.writing.test_write import write_atomically
*parents, out, limit = sys.argv[1:]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
before = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
try:
    write_atomically(parents, Path(out))
except AutolambdaError as error:
    sys.exit(str(error))
after = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(*before, *after)
"""


def merge_elsewhere(parents: list[str], out: Path, *, limit: int = 1 << 40) -> subprocess.CompletedProcess[str]:
    """The merge in another process, which may write no larger files and tells its peak memory before and after."""
    paths = os.pathsep.join([str(HELPERS), *sys.path])
    command = [sys.executable, "-c", MERGING, *parents, str(out), str(limit)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    parents = big_pair(tmp_path, num_layers=34)
    ran = merge_elsewhere(parents, tmp_path / "out")
    before, after = (int(word) / 1e3 for word in ran.stdout.split())  # MB
    assert (tmp_path / "out" / SINGLE).stat().st_size > 280e6 and after < before + 60, (before, after)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_an_end_in_the_middle_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    parents = big_pair(tmp_path, num_layers=34)
    place = tmp_path / "place"
    place.mkdir()
    process = subprocess.Popen(
        merge_command(parents, place / "out"),
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    while not list(place.glob(".out.*.tmp/out/*.safetensors")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(how)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error.strip()) == (130, b"interrupted") and not list(place.iterdir())


def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """A real file system of 10 MB for a merge of 25 MB."""
    parents = big_pair(tmp_path, num_layers=3)
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10M", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        with pytest.raises(OutputError, match=r"cannot write '.*': No space left on device; free some space or"):
            write_atomically(parents, place / "out")
        left = list(place.iterdir())
    finally:
        subprocess.run(["umount", place], check=True)
    assert not left


def test_a_file_that_may_not_grow_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """The limit of a file's size, which any user can set, stands for a quota."""
    parents = big_pair(tmp_path, num_layers=3)
    place = tmp_path / "place"
    place.mkdir()
    ran = merge_elsewhere(parents, place / "out", limit=20 * 10**6)
    assert ran.returncode == 1 and not list(place.iterdir())
    assert "File too large; free some space" in ran.stderr and len(ran.stderr.splitlines()) == 1


def test_an_output_error_in_the_stream_is_kept(pair_of: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merge = merge_of(*pair_of())

    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="No space left on device"):
        write_merge(tmp_path / "out", merge)
