"""The Qwen3-MoE pair of studies/moe_pair, trained like the bundled one: searched, measured by vLLM, exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from paths import ROOT
from small_search import NAME, small_config, storage_in
from transformers import AutoModelForCausalLM
from vllm_engines import needs_vllm

from autolambda.config import Config
from autolambda.driver.engine import open_engine
from autolambda.driver.job import open_job
from autolambda.driver.models import open_models
from autolambda.driver.search import evaluate, search
from autolambda.engines.base import Prompt
from autolambda.export.export import check_export, export
from autolambda.merging.merge import open_merge
from autolambda.merging.method import Method
from autolambda.merging.shards import parse_size
from autolambda.schedule import Schedule
from autolambda.statistics.metrics import Measured

PAIR = ROOT / "studies" / "moe_pair"


def moe_config(**changes: object) -> Config:
    folders = {f"models__{name}": str(PAIR / name) for name in ("instruct", "thinking")}
    return small_config(**{**folders, "tasks": [{"name": "arithmetic", "limit": 64, "repeats": 1}], **changes})


def overlap(one: Measured, other: Measured) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("accuracy", "mean_tokens", "think_ratio")]
    return all(left.low <= right.high and right.low <= left.high for left, right in pairs)


@pytest.mark.slow  # the export below evaluates a mixture of experts, and other tests search
def test_a_search_finds_the_stages_of_a_mixture_of_experts(tmp_path: Path) -> None:
    config = moe_config(
        tasks=[{"name": "arithmetic", "limit": 16, "repeats": 1}],
        search__trials=3,
        search__ladder=3,
        confirm__finalists=1,
        sampling__max_tokens=192,
    )
    report = search(config, name=NAME, storage=storage_in(tmp_path))
    assert report.counts.complete == 3 and report.confirmed and report.verdict is not None
    instruct, thinking = (report.parents[name] for name in ("instruct", "thinking"))
    assert instruct is not None and thinking is not None
    assert instruct.measured.think_ratio.value < 0.05 and thinking.measured.think_ratio.value > 0.5
    assert instruct.score.mean_tokens < thinking.score.mean_tokens


@needs_vllm
@pytest.mark.slow  # the contract suite has a mixture of experts in vLLM
@pytest.mark.usefixtures("one_thread")
def test_vllm_measures_what_transformers_measures() -> None:
    schedule = Schedule.by_module(attention=0.9, ffn=0.4)
    vllm = evaluate(moe_config(engine__name="vllm", engine__threads=None), schedule)
    assert overlap(vllm, evaluate(moe_config(), schedule))


def test_an_export_holds_the_experts_and_routers_that_were_evaluated(tmp_path: Path) -> None:
    config, schedule = moe_config(), Schedule.by_module(attention=0.7, ffn=0.5)
    models = open_models(config)
    export(models, schedule, tmp_path / "out", max_shard_size=parse_size("400KB"))
    assert check_export(tmp_path / "out") == str(schedule)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    held = dict(loaded.named_parameters())
    for name, tensor in open_merge(models.pair, schedule).tensors():
        if ".experts." not in name:
            assert torch.equal(held[name], tensor), name
        elif name.endswith("down_proj.weight"):  # transformers holds the experts of a layer in one tensor
            layer, expert = name.split(".experts.")
            assert torch.equal(held[f"{layer}.experts.down_proj"][int(expert.partition(".")[0])], tensor), name
    exported = moe_config(models__instruct=str(tmp_path / "out"))
    engine, merged = (open_engine(open_job(each)) for each in (config, exported))
    engine.set_merge(Method.linear(schedule))
    merged.set_merge(Method.linear(Schedule.uniform(0.0)))
    prompts = [Prompt(models.chat.render(sample), 1) for sample in open_job(config).search[0].samples[:8]]
    assert engine.generate(prompts, models.sampling) == merged.generate(prompts, models.sampling)
    assert engine.fingerprint() == merged.fingerprint()
