"""Why vLLM failed, in one line: from an exception, or from what its processes wrote to stderr."""

import multiprocessing
import os
import sys

import pytest

from autolambda.engines.vllm.failures import (
    HIDDEN,
    ProcessStderr,
    last_exception,
    log_errors,
    vllm_errors,
    with_advice,
)
from autolambda.errors import EngineError

POINTER = "Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for"
STARTING = "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("(EngineCore pid=7) Traceback (most\n(EngineCore pid=7) ValueError: too small: 1", "too small: 1"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB", "CUDA out of memory. Tried 2 GiB"),
        ("\x1b[0;36m(Worker pid=7)\x1b[0;0m RuntimeError: no driver\n" + POINTER, "no driver"),
        ("AssertionError", "AssertionError"),
        ("KeyError: 'a'\nRuntimeError: later", "later"),
        ("the first warning\nanother: line", None),
        (f"RuntimeError: {STARTING}", None),
    ],
)  # fmt: skip
def test_the_reason_is_the_last_exception_that_points_to_no_other(log, said):
    assert last_exception(log) == said


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("No available memory for the cache blocks", "lower sampling.max_tokens, or give more by"),
        ("Free memory on device cuda:0 (1/79 GiB) on startup is less", "end the processes that nvidia-smi shows"),
        ("CUDA out of memory. Tried to allocate 2 GiB", "lower engine.gpu_memory_utilization or engine.max_num_seqs"),
        ("The NVIDIA driver on your system is too old (found version 12040)", "update the NVIDIA driver"),
        ("Could not find nvcc and default cuda_home", "install the CUDA toolkit"),
        ("Bfloat16 is only supported on GPUs with compute capability of at least 8.0", "set engine.dtype to float32"),
    ],
)
def test_what_to_do(said, advice):
    assert with_advice(said).startswith(f"{said}; {advice}")


def test_what_is_not_known_is_left_as_it_is():
    assert with_advice("no such thing") == "no such thing"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("odd"), "odd; VLLM_LOGGING_LEVEL=INFO shows its own log"),
        (RuntimeError(STARTING.replace("1}", "-9}")), "its process died or was killed, perhaps because memory ran out"),
        (MemoryError(), "MemoryError; "),
    ],
)
def test_an_error_is_one_line(monkeypatch, error, expected):
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", HIDDEN)
    with pytest.raises(EngineError) as caught, vllm_errors("starting"):
        raise error
    assert str(caught.value).startswith(f"vLLM failed while starting: {expected}")
    assert "\n" not in str(caught.value)


def fail() -> None:
    raise ValueError("Free memory on device cuda:0 is less than desired")


def run(target) -> int:
    process = multiprocessing.get_context("spawn").Process(target=target)
    process.start()
    process.join()
    return process.exitcode


def test_what_a_process_writes_is_kept_and_not_shown(monkeypatch, capfd):
    """As vLLM's client does: the process ends, and the error points to a log."""
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", HIDDEN)
    stderr = ProcessStderr()
    with pytest.raises(EngineError) as caught, vllm_errors("starting", stderr), stderr.taken():
        assert run(fail) == 1
        os.write(2, b"of this process")
        raise RuntimeError(STARTING)
    assert str(caught.value) == (
        "vLLM failed while starting: Free memory on device cuda:0 is less than desired; end the processes that "
        "nvidia-smi shows, or lower engine.gpu_memory_utilization"
    )
    assert capfd.readouterr().err == "of this process"
    run(fail)
    assert "ValueError: Free memory" in capfd.readouterr().err  # as before


def test_who_reads_vllms_log_sees_it_all(monkeypatch, capfd):
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")
    stderr = ProcessStderr()
    with stderr.taken():
        run(fail)
    assert "ValueError: Free memory" in capfd.readouterr().err
    assert stderr.last_error() is None


def log_as_a_worker() -> None:
    import logging

    logging.getLogger("vllm").setLevel(HIDDEN)
    log_errors()
    try:
        raise ValueError("no room")
    except ValueError:
        logging.getLogger("vllm.v1.executor").exception("WorkerProc failed to start.")
    sys.exit(POINTER)


def test_a_worker_logs_what_it_does_not_raise(monkeypatch):
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", HIDDEN)
    stderr = ProcessStderr()
    with pytest.raises(EngineError, match="vLLM failed while starting: no room; "):  # noqa: SIM117
        with vllm_errors("starting", stderr), stderr.taken():
            run(log_as_a_worker)
            raise RuntimeError(STARTING)


def test_what_was_said_at_a_good_start_is_no_reason(monkeypatch):
    """The engine's process is killed later, and says nothing about it."""
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", HIDDEN)
    stderr = ProcessStderr()
    with stderr.taken():
        run(fail)
    assert stderr.last_error() is None
