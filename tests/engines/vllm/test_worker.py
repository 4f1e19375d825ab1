"""What a vLLM worker does besides merging, which test_engine.py tests."""

import os

import torch

from autolambda.engines.vllm.worker import _all_cores


def test_a_gpus_worker_merges_on_its_share_of_the_cores(monkeypatch):
    """vLLM leaves it one thread. GPUs of a host share its cores, and a CPU's worker keeps the threads that it has."""
    threads = [1]  # stands in for torch's, which vLLM replaces in a process with a CPU engine
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    with _all_cores():
        assert threads == [1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    with _all_cores():
        assert threads == [1, 3]
    assert threads == [1, 3, 1]
