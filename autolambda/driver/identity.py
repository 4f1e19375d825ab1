"""The identity of a study: everything that its results depend on, as flat keys named like config keys.

Contents (weights, template, vocabulary, prompts) are identified by their hash, not by their path.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from autolambda.config import Config, EngineConfig, EngineName
from autolambda.driver.models import Models
from autolambda.engines.device import vllm_device
from autolambda.engines.dtype import resolve_dtype
from autolambda.engines.transformers.loading import resolve_device
from autolambda.engines.vllm.arguments import rope_factors
from autolambda.engines.vllm.seeds import resolve_seeds
from autolambda.merging.pair import Pair
from autolambda.tasks.base import Slice
from autolambda.tasks.digest import digest, prompts_key

BATCH_SIZE = 256
"""Responses that transformers generates together by default."""

MACHINE_ARGUMENTS = frozenset(
    {
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "data_parallel_size",
        "data_parallel_backend",
        "enable_expert_parallel",
        "distributed_executor_backend",
        "device_ids",
        "numa_bind",
        "disable_custom_all_reduce",
        "ray_workers_use_nsight",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "num_gpu_blocks_override",
        "block_size",
        "swap_space",
        "cpu_offload_gb",
        "kv_offloading_size",
        "enable_sleep_mode",
        "max_model_len",
        "max_num_seqs",
        "max_num_batched_tokens",
        "long_prefill_token_threshold",
        "enable_chunked_prefill",
        "enable_prefix_caching",
        "scheduling_policy",
        "async_scheduling",
        "stream_interval",
        "enforce_eager",
        "compilation_config",
        "optimization_level",
        "performance_mode",
        "cudagraph_capture_sizes",
        "max_cudagraph_capture_size",
        "seed",
        "download_dir",
        "max_parallel_loading_workers",
        "safetensors_load_strategy",
        "use_tqdm_on_load",
        "disable_log_stats",
        "kv_cache_metrics",
        "cudagraph_metrics",
        "otlp_traces_endpoint",
        "collect_detailed_traces",
        "profiler_config",
    }
)
"""vLLM's arguments for parallelism, memory, scheduling, compilation, loading and logging. They change no result."""


def identity_of(
    config: Config, models: Models, *, engine: EngineName, slices: Sequence[Sequence[Slice]], context: int
) -> dict[str, Any]:
    """Returns the keys and values that a resumed study compares, for the ``engine`` that will run.

    ``slices`` are the slices of the search and of the confirmation. ``context`` is the number of tokens of the longest
    prompt and its response. Raises ``ConfigError`` if the device is missing or the dtype cannot hold the weights.
    """
    return {
        "models.instruct": models.pair.instruct.digest(),
        "models.thinking": models.pair.thinking.digest(),
        **{f"models.{role}": model.digest() for role, model in models.pair.further.items()},
        "models.prompt": _first_prompts(models, slices),
        **({"models.clock": models.moment.isoformat()} if models.reads_clock else {}),
        **{f"merge.{key}": value for key, value in models.pair.rounding.to_dict().items()},
        **{f"engine.{key}": value for key, value in _engine(config.engine, engine, models.pair, context).items()},
        "search.seed": config.search.seed,
        "search.knots": config.search.knots,
        **sizes_of(config, slices),
        **generation_settings(models),
    }


def generation_settings(models: Models) -> dict[str, Any]:
    """Returns the part of the identity that says how responses are asked for and drawn, which an export checks too."""
    chat = models.chat
    sampling = json.loads(json.dumps(asdict(models.sampling)))
    return {
        "models.chat_template": digest(
            chat.template,
            *(chat.template for chat in models.own_chats.values()),
            json.dumps(chat.kwargs, sort_keys=True),
        ),
        "models.tokenizer": models.settings.tokenizer,
        "models.vocabulary": digest(json.dumps(sorted(chat.tokenizer.get_vocab().items()))),
        "models.think_end": chat.think_end,
        **({"models.vision": models.pair.vision} if models.pair.outside else {}),
        **{f"sampling.{key}": value for key, value in sampling.items()},
    }


def _first_prompts(models: Models, slices: Sequence[Sequence[Slice]]) -> str:
    """Returns a digest of the first prompt of each slice, rendered and tokenized, which a grown study keeps.

    It notices what the template's text does not tell, such as another begin-of-sequence token.
    """
    chats = [models.chat, *models.own_chats.values()]
    texts = [chat.render(part.samples[0]) for chat in chats for phase in slices for part in phase]
    ids = models.chat.tokenizer(texts, add_special_tokens=False).input_ids
    return digest(*texts, json.dumps(ids))


def sizes_of(config: Config, slices: Sequence[Sequence[Slice]]) -> dict[str, Any]:
    """Returns the part of the identity that the slices of the search and of the confirmation determine."""
    return {
        "tasks": prompts_key(slices),
        "search.rungs": list(config.search.rungs_of(sum(part.num_responses for part in slices[0]))),
        "confirm.responses": sum(part.num_responses for part in slices[1]),
        "confirm.prompts": sum(len(part.samples) for part in slices[1]),
    }


def _engine(settings: EngineConfig, engine: EngineName, pair: Pair, context: int) -> dict[str, Any]:
    """Returns the part of the identity that the engine determines; ``name`` only for vLLM."""
    device = vllm_device() if engine == "vllm" else resolve_device(settings.device)
    dtype = str(resolve_dtype(settings.dtype, pair, device)).removeprefix("torch.")
    if engine == "transformers":
        return {"dtype": dtype, "batch_size": settings.batch_size or BATCH_SIZE}
    arguments = {key: value for key, value in settings.arguments.items() if key not in MACHINE_ARGUMENTS}
    rope = rope_factors(pair, settings.arguments, context=context)
    seeds = "request" if resolve_seeds(settings.seeds) == "request" else None  # without the key, it is "call"
    keys = {**arguments, "name": engine, "dtype": dtype, "batch_size": settings.batch_size, "rope": rope}
    return {key: value for key, value in {**keys, "seeds": seeds}.items() if value is not None}
