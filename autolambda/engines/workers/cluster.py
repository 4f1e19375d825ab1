"""The Ray cluster that workers run on: one of this command's own, or the one that ``RAY_ADDRESS`` names.

Ray places the workers, starts them again when they end, and watches its machines. It is imported here and in workers.py
alone, and only where there are several workers.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from autolambda.engines.workers.worker import WorkerAddress
from autolambda.errors import ConfigError, EngineError, one_line

CONNECT_SECONDS = 10.0
WAIT_SECONDS, PLACE_SECONDS = 30.0, 600.0  # for workers to start: until it is said, and until it is given up

# Read by Ray when it is imported or starts its own processes.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of a change to come
    "RAY_process_group_cleanup_enabled": "1",  # what a worker started ends with it, also where it is killed
    "RAY_worker_niceness": "0",  # else 15, at which anything else on the machine starves a worker
}


@dataclass(frozen=True)
class Share:
    """What one worker takes of a machine: whole GPUs, or cores where the engine runs on a CPU."""

    num_gpus: int
    num_cpus: int

    @property
    def unit(self) -> str:
        return "GPU" if self.num_gpus else "CPU"

    @property
    def amount(self) -> int:
        return self.num_gpus or self.num_cpus


def check_ray() -> None:
    """Raises ``ConfigError`` where Ray is not installed."""
    if find_spec("ray") is None:
        raise ConfigError("engine.workers: several need ray; pip install 'autolambda[ray]', or set engine.workers to 1")


def join() -> bool:
    """Connects to the cluster of ``RAY_ADDRESS``, or starts one on this machine; whether it is to be left at the end.

    A connection that this process has is used as it is. Raises ``ConfigError`` for a cluster that cannot be reached.
    """
    check_ray()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return False
    address = os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    with _signals_kept():
        try:
            _check_reachable(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"engine.workers: Ray at '{address}' cannot be used ({one_line(error)}); mend RAY_ADDRESS, set "
                "RAY_AUTH_MODE=token if the cluster is guarded by one, or unset RAY_ADDRESS to use this machine alone"
            ) from error
    # what befalls a worker is told by workers.py in its own words; Ray has no public switch for its own
    ray._private.worker._worker_logs_enabled = False
    return True


def _check_reachable(address: str) -> None:
    """Raises ``OSError`` where nobody listens at ``HOST:PORT``, for which Ray would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def leave() -> None:
    """Ends the connection, and a cluster of this command's own with all its processes."""
    import ray

    with _signals_kept():
        ray.shutdown()


def check_room(share: Share, num_workers: int) -> None:
    """Raises ``ConfigError`` where the machines that are there cannot hold all workers."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # upstream
    total = sum(int(node.get(share.unit, 0)) for node in nodes)
    fits = sum(int(node.get(share.unit, 0)) // share.amount for node in nodes)
    if fits < num_workers:
        where = "this machine has" if len(nodes) == 1 else f"the {len(nodes)} machines of the Ray cluster have"
        advice = f"set it to {fits} at most" if fits > 1 else "leave it at 1"
        raise ConfigError(
            f"engine.workers: {num_workers} workers with {share.amount} {share.unit}{'s'[: share.amount > 1]} each are "
            f"asked for, and {where} {total} {share.unit}{'s'[: total != 1]}; {advice}, or bring more machines"
        )


def start(worker: type[Any], share: Share, arguments: Sequence[object]) -> Any:
    """The handle of a new worker, which Ray starts again whenever it ends."""
    import ray

    return (
        ray.remote(worker)
        .options(
            num_gpus=share.num_gpus,
            num_cpus=0 if share.num_gpus else share.num_cpus,
            max_restarts=-1,
            max_concurrency=8,  # the longest question waits for news while others are answered
        )
        .remote(*arguments)
    )


def placed(actors: Sequence[Any], share: Share, *, on_note: Callable[[str], None]) -> list[WorkerAddress]:
    """Where workers run, once all do; ``on_note`` is told where that takes long.

    Raises ``ConfigError`` where some find no room for long, ``EngineError`` where a process cannot be started.
    """
    import ray

    questions = [actor.place.remote() for actor in actors]
    ready, missing = ray.wait(questions, num_returns=len(questions), timeout=WAIT_SECONDS)
    if missing:
        on_note(f"waiting for {len(missing)} workers: other work holds their {share.unit}s, or Python is slow to start")
        ready, _ = ray.wait(questions, num_returns=len(questions), timeout=PLACE_SECONDS - WAIT_SECONDS)
    try:
        found: list[WorkerAddress] = ray.get(ready)
    except ray.exceptions.RayError as error:
        raise EngineError(f"a worker cannot be started: {_last_line(error)}") from error
    if len(found) < len(actors):
        raise ConfigError(
            f"engine.workers: {len(found)} of {len(actors)} workers started within {PLACE_SECONDS:g} seconds; other "
            f"work holds the {share.unit}s, or Python is slow to start: set it to {max(len(found), 1)}, or try later"
        )
    return found


def _last_line(error: Exception) -> str:
    """The end of what Ray says: the error itself, after its traceback."""
    return one_line(next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__))


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts its own handler for SIGTERM in the place of ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
