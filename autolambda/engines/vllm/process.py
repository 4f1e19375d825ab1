"""Runs a vLLM engine in this process or in others, and ends each side when the other one dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import InvalidStateError
from contextlib import contextmanager, suppress
from typing import Any

DRIVER = "AUTOLAMBDA_DRIVER_PID"  # environment variable: the process that opened the engine
_POLL_SECONDS, _END_SECONDS = 0.5, 60.0


def runs_in_process() -> bool:
    """Whether an engine will run in this process: only on a CPU, unless the environment says otherwise."""
    from vllm import envs
    from vllm.platforms import current_platform

    os.environ[DRIVER] = str(os.getpid())
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # a fork copies the locks of this process's threads
    if current_platform.is_cpu():
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    return not envs.VLLM_ENABLE_V1_MULTIPROCESSING


@contextmanager
def held(engine_core: Any) -> Iterator[None]:
    """Keeps the engine's separate process from generating before it has all prompts of the block.

    Otherwise its batches, and with them the tokens that it draws, would depend on when each prompt arrives.
    """
    if not hasattr(engine_core, "outputs_queue"):
        yield
        return
    engine_core.call_utility("pause_scheduler", "keep", False)  # keeps requests, and the prefix cache
    yield
    engine_core.call_utility("resume_scheduler")


def runs_apart() -> bool:
    """Whether this process, one of vLLM's workers, is not the driver's."""
    return os.environ.get(DRIVER, str(os.getpid())) != str(os.getpid())


def end_with_driver() -> None:
    """Ends this process, and vLLM's engine core if that is another one, within a second after the driver.

    Left alone, the engine core outlives a driver that was killed, and keeps the GPU (0.26 to 0.33; vllm issue 55510).
    """
    threading.Thread(target=_end_with, args=(int(os.environ[DRIVER]),), daemon=True, name="driver-watch").start()


def _end_with(pid: int) -> None:
    import psutil  # comes with vLLM

    with suppress(psutil.NoSuchProcess):
        driver = psutil.Process(pid)  # knows its time of start, so another process with this id is not the driver
        while driver.is_running() and driver.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_POLL_SECONDS)
    core = multiprocessing.parent_process()  # or the driver, if the core is this process
    if core and core.pid and core.pid != pid and core.is_alive():
        os.kill(core.pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def await_end() -> None:
    """Waits until the engine's separate process has ended: it takes a while to free 100 GiB of pinned memory."""
    for process in multiprocessing.active_children():
        if process.name.startswith("EngineCore"):
            process.join(_END_SECONDS)


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
