"""Says in one line why vLLM failed and what to do about it.

vLLM's client only says that a separate process failed and that the reason was logged. So what these processes write to
stderr goes to a file, and the reason is the last exception in it. Whoever sets VLLM_LOGGING_LEVEL sees stderr, and the
log, on the terminal instead.
"""

from __future__ import annotations

import logging
import multiprocessing.util
import os
import re
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from autolambda.errors import AutolambdaError, ConfigError, EngineError, one_line, reason

HIDDEN = "CRITICAL"  # the VLLM_LOGGING_LEVEL of users who have not set it
MAX_REASON = 300  # characters
_MOST_BYTES = 1 << 20  # of stderr that are read
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_EXCEPTION = re.compile(r"(?:\([^)]*\) )?(?:[a-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Interrupt)|Exception)(?:: (.*))?")
_POINTS_ELSEWHERE = re.compile(r"see (the )?(root cause|stack trace)|engine ?core initialization failed", re.IGNORECASE)

_ADVICE = {
    "kv cache|cache blocks": (
        "lower sampling.max_tokens, or give more by engine.gpu_memory_utilization or tensor_parallel_size"
    ),
    "free memory on device": "end the processes that nvidia-smi shows, or lower engine.gpu_memory_utilization",
    "out of memory": (
        "lower engine.gpu_memory_utilization or engine.max_num_seqs, or raise engine.tensor_parallel_size"
    ),
    "driver.* too old|driver version is insufficient": (
        "update the NVIDIA driver, or install a vLLM built for its CUDA version"
    ),
    "nvcc|CUDA_HOME": "install the CUDA toolkit, or set VLLM_USE_FLASHINFER_SAMPLER=0",
    "compute capability": "set engine.dtype to float32, or use a newer GPU",
    "bootstrapping phase": "call autolambda below if __name__ == '__main__', because vLLM imports the script again",
}
"""What to do, by a pattern of what vLLM says."""


@contextmanager
def vllm_errors(doing: str, stderr: ProcessStderr | None = None) -> Iterator[None]:
    """Turns vLLM's errors into an ``EngineError`` of one line, or a ``ConfigError`` for a value that vLLM refuses.

    ``stderr`` is that of the engine's processes, which say there why they ended.
    """
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
        raise EngineError(f"vLLM failed while {doing}: {_in_words(error, stderr)}") from error


def with_advice(said: str) -> str:
    """Adds to what vLLM or its worker says what to do about it, if that is known."""
    known = (f"{said}; {advice}" for pattern, advice in _ADVICE.items() if re.search(pattern, said, re.IGNORECASE))
    return next(known, said)


def _in_words(error: Exception, stderr: ProcessStderr | None) -> str:
    name, said = type(error).__name__, reason(error, limit=MAX_REASON)
    ended = name == "EngineDeadError" or "Engine core initialization failed" in said
    if ended and stderr and (found := stderr.last_error()):
        said = one_line(found, limit=MAX_REASON)
    elif name == "EngineDeadError" or re.search(r"Failed core proc.*: -9\b", said):
        return "its process died or was killed, perhaps because memory ran out; see the system's log"
    advised = with_advice(said)
    if advised != said:
        return advised
    return f"{said}; {'VLLM_LOGGING_LEVEL=INFO shows its own log' if log_is_hidden() else 'its log says more'}"


def log_is_hidden() -> bool:
    """Whether vLLM's log is not shown."""
    return os.environ.get("VLLM_LOGGING_LEVEL") == HIDDEN


def log_errors() -> None:
    """Logs vLLM's errors to the stderr of this process, a worker: the driver gets no exception of a worker's start."""
    if not log_is_hidden():
        return
    logger, handler = logging.getLogger("vllm"), logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)


class ProcessStderr:
    """The stderr of the processes that are spawned while it is ``taken``, as long as they live."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115, open as long as this object
        self._start = 0  # of what says why a process failed
        weakref.finalize(self, self._file.close)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Gives processes that are spawned in the block the file as stderr. This process keeps its own."""
        if not log_is_hidden():
            yield
            return
        # a spawned process inherits descriptor 2, and can be given no other
        spawn = multiprocessing.util.spawnv_passfds

        def spawn_silently(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
            shown = os.dup(2)
            os.dup2(self._file.fileno(), 2)
            try:
                return spawn(path, args, passfds)
            finally:
                os.dup2(shown, 2)
                os.close(shown)

        multiprocessing.util.spawnv_passfds = spawn_silently
        try:
            yield
        finally:
            multiprocessing.util.spawnv_passfds = spawn
        self._start = os.fstat(self._file.fileno()).st_size  # the block went well, whatever was written

    def last_error(self) -> str | None:
        """Returns the message of the last exception that does not point to another one, or ``None``.

        What was written in a block of ``taken`` that ended without an error is left out.
        """
        file = self._file.fileno()
        start = max(self._start, os.fstat(file).st_size - _MOST_BYTES)
        text = os.pread(file, _MOST_BYTES, start).decode(errors="replace")
        return last_exception(text)


def last_exception(text: str) -> str | None:
    """Returns the message of the last exception in a log, or its type if it has none."""
    found = [match for line in text.splitlines() if (match := _EXCEPTION.fullmatch(_COLOUR.sub("", line).rstrip()))]
    said = [match[2] or match[1] for match in found]
    return next((each for each in reversed(said) if not _POINTS_ELSEWHERE.search(each)), None)
