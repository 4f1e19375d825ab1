"""One seed per call, as always, or one per request: what a response depends on. On real vLLM."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from vllm_engines import needs_vllm, opened

from autolambda.engines.vllm.seeds import arguments_for, resolve_seeds
from autolambda.errors import ConfigError
from autolambda.merging.method import Method
from tests.engines.test_contract import MIXED, WARM, prompts

GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "version", "runner", "expected"),
    [
        (GPU, "0.33.0", None, "request"),
        (GPU, "0.29.0", None, "request"),
        (GPU, "0.28.0", None, "call"),  # mixtures of experts use the first runner
        (GPU, "0.33.0", "0", "call"),
        (GPU, "0.33.0", "1", "request"),
        (CPU, "0.26.0", None, "request"),
    ],
)
def test_auto_is_a_seed_per_request_unless_a_gpu_draws_row_by_row(monkeypatch, device, version, runner, expected):
    monkeypatch.setattr("autolambda.engines.vllm.seeds.vllm_device", lambda: device)
    monkeypatch.setattr("autolambda.engines.vllm.seeds.installed_version", lambda: version)
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
    if runner is not None:
        monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", runner)
    assert resolve_seeds("auto") == expected
    assert [resolve_seeds(seeds) for seeds in ("call", "request")] == ["call", "request"]


def test_only_seeds_of_requests_on_a_cpu_take_arguments():
    asked = {"max_model_len": 32_768}
    for seeds, device in (("call", CPU), ("request", GPU)):
        assert arguments_for(seeds, device, context=9, asked=asked) == asked
    assert arguments_for("request", CPU, context=10_000, asked={})["max_num_batched_tokens"] == 10_000
    given = arguments_for("request", CPU, context=10_000, asked=asked)
    assert given["max_num_batched_tokens"] == given["max_model_len"] == 32_768


@pytest.mark.parametrize("asked", [{"enable_chunked_prefill": True}, {"max_num_batched_tokens": 2048}])
def test_what_prefills_in_pieces_on_a_cpu_is_refused_with_a_seed_per_request(asked):
    with pytest.raises(ConfigError, match=r"set engine\.seeds to call"):
        arguments_for("request", CPU, context=4096, asked=asked)
    assert arguments_for("call", CPU, context=4096, asked=asked) == asked


@needs_vllm
@pytest.mark.usefixtures("one_thread")
def test_with_a_seed_a_request_draws_for_itself(parents):
    """Alone, in another order, beside others, and beside more tokens than one step prefills."""
    asked = [replace(prompt, seed=(1 << 62) + number) for number, prompt in enumerate(prompts(24))]
    long = [replace(prompt, text=prompt.text + "3 + 4 = " * 48) for prompt in prompts(30)]
    with opened(*parents, seeds="request") as engine:
        engine.set_merge(Method.linear(MIXED))
        whole = engine.generate(asked, WARM)
        assert engine.generate(asked[::-1], WARM)[::-1] == whole
        assert [engine.generate([prompt], WARM)[0] for prompt in asked[:4]] == whole[:4]
        assert engine.generate([*long, *asked], WARM)[30:] == whole
        one = replace(asked[0], seed=7)
        assert engine.generate([one, *asked[1:]], WARM)[1:] == whole[1:]
        assert engine.generate([one], WARM) != whole[:1]
        equal = engine.generate([replace(asked[0], seed=each) for each in range(16)], WARM)
        assert len({response.text for response in equal}) > 8  # neighbouring seeds do not draw alike


@needs_vllm
@pytest.mark.usefixtures("one_thread")
def test_with_a_seed_per_call_the_batch_counts(parents):
    with opened(*parents) as engine:
        engine.set_merge(Method.linear(MIXED))
        whole = engine.generate(prompts(24), WARM)
        assert engine.generate(prompts(24), WARM) == whole
        assert engine.generate(prompts(24)[::-1], WARM)[::-1] != whole
