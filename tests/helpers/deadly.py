"""Engines for tests of workers, in a file of their own that a worker's process loads quickly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

from autolambda.engines.base import Engine, Fingerprint, Prompt, Sampling, Watch
from autolambda.errors import ConfigError, EngineError
from autolambda.merging.method import Method
from autolambda.responses import Response


class Deadly:
    """An engine that waits, fails, or ends its process if a prompt says so."""

    streams, in_words = True, "by hand"

    def set_merge(self, method: Method) -> None:
        pass

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        time.sleep(0.5 * sum(prompt.text == "wait" for prompt in prompts))
        if any(prompt.text == "die" for prompt in prompts):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(prompt.text == "fail" for prompt in prompts):
            raise EngineError("out of luck; try again")
        return [Response(prompt.text, 1, "stop") for prompt in prompts]

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(str(os.getpid()), whole=False)

    def close(self) -> None:
        pass


def refuse() -> Engine:
    """Stands in for an engine whose files are not there."""
    raise ConfigError("models.instruct: no such folder '/data/x'")
