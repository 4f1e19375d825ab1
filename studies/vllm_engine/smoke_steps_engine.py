"""Steps of the smoke test on one engine: its start, merges in place, greedy tokens, caches, aborts, seeds and speed."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from smoke_bench import one_seed_per_call, set_lambda

from autolambda.merging.method import Method
from autolambda.schedule import Schedule

LAM = 0.35


def make_pair(bench: Any) -> dict[str, Any]:
    """Writes the synthetic pair."""
    pair = bench.pair(bench.size)
    return {"size": bench.size, "num_parameters": pair.num_parameters, "gib": pair.num_bytes / 2**30}


def start(bench: Any) -> dict[str, Any]:
    """Opens the engine, which compares both ends with the files, and asks what runs inside."""
    engine = bench.engine()
    set_lambda(engine, 0.0)
    [inside] = engine._llm.collective_rpc(_inside)
    return {"engine": engine.in_words, "ends_compared": len(engine._whole_ends), **inside}


def addresses(bench: Any) -> dict[str, Any]:
    """The parameters' addresses before and after six merges in place and one through vLLM's loader."""
    engine = bench.engine()
    [before] = engine._llm.collective_rpc(_addresses)
    for lam in (0.1, 0.9, 0.3, 0.7, 0.5, LAM):
        set_lambda(engine, lam)
    engine._llm.collective_rpc(_reload)
    [after] = engine._llm.collective_rpc(_addresses)
    return {"parameters": len(before), "moved": sum(after[name] != address for name, address in before.items())}


def greedy(bench: Any) -> dict[str, Any]:
    """Greedy responses one at a time at both ends and between, and again; exports the merge for a fresh engine."""
    engine = bench.engine()
    asked, sampling = greedy_calls(bench)
    said = {}
    for name, lam in (("instruct", 0.0), ("thinking", 1.0), ("merge", LAM), ("again", LAM)):
        set_lambda(engine, 0.7)  # so that a merge between changes every time
        set_lambda(engine, lam)
        said[name] = [engine.generate([prompt], sampling)[0] for prompt in asked]
    bench.notes["merge"] = said["merge"]
    bench.notes["fingerprint"] = engine.fingerprint()
    return {
        "responses": len(asked),
        "texts": len({response.text for response in said["merge"]}),
        "ends_equal": equal(said["instruct"], said["thinking"]),
        "again_equal": equal(said["merge"], said["again"]),
    }


def greedy_calls(bench: Any) -> tuple[list[Any], Any]:
    """The prompts and the sampling whose responses a fresh engine must repeat."""
    return bench.prompts(16 if bench.is_gpu else 8), bench.sampling(max_tokens=64, temperature=0.0)


def prefix_cache(bench: Any) -> dict[str, Any]:
    """Tokens of a long prompt that come from the cache: at first, repeated, after a merge, repeated again."""
    from vllm import SamplingParams

    engine = bench.engine()
    text = " ".join(prompt.text for prompt in bench.prompts(24))
    ids = engine._tokenizer(text, add_special_tokens=False).input_ids[:600]
    set_lambda(engine, 0.2)
    cached = []
    for number in range(4):
        if number == 2:
            set_lambda(engine, 0.8)
        params = SamplingParams(temperature=0.0, max_tokens=1)
        [output] = engine._llm.generate([{"prompt_token_ids": ids}], params, use_tqdm=False)
        cached.append(output.num_cached_tokens)
    return {"tokens": len(ids), "repeated": cached[1], "after_merge": cached[2], "repeated_again": cached[3]}


def abort(bench: Any) -> dict[str, Any]:
    """A watcher stops a large call after two seconds; a merge and eight responses follow, as without the call."""
    engine, eight = bench.engine(), bench.prompts(8)
    sampling = bench.sampling(max_tokens=32, temperature=0.0)
    set_lambda(engine, LAM)
    expected = [engine.generate([prompt], sampling)[0] for prompt in eight]
    set_lambda(engine, 0.7)
    began, said_no = time.monotonic(), []

    def watch(_: Any) -> bool:
        if time.monotonic() - began > 2:
            said_no.append(time.monotonic())
        return not said_no

    number, length = (512, 2048) if bench.is_gpu else (64, 1024)
    stopped = engine.generate(bench.prompts(number), bench.sampling(max_tokens=length), watch=watch)
    returned = time.monotonic()
    set_lambda(engine, LAM)
    merged = time.monotonic()
    whole = [engine.generate([prompt], sampling)[0] for prompt in eight]
    return {
        "aborted": sum(response.finish_reason == "aborted" for response in stopped),
        "return_s": returned - said_no[0] if said_no else float("inf"),
        "merge_and_reset_s": merged - returned,
        "as_before": equal(whole, expected),
    }


def repeats(bench: Any) -> dict[str, Any]:
    """The same call twice with one seed per call, and with another seed."""
    engine, asked = bench.engine(), bench.prompts(128 if bench.is_gpu else 16)
    sampling, other = bench.sampling(max_tokens=64), [replace(asked[0], seed=1), *asked[1:]]
    with one_seed_per_call(engine):
        first, second, third = (engine.generate(prompts, sampling) for prompts in (asked, asked, other))
    return {"again_equal": equal(first, second), "other_seed_equal": equal(first, third)}


def seeds(bench: Any) -> dict[str, Any]:
    """One seed per request: its speed beside one per call, and whether responses depend on the batch around them."""
    from bench import seeds as compare

    engine = bench.engine()
    asked, sampling = bench.prompts(256 if bench.is_gpu else 64), bench.sampling(max_tokens=128)
    speeds = compare(engine, asked, sampling, 3, batch=len(asked))
    whole, again = (engine.generate(asked, sampling) for _ in range(2))
    few = asked[:4]
    return {
        "speed_ratio": speeds["ratio"],
        "tokens_per_s": speeds["tokens_per_s"],
        "again_equal": equal(whole, again),
        "alone_equal": equal([engine.generate([prompt], sampling)[0] for prompt in few], whole[:4]),
        "reversed_equal": equal(engine.generate(asked[::-1], sampling)[::-1], whole),
    }


def speed(bench: Any) -> dict[str, Any]:
    """Tokens a second beside raw ``LLM.generate`` of the same engine, with one seed per call."""
    from bench import speed as compare

    number, length, turns = (512, 256, 3) if bench.is_gpu else (128, 64, 3)
    engine, sampling = bench.engine(), replace(bench.sampling(max_tokens=length), presence_penalty=0.0)
    with one_seed_per_call(engine):
        found = compare(engine, bench.prompts(number), sampling, turns)
    return {key: found[key] for key in ("ratio", "tokens_per_s", "raw_tokens_per_s")}


def switch(bench: Any) -> dict[str, Any]:
    """The merge in place and its comparison with the files."""
    return switch_times(bench.engine())


def switch_times(engine: Any) -> dict[str, float]:
    """Medians of the seconds of a merge, and of all that a switch takes besides."""
    merges, wholes = [], []
    for lam in (0.3, 0.6, 0.4, 0.7, LAM):
        began = time.perf_counter()
        set_lambda(engine, lam)
        wholes.append(time.perf_counter() - began)
        method = Method.linear(Schedule.uniform(lam)).to_dict()
        merges.append(engine._ask("autolambda_merge", method, None, False)[0]["seconds"])
    merge = statistics.median(merges)
    return {"merge_s": merge, "compare_and_reset_s": max(statistics.median(wholes) - merge, 0.0)}


def equal(some: list[Any], others: list[Any]) -> float:
    """The share of equal responses."""
    return sum(one == other for one, other in zip(some, others, strict=True)) / len(some)


def _inside(worker: Any) -> dict[str, Any]:
    """In the worker: the model runner, the attention's back ends, the sampler, and the free memory of the GPU."""
    from vllm import envs

    layers = worker.vllm_config.compilation_config.static_forward_context.values()
    attention = {layer.get_attn_backend().get_name() for layer in layers if hasattr(layer, "get_attn_backend")}
    found: dict[str, Any] = {
        "runner": "V2" if type(worker.model_runner).__module__.startswith("vllm.v1.worker.gpu.") else "V1",
        "attention": ", ".join(sorted(attention)),
        "flashinfer_sampler": bool(envs.VLLM_USE_FLASHINFER_SAMPLER),
    }
    if torch.cuda.is_available():
        found["free_gib"] = torch.cuda.mem_get_info()[0] / 2**30
    return found


def _addresses(worker: Any) -> dict[str, int]:
    return {name: parameter.data_ptr() for name, parameter in worker.model_runner.get_model().named_parameters()}


def _reload(worker: Any) -> None:
    live = worker._autolambda
    live._stream(live._merge)
