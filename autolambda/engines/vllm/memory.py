"""Chooses which memory holds the parents of a vLLM engine: the GPU's, the host's, or files."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass

from autolambda.engines.vllm.snapshot import ParentMemory
from autolambda.errors import ConfigError, EngineError

# Parents on the GPU shrink the KV cache. Parents in pinned host memory cost some tenths of a second per merge.
SMALL_SHARE = 0.15
OVERHEAD = 2 << 30  # bytes, roughly: activations, CUDA graphs and libraries


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


def choose_memory(need: Need, free: FreeMemory, *, asked: str, num_gpus: int = 1) -> ParentMemory:
    """Returns the memory for the two parents: ``asked``, or with "auto" the fastest that is large enough.

    Prefers the GPU if the parents take little from the KV cache, then pinned host memory, then memory-mapped files.
    Raises ``ConfigError`` if a GPU is asked for and missing, ``EngineError`` if memory is short.
    """
    both = 2 * need.weights
    if free.gpu is None and asked == "gpu":
        raise ConfigError("engine.parents: gpu, but vLLM runs on the CPU; use auto, host or files")
    if free.gpu is not None:
        left = free.gpu - OVERHEAD - need.weights - need.cache
        _check(left, "on the GPU for the model and one response of full length", _ADVICE_GPU)
        if asked == "gpu":
            _check(left - both, "on the GPU for the model and both parents", "set engine.parents to host or files")
        if asked == "gpu" or (asked == "auto" and both <= SMALL_SHARE * left):
            return "gpu"
    if asked != "files":
        missing = free.host - both * num_gpus
        if asked == "host":
            _check(missing, "in host memory for both parents", "set engine.parents to files")
        if missing >= 0:
            return "host"
    _check(free.disk - both * num_gpus, f"on the disk of {tempfile.gettempdir()} for both parents", _ADVICE_DISK)
    return "files"


_ADVICE_GPU = "raise engine.tensor_parallel_size, or lower sampling.max_tokens"
_ADVICE_DISK = "set TMPDIR to a larger disk, or engine.merge to stream"


def measure_free_memory(*, gpu_bytes: int | None, sharing: int = 1) -> FreeMemory:
    """Measures the free memory of this host and the free space for temporary files.

    ``gpu_bytes`` is vLLM's share of a GPU. Host and disk are divided by ``sharing``, the number of engines that may
    open on this host at the same time.
    """
    host = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    disk = shutil.disk_usage(tempfile.gettempdir()).free
    return FreeMemory(gpu_bytes, _available(host) // sharing, disk // sharing)


def _available(fallback: int) -> int:
    """Returns the bytes of memory available without swapping, page cache included (Linux), or ``fallback``."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return fallback


def _check(left: int, what: str, advice: str) -> None:
    if left < 0:
        raise EngineError(f"not enough memory: {-left / 2**30:.1f} GiB are missing {what}; {advice}")
