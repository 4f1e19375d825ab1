"""Where the parents of a vLLM engine live, and how much memory that leaves for its KV cache."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass

from autolambda.engines.vllm.parents import Home
from autolambda.errors import ConfigError, EngineError

# On the GPU they cost KV cache in every step; from pinned memory, some tenths of a second at every switch.
SMALL_SHARE = 0.15
OVERHEAD = 2 << 30  # bytes of activations, CUDA graphs and libraries that vLLM needs besides, roughly


@dataclass(frozen=True)
class Need:
    """Bytes a GPU: the ``weights`` of one model, and the ``cache`` of one sequence of full length."""

    weights: int
    cache: int


@dataclass(frozen=True)
class Room:
    """Bytes: what vLLM may take of one GPU (``gpu``, None without), and what the ``host`` and the disk have free."""

    gpu: int | None
    host: int
    disk: int


def choose_home(need: Need, room: Room, *, asked: str, num_gpus: int = 1) -> Home:
    """Where the two parents go: ``asked``, or by the free memory. Raises where it cannot be.

    The GPU for parents that take little of what the KV cache would get, else pinned host memory, else files that are
    mapped. Raises ``ConfigError`` for a GPU that is not there, ``EngineError`` with what is missing.
    """
    both = 2 * need.weights
    if room.gpu is None and asked == "gpu":
        raise ConfigError("engine.parents: gpu, but there is none; use auto, host or files")
    if room.gpu is not None:
        left = room.gpu - OVERHEAD - need.weights - need.cache
        _check(left, "on the GPU for the model and one response of full length", _ADVICE_GPU)
        if asked == "gpu":
            _check(left - both, "on the GPU for the model and both parents", "set engine.parents to host or files")
        if asked == "gpu" or (asked == "auto" and both <= SMALL_SHARE * left):
            return "gpu"
    if asked != "files":
        missing = room.host - both * num_gpus
        if asked == "host":
            _check(missing, "in host memory for both parents", "set engine.parents to files")
        if missing >= 0:
            return "host"
    _check(room.disk - both * num_gpus, f"on the disk of {tempfile.gettempdir()} for both parents", _ADVICE_DISK)
    return "files"


_ADVICE_GPU = "raise engine.tensor_parallel_size, or lower sampling.max_tokens"
_ADVICE_DISK = "set TMPDIR to a larger disk, or engine.merge to stream"


def measure_room(*, gpu_bytes: int | None, sharing: int = 1) -> Room:
    """The free memory of this host and the free space where temporary files go; ``gpu_bytes`` is vLLM's share.

    Of ``sharing`` engines that may be on one host, all opened at once, each has its part.
    """
    host = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    disk = shutil.disk_usage(tempfile.gettempdir()).free
    return Room(gpu_bytes, _available(host) // sharing, disk // sharing)


def _available(fallback: int) -> int:
    """Memory that can be had without swapping, page cache included (Linux)."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return fallback


def _check(left: int, what: str, advice: str) -> None:
    if left < 0:
        raise EngineError(f"not enough memory: {-left / 2**30:.1f} GiB are missing {what}; {advice}")
