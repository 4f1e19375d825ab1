"""An engine around another that holds one merge by another method, whatever schedule it is asked for.

With it a baseline is measured as a schedule is: by the same code, on the same engine, in place.
"""

from __future__ import annotations

from collections.abc import Sequence

from autolambda.engines.base import Engine, Fingerprint, Prompt, Sampling, Watch
from autolambda.merging.method import Method
from autolambda.responses import Response
from autolambda.schedule import Schedule


class MethodEngine:
    """Implements ``engines.base.Engine`` around another engine, which it leaves open: the next schedule is its own."""

    def __init__(self, engine: Engine, method: Method) -> None:
        self._engine, self._method = engine, method
        self.streams = engine.streams
        self.in_words = f"{engine.in_words}, holding {method}"

    def set_schedule(self, schedule: Schedule) -> None:
        """Merges by the method in place in the engine inside."""
        self._engine.set_method(self._method)

    def set_method(self, method: Method) -> None:
        """Merges by another method in the engine inside."""
        self._engine.set_method(method)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        """The engine's own responses."""
        return self._engine.generate(prompts, sampling, watch=watch)

    def fingerprint(self) -> Fingerprint:
        """That of the engine inside."""
        return self._engine.fingerprint()

    def close(self) -> None:
        """Closes the engine inside."""
        self._engine.close()
