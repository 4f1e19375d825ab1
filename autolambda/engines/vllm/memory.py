"""Chooses which memory holds the parents of a vLLM engine: the GPU's, the host's, or files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autolambda.engines.vllm.snapshot import ParentMemory
from autolambda.errors import ConfigError, EngineError

# Parents on the GPU shrink the KV cache. Parents in pinned host memory cost some tenths of a second per merge.
SMALL_SHARE = 0.15
OVERHEAD = 2 << 30  # bytes on a GPU, roughly: activations, CUDA graphs and libraries
HOST_OVERHEAD = 6 << 30  # bytes of host memory that vLLM takes for each GPU, roughly
_GROUP_FILES = {
    "": ("memory.max", "memory.current", ""),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}
"""Limit, usage and the prefix in memory.stat, by the controller in /proc/self/cgroup: version 2, and version 1."""


@dataclass(frozen=True)
class Need:
    """Bytes needed on each GPU: ``weights`` of a model, and the KV ``cache`` of a sequence of full length."""

    weights: int
    cache: int


@dataclass(frozen=True)
class FreeMemory:
    """Free bytes: ``gpu`` for vLLM on one GPU (``None`` on a CPU), ``host`` and ``disk`` in total."""

    gpu: int | None
    host: int
    disk: int


@dataclass(frozen=True)
class Placement:
    """The ``memory`` that holds models in the engine's layout, and of how many.

    The two parents come first, then the base model and a third parent. Without room for all, a merge that reads a
    further model reads all of its models from their files.
    """

    memory: ParentMemory
    num_models: int = 2


def choose_memory(
    need: Need, free: FreeMemory, *, asked: str, num_gpus: int = 1, fixed_cache: bool = False, num_models: int = 2
) -> ParentMemory:
    """Returns the memory for both parents, or more models: ``asked``, or with "auto" the fastest that is large enough.

    Prefers the GPU if the parents take little from the KV cache, then pinned host memory, then memory-mapped files.
    With a ``fixed_cache``, vLLM leaves no room for parents on the GPU. Raises ``ConfigError`` if the GPU is asked for
    and missing or without room, ``EngineError`` if memory is short.
    """
    both = num_models * need.weights
    if free.gpu is None and asked == "gpu":
        raise ConfigError("engine.parents: gpu, but vLLM runs on the CPU; use auto, host or files")
    if fixed_cache and asked == "gpu":
        raise ConfigError(
            "engine.parents: gpu needs a KV cache that vLLM fits to the free memory; leave out "
            "engine.kv_cache_memory_bytes and VLLM_ENABLE_STARTUP_PLAN, or set engine.parents to host"
        )
    if free.gpu is not None:
        left = free.gpu - OVERHEAD - need.weights - need.cache
        _check(left, "on the GPU for the model and one response of full length", _ADVICE_GPU)
        if asked == "gpu":
            _check(left - both, "on the GPU for the model and both parents", "set engine.parents to host or files")
        if asked == "gpu" or (asked == "auto" and both <= SMALL_SHARE * left and not fixed_cache):
            return "gpu"
    if asked != "files":
        itself = need.weights + need.cache if free.gpu is None else HOST_OVERHEAD
        left = free.host - (both + itself) * num_gpus
        if asked == "host":
            _check(left, "in host memory for both parents and vLLM itself", "set engine.parents to files")
        if left >= 0:
            return "host"
    _check(free.disk - both * num_gpus, f"on the disk of {tempfile.gettempdir()} for both parents", _ADVICE_DISK)
    return "files"


_ADVICE_GPU = "raise engine.tensor_parallel_size, or lower sampling.max_tokens"
_ADVICE_DISK = "set TMPDIR to a larger disk, or engine.merge to stream"


def measure_free_memory(*, gpu_bytes: int | None, sharing: int = 1) -> FreeMemory:
    """Measures the free memory of this host or container, and the free space for temporary files.

    ``gpu_bytes`` is vLLM's share of a GPU. Host and disk are divided by ``sharing``, the number of engines that may
    open on this host at the same time. A temporary folder in memory (tmpfs) has no more space than the host.
    """
    host = min([_available(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")), *rooms_in_groups()])
    disk = shutil.disk_usage(tempfile.gettempdir()).free
    if _is_in_memory(tempfile.gettempdir()):
        disk = min(disk, host)
    return FreeMemory(gpu_bytes, host // sharing, disk // sharing)


def _available(fallback: int) -> int:
    """Returns the bytes of memory available without swapping, page cache included (Linux), or ``fallback``."""
    try:
        return _fields(Path("/proc/meminfo").read_text("ascii"))["MemAvailable:"] * 1024
    except (OSError, KeyError, ValueError):
        return fallback


def rooms_in_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yields the bytes that are left in each control group of this process that limits its memory (Linux).

    Containers and batch systems set such limits, and the kernel kills processes above them. Page cache counts as used,
    but is given back.
    """
    try:
        lines = own.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in _GROUP_FILES:
            continue
        top = root / controllers
        names = _GROUP_FILES[controllers]
        inner = top / path.lstrip("/")
        for group in (inner, *(folder for folder in inner.parents if folder.is_relative_to(top))):
            try:
                limit, used = (int((group / name).read_text("ascii")) for name in names[:2])
                cached = _fields((group / "memory.stat").read_text("ascii"))
            except (OSError, ValueError):  # no such group, or "max"
                continue
            yield limit - used + sum(cached.get(f"{names[2]}{kind}_file", 0) for kind in ("active", "inactive"))


def _fields(text: str) -> dict[str, int]:
    """Returns the numbers of lines like ``MemFree: 12 kB`` by their first word."""
    return {words[0]: int(words[1]) for line in text.splitlines() if len(words := line.split()) > 1}


def _is_in_memory(folder: str) -> bool:
    """Whether a folder lies in a file system in memory (Linux)."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text("utf-8").splitlines()]
    except OSError:
        return False
    holding = [(place, kind) for place, kind in mounts if Path(folder).resolve().is_relative_to(place)]
    return max(holding, key=lambda mount: len(mount[0]), default=("", ""))[1] in ("tmpfs", "ramfs")


def _check(left: int, what: str, advice: str) -> None:
    if left < 0:
        raise EngineError(f"not enough memory: {-left / 2**30:.1f} GiB are missing {what}; {advice}")
