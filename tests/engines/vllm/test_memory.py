"""Where the parents go, by the memory there is."""

import re
import tempfile
from pathlib import Path

import pytest
import torch

from autolambda.engines.vllm import memory
from autolambda.engines.vllm.memory import (
    HOST_OVERHEAD,
    OVERHEAD,
    FreeMemory,
    Need,
    choose_memory,
    measure_free_memory,
    rooms_in_groups,
)
from autolambda.engines.vllm.snapshot import layout
from autolambda.errors import ConfigError, EngineError

GIB = 1 << 30


def free(*, gpu=None, host=0, disk=0):
    return FreeMemory(None if gpu is None else int(gpu * GIB), int(host * GIB), int(disk * GIB))


SMALL = Need(int(1.2 * GIB), int(4 * GIB))  # 0.6 B in bfloat16, 32k tokens
MIDDLE = Need(8 * GIB, 5 * GIB)  # 4 B
LARGE = Need(61 * GIB, 3 * GIB)  # 30 B


@pytest.mark.parametrize(
    ("need", "there", "asked", "chosen"),
    [
        (SMALL, free(gpu=72, host=100), "auto", "gpu"),
        (MIDDLE, free(gpu=72, host=100), "auto", "host"),  # a third of the KV cache for a tenth of a second
        (MIDDLE, free(gpu=72, host=100), "gpu", "gpu"),
        (LARGE, free(gpu=130, host=200), "auto", "host"),
        (LARGE, free(gpu=130, host=100, disk=500), "auto", "files"),
        (LARGE, free(gpu=130, host=127, disk=500), "auto", "files"),  # some GiB are vLLM's
        (MIDDLE, free(host=100), "auto", "host"),
        (MIDDLE, free(host=28, disk=50), "auto", "files"),  # on a CPU the model lies there too
        (MIDDLE, free(host=1, disk=50), "auto", "files"),
        (MIDDLE, free(host=100, disk=50), "files", "files"),
        (SMALL, free(gpu=72, host=100), "host", "host"),
    ],
)
def test_parents_go_where_they_cost_least(need, there, asked, chosen):
    assert choose_memory(need, there, asked=asked) == chosen


@pytest.mark.parametrize(
    ("need", "there", "asked", "message"),
    [
        (LARGE, free(gpu=60, host=500), "auto", "6.0 GiB are missing on the GPU for the model and one response"),
        (LARGE, free(gpu=130, host=500), "gpu", "58.0 GiB are missing on the GPU for the model and both parents"),
        (
            LARGE,
            free(gpu=130, host=100),
            "host",
            "28.0 GiB are missing in host memory for both parents and vLLM itself; set",
        ),
        (LARGE, free(gpu=130, host=100, disk=100), "auto", "22.0 GiB are missing on the disk of"),
    ],
)
def test_what_is_missing_is_said_with_what_to_change(need, there, asked, message):
    assert (OVERHEAD, HOST_OVERHEAD) == (2 * GIB, 6 * GIB)
    with pytest.raises(EngineError, match=re.escape(message)) as caught:
        choose_memory(need, there, asked=asked)
    assert re.search(r"; (set|raise|lower) ", str(caught.value))


def test_parents_of_all_ranks_share_one_host():
    """And so does vLLM on each rank."""
    assert choose_memory(MIDDLE, free(gpu=72, host=88), asked="host", num_gpus=4) == "host"
    with pytest.raises(EngineError, match=r"0\.5 GiB are missing in host memory"):
        choose_memory(MIDDLE, free(gpu=72, host=87.5), asked="host", num_gpus=4)


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


def groups_of(folder, text, **files):
    """Control groups as Linux shows them: the file of this process, and files of the groups."""
    (folder / "own").write_text(text)
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return list(rooms_in_groups(folder, folder / "own"))


def test_a_container_may_have_less_than_its_host(tmp_path):
    """Version 2: the limit of any group around this process counts, and page cache does not."""
    found = groups_of(
        tmp_path,
        "0::/slurm/job/step\n",
        slurm__job__step__memory_dot_max="max\n",
        slurm__job__step__memory_dot_current="7\n",
        slurm__job__memory_dot_max="1000\n",
        slurm__job__memory_dot_current="700\n",
        slurm__job__memory_dot_stat="anon 300\nfile 420\nactive_file 150\ninactive_file 250\n",
        slurm__memory_dot_max="5000\n",
        slurm__memory_dot_current="1000\n",
        slurm__memory_dot_stat="anon 1000\n",
    )
    assert found == [700, 4000]


def test_a_container_by_version_1(tmp_path):
    """Docker names a group by its path on the host, which is not there in the container; the limit is at the top."""
    found = groups_of(
        tmp_path,
        "5:cpu:/docker/1\n4:memory:/docker/1\n",
        memory__memory_dot_limit_in_bytes="100\n",
        memory__memory_dot_usage_in_bytes="60\n",
        memory__memory_dot_stat="inactive_file 1\ntotal_inactive_file 20\ntotal_active_file 5\n",
    )
    assert found == [65]


def test_a_system_without_control_groups(tmp_path):
    assert list(rooms_in_groups(tmp_path, tmp_path / "own")) == []


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm")
def test_files_in_memory_have_no_more_room_than_memory(monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/dev/shm")
    monkeypatch.setattr(memory, "rooms_in_groups", lambda: [1 << 20])
    found = measure_free_memory(gpu_bytes=None)
    assert found.disk <= found.host == 1 << 20


def test_a_fixed_cache_leaves_no_room_for_parents_on_the_gpu():
    there = free(gpu=72, host=100)
    assert choose_memory(SMALL, there, asked="auto", fixed_cache=True) == "host"
    with pytest.raises(ConfigError, match=r"leave out engine\.kv_cache_memory_bytes and VLLM_ENABLE_STARTUP_PLAN"):
        choose_memory(SMALL, there, asked="gpu", fixed_cache=True)


def qwen3(*, hidden, layers, heads, head_dim, inner, experts=0, tied=False):
    """The shapes of Qwen3's parameters in vLLM, on no device, in bfloat16."""
    kv, vocabulary = 8 if not experts else 4, 151936
    shapes = {"embed_tokens": (vocabulary, hidden), "norm": (hidden,)}
    shapes |= {} if tied else {"lm_head": (vocabulary, hidden)}
    for i in range(layers):
        shapes |= {
            f"{i}.qkv_proj": ((heads + 2 * kv) * head_dim, hidden),
            f"{i}.o_proj": (hidden, heads * head_dim),
            **{f"{i}.{name}": (size,) for name, size in zip("qkab", (head_dim, head_dim, hidden, hidden), strict=True)},
        }
        if experts:
            shapes |= {f"{i}.w13": (experts, 2 * inner, hidden), f"{i}.w2": (experts, hidden, inner)}
            shapes |= {f"{i}.gate": (experts, hidden)}
        else:
            shapes |= {f"{i}.gate_up_proj": (2 * inner, hidden), f"{i}.down_proj": (hidden, inner)}
    return {name: torch.empty(shape, dtype=torch.bfloat16, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("sizes", "exact", "rounded"),
    [
        (dict(hidden=2560, layers=36, heads=32, head_dim=128, inner=9728, tied=True), 15.0, 20.0),
        (dict(hidden=4096, layers=36, heads=32, head_dim=128, inner=12288), 30.5, 41.8),
        (dict(hidden=2048, layers=48, heads=32, head_dim=128, inner=768, experts=128), 113.7, 152.5),
    ],
    ids=["Qwen3-4B", "Qwen3-8B", "Qwen3-30B-A3B"],
)
def test_both_parents_take_what_their_values_take(sizes, exact, rounded):
    """PyTorch's pinned memory would round every parameter up to a power of two, a third more."""
    live = qwen3(**sizes)
    _, size = layout(live, {name: tensor.dtype for name, tensor in live.items()})
    assert 2 * size / GIB == pytest.approx(exact, abs=0.05)
    assert 2 * size <= 1.0001 * 2 * sum(tensor.nbytes for tensor in live.values())
    blocks = sum(1 << (tensor.nbytes - 1).bit_length() for tensor in live.values())
    assert 2 * blocks / GIB == pytest.approx(rounded, abs=0.05)
