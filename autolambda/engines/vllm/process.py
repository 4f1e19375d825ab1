"""Runs a vLLM engine in this process or another one, translates vLLM's errors, and notices its death."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import InvalidStateError
from contextlib import contextmanager, suppress
from typing import Any

import torch
from pydantic import ValidationError

from autolambda.errors import AutolambdaError, ConfigError, EngineError, one_line, reason

MAX_REASON = 300  # characters
_POLL_SECONDS = 0.5


def runs_in_process() -> bool:
    """Whether an engine will run in this process: only on a CPU, unless the environment says otherwise.

    In this process, batches depend on the prompts only. A separate process takes prompts while it already generates.
    """
    from vllm import envs
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    else:
        os.environ.setdefault("VLLM_WORKER_MULTIPROCESSING_METHOD", "spawn")
    return not envs.VLLM_ENABLE_V1_MULTIPROCESSING


def wake_when_dead(engine_core: Any) -> threading.Event:
    """Wakes up waiting callers when the engine's separate process dies, until the returned event is set.

    vLLM's client notices the death, but callers that wait for an answer would wait for ever (0.26 to 0.32).
    """
    closed = threading.Event()
    if hasattr(engine_core, "outputs_queue"):
        threading.Thread(target=_watch, args=(engine_core, closed), daemon=True, name="engine-watch").start()
    return closed


def _watch(engine_core: Any, closed: threading.Event) -> None:
    while not engine_core.resources.engine_dead:
        if closed.wait(_POLL_SECONDS):
            return
    from vllm.v1.engine.exceptions import EngineDeadError

    died = EngineDeadError()
    engine_core.outputs_queue.put_nowait(died)
    for future in list(engine_core.utility_results.values()):
        with suppress(InvalidStateError):  # answered just before
            future.set_exception(died)


@contextmanager
def vllm_errors(doing: str) -> Iterator[None]:
    """Turns vLLM's errors into an ``EngineError`` of one line, or a ``ConfigError`` for a value that vLLM refuses."""
    try:
        yield
    except AutolambdaError:
        raise
    except ValidationError as error:  # of vLLM's configuration
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "its arguments"
        raise ConfigError(
            f"engine: vLLM refuses {key}: {one_line(first['msg'].removeprefix('Value error, '), limit=MAX_REASON)}"
        ) from error
    except Exception as error:  # any library below vLLM can raise
        raise EngineError(f"vLLM failed while {doing}: {_with_advice(error)}") from error


def _with_advice(error: Exception) -> str:
    """Says in one line what went wrong and what to do."""
    if type(error).__name__ == "EngineDeadError":
        return "its process died or was killed, perhaps because memory ran out; see the system's log"
    said, advice = reason(error, limit=MAX_REASON), "VLLM_LOGGING_LEVEL=INFO shows its own log"
    if "kv cache" in said.lower() or "cache blocks" in said.lower():
        advice = "lower sampling.max_tokens, or give more by engine.gpu_memory_utilization or tensor_parallel_size"
    elif isinstance(error, torch.OutOfMemoryError) or "out of memory" in said.lower():
        advice = "lower engine.gpu_memory_utilization or engine.max_num_seqs, or raise engine.tensor_parallel_size"
    return f"{said}; {advice}"
