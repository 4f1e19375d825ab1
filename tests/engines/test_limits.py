"""Limits for code of another's: it ends, it is told apart from what fails by itself, and nothing stays behind."""

import contextlib
import resource
import signal
import threading
import time

import pytest

from autolambda.engines.limits import LimitError, limited


def state():
    timer = signal.getitimer(signal.ITIMER_REAL)
    return signal.getsignal(signal.SIGALRM), timer, resource.getrlimit(resource.RLIMIT_AS)


def test_what_runs_for_too_long_is_ended_though_it_catches_exceptions():
    before, start = state(), time.monotonic()
    with pytest.raises(LimitError), limited(seconds=0.05, num_bytes=1 << 30):
        while True:
            with contextlib.suppress(Exception):
                sum(range(10**6))
    assert time.monotonic() - start < 10 and state() == before


def test_what_takes_too_much_memory_gets_none():
    before = state()
    with pytest.raises(MemoryError), limited(seconds=60, num_bytes=1 << 28):
        bytearray(1 << 29)
    assert state() == before


def test_an_error_of_its_own_stays_and_in_a_thread_nothing_is_limited():
    before = state()
    with pytest.raises(ZeroDivisionError), limited(seconds=1, num_bytes=1 << 30):
        raise ZeroDivisionError
    done = []

    def run():
        with limited(seconds=0.01, num_bytes=0):
            time.sleep(0.05)
            done.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done and state() == before
