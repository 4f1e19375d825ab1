"""vLLM's own cap on thinking against ours: equal settings give equal greedy responses, on a CPU with the bare tag."""

from __future__ import annotations

from contextlib import closing

import pytest
from checkpoints import tiny_tokenizer
from small_search import small_config
from vllm_engines import needs_vllm

from autolambda.driver.baselines.drafts import Drafts
from autolambda.driver.job import open_job
from autolambda.engines.base import Prompt
from autolambda.engines.chat import ChatFormat
from autolambda.engines.closing import closings_of
from autolambda.engines.decoder import Decoder, encode, end_ids_of
from autolambda.engines.vllm.engine import VllmEngine
from autolambda.engines.vllm.requests import Call, sampling_params
from autolambda.engines.wrappers import CutEngine
from autolambda.export.thinking_budget import thinking_budget
from autolambda.merging.method import Method
from autolambda.responses import Grade, Graded
from autolambda.schedule import Schedule

CHAT = ChatFormat(tiny_tokenizer(), "")  # a token a byte, the tags are one


@pytest.mark.parametrize(
    ("prompt", "counted"),
    [
        ("Q<think>\n", 41),  # vLLM counts from the tag on
        ("<think>a</think>Q<think>", 40),
        ("Q:", 39),  # the model writes the tag itself
    ],
)
def test_what_vllm_counts(prompt: str, counted: int) -> None:
    found = thinking_budget(CHAT, prompt, cap=40, closing="\n</think>\n\n")
    assert found is not None and found.num_tokens == counted
    assert found.reasoning_config["reasoning_end_str"] == "\n</think>\n\n"


def test_another_tag_has_no_settings() -> None:
    assert thinking_budget(ChatFormat(CHAT.tokenizer, "", think_end="[/T]"), "Q:", cap=4, closing="[/T]") is None


@needs_vllm
@pytest.mark.parametrize("cap", [22, 75])
def test_vllm_writes_what_is_measured(cap: int) -> None:
    """75 lets 24 of the 60 responses close their thinking themselves."""
    tasks = [{"name": "arithmetic", "limit": 60, "repeats": 1}]
    job = open_job(small_config(sampling__max_tokens=192, sampling__temperature=0.0, tasks=tasks))
    chat, samples = job.models.chat, job.search[0].samples
    prompts = {sample.id: Prompt(chat.render(sample), 0) for sample in samples}
    (closed_by,) = closings_of(chat, None, setting="tag")
    native = thinking_budget(chat, next(iter(prompts.values())).text, cap=cap, closing=closed_by.text)
    assert native is not None
    arguments = {"reasoning_config": dict(native.reasoning_config)}
    with closing(VllmEngine(job.models.pair, tokenizer=chat.tokenizer, context=512, arguments=arguments)) as engine:
        engine.set_merge(Method.linear(Schedule.uniform(1.0)))
        whole = dict(zip(prompts, engine.generate([*prompts.values()], job.models.sampling), strict=True))
        graded = [Graded("", id, 0, each, Grade.WRONG, None, "</think>" in each.text) for id, each in whole.items()]
        thoughts = {prompts[id]: text for (_, id, _), text in Drafts(graded, chat).cut_by(cap).items()}
        cut = CutEngine(engine, thoughts, cap=cap, closing=closed_by)
        ours = dict(zip(thoughts, cut.generate([*thoughts], job.models.sampling), strict=True))
        ends = end_ids_of(job.models.pair, chat.tokenizer)
        params = sampling_params(job.models.sampling, ends)
        params.thinking_token_budget = native.num_tokens
        call = Call(engine._engine(), Decoder.of(chat.tokenizer, job.models.sampling, end_ids=ends), 99, engine._errors)
        call.add(encode(chat.tokenizer, [*prompts.values()]), [params] * len(prompts))
        call.run(None)
        theirs = dict(zip(prompts, call.responses(), strict=True))
    assert len(thoughts) == {22: 60, 75: 36}[cap]
    assert theirs == {id: ours.get(prompts[id], whole[id]) for id in prompts}
