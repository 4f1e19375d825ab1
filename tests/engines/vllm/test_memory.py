"""Where the parents go, by the memory there is."""

import re

import pytest

from autolambda.engines.vllm.memory import OVERHEAD, FreeMemory, Need, choose_memory, measure_free_memory
from autolambda.errors import ConfigError, EngineError

GIB = 1 << 30


def free(*, gpu=None, host=0, disk=0):
    return FreeMemory(None if gpu is None else int(gpu * GIB), int(host * GIB), int(disk * GIB))


SMALL = Need(int(1.2 * GIB), int(4 * GIB))  # 0.6 B in bfloat16, 32k tokens
MIDDLE = Need(8 * GIB, 5 * GIB)  # 4 B
LARGE = Need(61 * GIB, 3 * GIB)  # 30 B


@pytest.mark.parametrize(
    ("need", "there", "asked", "memory"),
    [
        (SMALL, free(gpu=72, host=100), "auto", "gpu"),
        (MIDDLE, free(gpu=72, host=100), "auto", "host"),  # a third of the KV cache for a tenth of a second
        (MIDDLE, free(gpu=72, host=100), "gpu", "gpu"),
        (LARGE, free(gpu=130, host=200), "auto", "host"),
        (LARGE, free(gpu=130, host=100, disk=500), "auto", "files"),
        (MIDDLE, free(host=100), "auto", "host"),
        (MIDDLE, free(host=1, disk=50), "auto", "files"),
        (MIDDLE, free(host=100, disk=50), "files", "files"),
        (SMALL, free(gpu=72, host=100), "host", "host"),
    ],
)
def test_parents_go_where_they_cost_least(need, there, asked, memory):
    assert choose_memory(need, there, asked=asked) == memory


@pytest.mark.parametrize(
    ("need", "there", "asked", "message"),
    [
        (LARGE, free(gpu=60, host=500), "auto", "6.0 GiB are missing on the GPU for the model and one response"),
        (LARGE, free(gpu=130, host=500), "gpu", "58.0 GiB are missing on the GPU for the model and both parents"),
        (LARGE, free(gpu=130, host=100), "host", "22.0 GiB are missing in host memory for both parents; set"),
        (LARGE, free(gpu=130, host=100, disk=100), "auto", "22.0 GiB are missing on the disk of"),
    ],
)
def test_what_is_missing_is_said_with_what_to_change(need, there, asked, message):
    assert OVERHEAD == 2 * GIB
    with pytest.raises(EngineError, match=re.escape(message)) as caught:
        choose_memory(need, there, asked=asked)
    assert re.search(r"; (set|raise|lower) ", str(caught.value))


def test_parents_of_all_ranks_share_one_host():
    assert choose_memory(MIDDLE, free(gpu=72, host=64), asked="host", num_gpus=4) == "host"
    with pytest.raises(EngineError, match=r"0\.5 GiB are missing in host memory"):
        choose_memory(MIDDLE, free(gpu=72, host=63.5), asked="host", num_gpus=4)


def test_a_gpu_that_is_not_there():
    with pytest.raises(ConfigError, match=r"engine\.parents: gpu, but vLLM runs on the CPU"):
        choose_memory(SMALL, free(host=100), asked="gpu")


def test_this_machine_has_some_free_memory():
    found = measure_free_memory(gpu_bytes=5)
    assert (found.gpu, found.host > 1 << 28, found.disk > 1 << 20) == (5, True, True)


def test_engines_that_share_a_machine_share_its_free_memory():
    """They open at once, and each would see all that is free: eight pinned copies exhaust a host."""
    alone, one_of_eight = measure_free_memory(gpu_bytes=5), measure_free_memory(gpu_bytes=5, sharing=8)
    assert one_of_eight.gpu == 5
    assert one_of_eight.host == pytest.approx(alone.host / 8, rel=0.3)
    assert one_of_eight.disk == pytest.approx(alone.disk / 8, rel=0.3)
