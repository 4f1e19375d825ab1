"""One seed per call of the vLLM engine, or one per request.

With one seed per call all tokens come from one stream of random numbers, so a response depends on the batch around it.
With one seed per request it does not, and schedules that are compared on equal seeds share their luck.

vLLM's second model runner, the default on a GPU, then draws in a Triton kernel instead of FlashInfer's, from the seed
and the position of the token. The first runner draws row by row. On a CPU this costs no speed (studies/vllm_engine),
but a prompt with a seed must not be prefilled in pieces: the runner fails then.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from packaging.version import Version

from autolambda.engines.base import Prompt
from autolambda.engines.device import vllm_device
from autolambda.engines.vllm.arguments import installed_version
from autolambda.errors import ConfigError
from autolambda.tasks.requests import derive_seed

Seeds = Literal["call", "request"]

_SECOND_RUNNER = Version("0.29")  # the first version that uses it for every model
_PREFILL = 8192  # tokens of prompts in one step on a CPU


def resolve_seeds(asked: Literal["auto", "call", "request"]) -> Seeds:
    """Returns what ``auto`` stands for: ``call`` on a GPU whose vLLM may use the first runner, else ``request``."""
    if asked != "auto":
        return asked
    if vllm_device().type == "cpu":
        return "request"
    is_second = Version(installed_version()) >= _SECOND_RUNNER and os.environ.get("VLLM_USE_V2_MODEL_RUNNER") != "0"
    return "request" if is_second else "call"


def arguments_for(seeds: Seeds, device: torch.device, *, context: int, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the ``asked`` engine arguments, with those without which vLLM fails on a CPU with a seed per request.

    Raises ``ConfigError`` if they ask for what fails.
    """
    if seeds == "call" or device.type != "cpu":
        return dict(asked)
    longest = max(context, int(asked.get("max_model_len") or 0))
    if asked.get("enable_chunked_prefill") or int(asked.get("max_num_batched_tokens") or longest) < longest:
        raise ConfigError(
            "engine.seeds: on a CPU vLLM cannot prefill a prompt in pieces with one seed per request; leave out "
            "engine.enable_chunked_prefill and engine.max_num_batched_tokens, or set engine.seeds to call"
        )
    return {"enable_chunked_prefill": False, "max_num_batched_tokens": max(longest, _PREFILL), **asked}


def seed_of_call(prompts: Sequence[Prompt]) -> int:
    """Derives one seed of 32 bits from the seeds of all prompts."""
    return derive_seed(",".join(str(prompt.seed) for prompt in prompts)) >> 31
