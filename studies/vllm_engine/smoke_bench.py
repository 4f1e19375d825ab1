"""What the steps of the smoke test share: the pairs, the engine that is open, child processes, and notes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from smoke_table import Device

CONTEXT = 4096  # tokens
SMALL, LARGE = "tiny", "4b"
HERE = Path(__file__).parent


class Bench:
    """Opens pairs and engines at their first use. One engine is open at a time.

    ``notes`` keeps what a later step compares with.
    """

    def __init__(self, device: Device, folder: Path) -> None:
        self.device, self.folder = device, folder
        self.notes: dict[str, Any] = {}
        self._pairs: dict[str, Any] = {}
        self._engine: Any = None

    @property
    def is_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def size(self) -> str:
        """The size of the pair that most steps merge."""
        return LARGE if self.is_gpu else SMALL

    @cached_property
    def models(self) -> Any:
        """The bundled pair with its prompts and chat format."""
        from autolambda.config_file import load_config
        from autolambda.driver.models import open_models

        return open_models(load_config(None, overrides={}))

    def pair(self, size: str) -> Any:
        """A synthetic pair, written at its first use."""
        from bench import synthetic

        if size not in self._pairs:
            (self.folder / size).mkdir()
            self._pairs[size] = synthetic(size, self.folder / size)
        return self._pairs[size]

    def engine(self) -> Any:
        """The engine that most steps use."""
        return self._engine or self.open(self.pair(self.size))

    def open(self, pair: Any, **settings: Any) -> Any:
        """Opens an engine in place of the one that is open, with one seed per request."""
        from autolambda.engines.chat import load_tokenizer
        from autolambda.engines.vllm.engine import VllmEngine

        self.close()
        settings = {"context": CONTEXT, "seeds": "request"} | settings
        self._engine = VllmEngine(pair, tokenizer=load_tokenizer(pair.thinking.folder), **settings)
        return self._engine

    def close(self) -> None:
        """Closes the engine that is open."""
        engine, self._engine = self._engine, None
        if engine:
            engine.close()

    def prompts(self, number: int) -> list[Any]:
        """Prompts of the bundled task, each with a seed of its own."""
        from bench import prompts_of

        from autolambda.tasks.requests import derive_seed

        return [replace(prompt, seed=derive_seed(prompt.seed)) for prompt in prompts_of(self.models, number)]

    def sampling(self, *, max_tokens: int, temperature: float = 1.0) -> Any:
        """A sampling whose penalty keeps random weights from repeating one token."""
        return replace(self.models.sampling, temperature=temperature, presence_penalty=1.0, max_tokens=max_tokens)

    def kill(self) -> None:
        """Kills all processes that this one has started."""
        import psutil

        for process in psutil.Process().children(recursive=True):
            process.kill()

    @contextmanager
    def driver(self, size: str, **arguments: Any) -> Iterator[subprocess.Popen[str]]:
        """Starts another driver with an engine of its own (``smoke_driver.py``), which is killed at the end."""
        self.pair(size)
        command = [sys.executable, "-W", "ignore", HERE / "smoke_driver.py", self.folder / size, json.dumps(arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            process.kill()


def set_lambda(engine: Any, lam: float) -> None:
    """Sets a uniform lambda."""
    from autolambda.merging.method import Method
    from autolambda.schedule import Schedule

    engine.set_merge(Method.linear(Schedule.uniform(lam)))


@contextmanager
def one_seed_per_call(engine: Any) -> Iterator[None]:
    """Lets an engine draw a call's tokens from one stream, as vLLM's fused samplers do."""
    before, engine._seeds = engine._seeds, "call"
    try:
        yield
    finally:
        engine._seeds = before
