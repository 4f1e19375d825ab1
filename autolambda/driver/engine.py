"""Opens the engine of a job: one in this process, or one in each of several workers.

A worker opens the job from its config. It takes the device kind and the dtype of the driver's machine, so all responses
are comparable. The engine of a run is opened at its first use, and replaced if it fails.
"""

from __future__ import annotations

import functools
import math
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from autolambda.config import EngineName, parse_config
from autolambda.driver.job import Job
from autolambda.driver.models import open_models
from autolambda.engines.base import Engine
from autolambda.engines.device import vllm_device
from autolambda.engines.transformers.engine import SMALL, TransformersEngine
from autolambda.engines.transformers.loading import resolve_device
from autolambda.engines.vllm.engine import VllmEngine
from autolambda.engines.workers.cluster import Share
from autolambda.engines.workers.engine import WorkersEngine
from autolambda.errors import CheckpointError, ConfigError, EngineError


class FailedTwice(EngineError):
    """Two engines failed in one evaluation, one after the other."""


class EngineSupervisor:
    """Holds the given engine, or opens the job's engine at its first use and replaces it if it fails."""

    def __init__(self, job: Job, given: Engine | None, on_note: Callable[[str], None]) -> None:
        self._job, self._given, self._on_note = job, given, on_note
        self._opened: Engine | None = None

    def __call__(self) -> Engine:
        """Returns the open engine. Raises like ``open_engine``."""
        if self._given:
            return self._given
        if self._opened is None:
            self._on_note(f"engine: {self._job.engine_in_words}")
            self._opened = open_engine(self._job, on_note=self._on_note)
            if self._opened.in_words != self._job.engine_in_words:
                self._on_note(f"engine: {self._opened.in_words}")
        return self._opened

    def close(self) -> None:
        """Closes the engine if it was opened here. The next use opens another one."""
        opened, self._opened = self._opened, None
        if opened:
            opened.close()

    @contextmanager
    def attempt(self, *, is_last: bool) -> Iterator[None]:
        """If an engine that was opened here fails in the block, closes it and ends the block without an error.

        Raises ``FailedTwice`` instead if ``is_last``, and ``EngineError`` if no engine opens or the given one fails.
        """
        try:
            yield
            return
        except EngineError as error:
            if self._opened is None:
                raise
            if is_last:
                self.close()
                raise FailedTwice(str(error)) from error
            reason = str(error)
        # outside the handler, because the error's frames hold memory of the failed engine
        self.close()
        self._on_note(f"the engine failed ({reason}); once more with a new one")


def open_engine(job: Job, *, on_note: Callable[[str], None] = lambda note: None) -> Engine:
    """Opens the engine of the job in this process, or with ``engine.workers`` one engine in each of several workers.

    Calls ``on_note`` when a worker fails. Raises ``ConfigError`` or ``EngineError`` if no engine can be opened.
    """
    if job.config.engine.workers == 1:
        return _open_here(job)
    share = share_of(job)
    return WorkersEngine(
        functools.partial(
            _open_there,
            _config_there(job, share),
            job.engine,
            job.context,
            dict(job.identity),
            further=tuple(job.models.pair.further),
            home=socket.gethostname(),
            sharing=job.config.engine.workers,
        ),
        num_workers=job.config.engine.workers,
        share=share,
        batch_size=job.batch_size if job.engine == "transformers" else None,
        on_note=on_note,
    )


def share_of(job: Job) -> Share:
    """Returns the CPUs and GPUs of each worker. Raises ``ConfigError`` if the config names a single GPU."""
    engine = job.config.engine
    if job.engine == "vllm":
        if vllm_device().type == "cpu" or engine.arguments.get("distributed_executor_backend") == "ray":
            return Share(num_gpus=0, num_cpus=1)  # with Ray as its executor, vLLM asks Ray for GPUs itself
        sizes = (engine.arguments.get(f"{name}_parallel_size", 1) for name in ("tensor", "pipeline"))
        return Share(num_gpus=math.prod(size for size in sizes if isinstance(size, int)), num_cpus=0)
    device = resolve_device(engine.device)
    if device.index is not None:
        raise ConfigError(
            f"engine.device: '{engine.device}' names one GPU, and each worker gets its own; set it to cuda"
        )
    if device.type == "cuda":
        return Share(num_gpus=1, num_cpus=0)
    cores = (os.cpu_count() or 1) // engine.workers if job.models.pair.num_parameters >= SMALL else 1
    return Share(num_gpus=0, num_cpus=engine.threads or max(cores, 1))


def _config_there(job: Job, share: Share) -> dict[str, Any]:
    """Returns the config of a worker: one engine, with the device kind and dtype of the driver's machine."""
    engine = job.config.engine.model_copy(update={"workers": 1, "dtype": job.identity["engine.dtype"]})
    if job.engine == "transformers":
        on_cpu = {"device": "cpu", "threads": share.num_cpus}
        engine = engine.model_copy(update=on_cpu if share.num_cpus else {"device": "cuda"})
    return job.config.model_copy(update={"engine": engine}).model_dump(mode="json")


def _open_there(
    plain: Mapping[str, Any],
    engine: EngineName,
    context: int,
    identity: Mapping[str, Any],
    *,
    further: Sequence[str],
    home: str,
    sharing: int,
) -> Engine:
    """Opens the engine of a job in a worker. If its host is not ``home``, its files must hold equal weights.

    Raises ``InputError`` if they do not, and otherwise like ``open_engine``.
    """
    config = parse_config(plain)
    models = open_models(config, further=further)
    pair = models.pair
    for role, model in {"instruct": pair.instruct, "thinking": pair.thinking, **pair.further}.items():
        if socket.gethostname() != home and model.digest() != identity[f"models.{role}"]:
            raise CheckpointError(
                f"models.{role}: '{model.source}' holds other weights on {socket.gethostname()} than where the search "
                "runs; give each machine the same files"
            )
    return _open_here(Job(config, models, (), (), engine, context, identity), sharing=sharing)


def _open_here(job: Job, *, sharing: int = 1) -> Engine:
    engine, pair, tokenizer = job.config.engine, job.models.pair, job.models.chat.tokenizer
    if job.engine == "vllm":
        return VllmEngine(
            pair,
            tokenizer=tokenizer,
            context=job.context,
            dtype=engine.dtype,
            merge=engine.merge,
            parents=engine.parents,
            seeds=job.identity.get("engine.seeds", "call"),
            arguments=engine.arguments,
            sharing=sharing,
        )
    return TransformersEngine(
        pair, tokenizer=tokenizer, device=engine.device, dtype=engine.dtype, threads=engine.threads
    )
