"""The Ray cluster of the workers: started on this machine for this command, or joined by ``RAY_ADDRESS``.

Ray places the workers, restarts them when they end, and watches its machines. Only this folder imports Ray, and only
for several workers.
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
NOTE_SECONDS, START_SECONDS = 30.0, 600.0  # waiting for workers to start: until a note, until an error

# Ray reads these when it is imported or starts its own processes.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of a change to come
    "RAY_process_group_cleanup_enabled": "1",  # child processes end with their worker, even a killed one
    "RAY_worker_niceness": "0",  # else 15, at which anything else on the machine starves a worker
}


@dataclass(frozen=True)
class Share:
    """The resources of one worker: whole GPUs, or cores if the engine runs on a CPU."""

    num_gpus: int
    num_cpus: int

    @property
    def unit(self) -> str:
        return "GPU" if self.num_gpus else "CPU"

    @property
    def amount(self) -> int:
        return self.num_gpus or self.num_cpus


def check_ray() -> None:
    """Raises ``ConfigError`` if Ray is not installed."""
    if find_spec("ray") is None:
        raise ConfigError("engine.workers: several need ray; pip install 'autolambda[ray]', or set engine.workers to 1")


@contextmanager
def connected() -> Iterator[None]:
    """Connects to the cluster of ``RAY_ADDRESS``, or starts one on this machine that ends with the context.

    An existing connection of this process is used and left open. Raises ``ConfigError`` if the cluster cannot be
    reached.
    """
    check_ray()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    with _signals_kept():
        try:
            _check_reachable(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **local)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"engine.workers: Ray at '{address}' cannot be used ({one_line(error)}); correct RAY_ADDRESS, set "
                "RAY_AUTH_MODE=token if the cluster is guarded by one, or unset RAY_ADDRESS to use this machine alone"
            ) from error
    try:
        with _messages_hidden():
            yield
    finally:
        with _signals_kept():
            ray.shutdown()


@contextmanager
def _messages_hidden() -> Iterator[None]:
    """Hides Ray's messages about lost workers, because the dispatcher reports them.

    No public option hides them, not even ``log_to_driver=False`` (Ray 2.60).
    """
    import ray

    module = ray._private.worker
    before, module._worker_logs_enabled = module._worker_logs_enabled, False
    try:
        yield
    finally:
        module._worker_logs_enabled = before


def _check_reachable(address: str) -> None:
    """Raises ``OSError`` if nothing listens at ``HOST:PORT``, because Ray would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def check_room(share: Share, num_workers: int) -> None:
    """Raises ``ConfigError`` if the machines of the cluster cannot hold all workers."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # upstream
    total = sum(int(node.get(share.unit, 0)) for node in nodes)
    fits = sum(int(node.get(share.unit, 0)) // share.amount for node in nodes)
    if fits < num_workers:
        where = "this machine has" if len(nodes) == 1 else f"the {len(nodes)} machines of the Ray cluster have"
        advice = f"set it to {fits} at most" if fits > 1 else "leave it at 1"
        raise ConfigError(
            f"engine.workers: {num_workers} workers with {share.amount} {share.unit}{'s'[: share.amount > 1]} each are "
            f"asked for, and {where} {total} {share.unit}{'s'[: total != 1]}; {advice}, or add more machines"
        )


def start(worker: type[Any], share: Share, arguments: Sequence[object]) -> Any:
    """Starts a worker and returns its actor handle. Ray restarts the worker whenever it ends."""
    import ray

    return (
        ray.remote(worker)
        .options(
            num_gpus=share.num_gpus,
            num_cpus=0 if share.num_gpus else share.num_cpus,
            max_restarts=-1,
            max_concurrency=8,  # an abort is heard while a batch runs
        )
        .remote(*arguments)
    )


def addresses_of(actors: Sequence[Any], share: Share, *, on_note: Callable[[str], None]) -> list[WorkerAddress]:
    """Waits until all workers run, and returns their addresses. Calls ``on_note`` if that takes long.

    Raises ``ConfigError`` if some do not start within ``START_SECONDS``, ``EngineError`` if a process fails to start.
    """
    import ray

    pending = [actor.address.remote() for actor in actors]
    ready, missing = ray.wait(pending, num_returns=len(pending), timeout=NOTE_SECONDS)
    if missing:
        on_note(f"waiting for {len(missing)} workers: other work holds their {share.unit}s, or Python is slow to start")
        ready, _ = ray.wait(pending, num_returns=len(pending), timeout=START_SECONDS - NOTE_SECONDS)
    try:
        found: list[WorkerAddress] = ray.get(ready)
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]  # a traceback, then the error itself
        raise EngineError(f"a worker cannot be started: {one_line(lines[-1] if lines else repr(error))}") from error
    if len(found) < len(actors):
        raise ConfigError(
            f"engine.workers: {len(found)} of {len(actors)} workers started within {START_SECONDS:g} seconds; other "
            f"work holds the {share.unit}s, or Python is slow to start: set it to {max(len(found), 1)}, or try later"
        )
    return found


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keeps this process's handler for SIGTERM, which Ray replaces with its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
