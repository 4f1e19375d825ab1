"""The vLLM engine beside the obvious alternatives, in one run: switching schedules, and tokens a second.

switch: from the last token of one trial to the first of the next, by a merge in place, and by exporting the merge to
disk and starting a new vLLM on it (in a process that has imported everything already). speed: our ``generate`` beside
raw, unseeded ``LLM.generate`` of the same engine on the same prompts, in turns. seeds: ``generate`` with one seed per
request beside one per call, in turns, in batches of several sizes.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from autolambda.config_file import load_config
from autolambda.driver.models import Models, open_models, parent_folders
from autolambda.engines.base import Prompt, Sampling
from autolambda.engines.chat import load_tokenizer
from autolambda.engines.vllm.engine import VllmEngine
from autolambda.merging.merge import open_merge
from autolambda.merging.method import Method
from autolambda.merging.pair import Pair, open_pair
from autolambda.merging.writing.write import write_weights
from autolambda.schedule import Schedule
from autolambda.tasks.arithmetic import read_samples
from autolambda.tasks.requests import derive_seed

LAM = 0.8
BATCHES = (16, 64, 256)  # prompts a call, for seeds
SIZES = {
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4},
    "0.1b": {"hidden_size": 640, "intermediate_size": 1920, "num_hidden_layers": 16, "num_attention_heads": 10},
    "0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "4b": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
}


def synthetic(size: str, folder: Path) -> Pair:
    """A pair of random weights in the shapes of Qwen3, with the bundled pair's tokenizer."""
    heads = {"tiny": 2, "0.1b": 5}.get(size, 8)
    config = Qwen3Config(
        **SIZES[size], num_key_value_heads=heads, head_dim=128, vocab_size=4_096 if size == "tiny" else 151_936,
        tie_word_embeddings=True, max_position_embeddings=40_960,
    )  # fmt: skip
    source = Path(parent_folders(load_config(None, overrides={}).models)[1])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for seed, name in enumerate(("instruct", "thinking")):
        torch.manual_seed(seed)
        with torch.device(device):
            Qwen3ForCausalLM(config).bfloat16().save_pretrained(folder / name)
        for file in source.glob("tokenizer*"):
            shutil.copy(file, folder / name)
        for file in source.glob("chat_template*"):
            shutil.copy(file, folder / name)
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return open_pair(str(folder / "instruct"), str(folder / "thinking"))


def prompts_of(models: Models, number: int) -> list[Prompt]:
    samples = read_samples("search")
    return [Prompt(models.chat.render(samples[i % len(samples)]), i) for i in range(number)]


def switch_in_place(engine: VllmEngine, prompt: Prompt, one_token: Sampling, repeats: int) -> list[float]:
    """Seconds from the end of one response to the first token of the next schedule's."""
    times = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        engine.set_merge(Method.linear(Schedule.uniform((0.35, 0.65)[i % 2])))
        engine.generate([prompt], one_token)
        times.append(time.perf_counter() - start)
    return times[1:]


def switch_by_restart(pair: Pair, prompt: Prompt, ids: list[int], arguments: dict[str, Any]) -> dict[str, float]:
    """Seconds of the alternative: the merge to disk, a new engine on it, its first token."""
    import vllm

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "merged"
        start = time.perf_counter()
        shutil.copytree(pair.thinking.folder, folder, ignore=shutil.ignore_patterns("*.safetensors*", "config.json"))
        (folder / "config.json").write_text(json.dumps(pair.config))
        write_weights(folder, open_merge(pair, Schedule.uniform(0.65)), max_shard_size=5 << 30, identify=False)
        exported = time.perf_counter()
        llm = vllm.LLM(str(folder), **arguments)
        llm.generate([{"prompt_token_ids": ids}], vllm.SamplingParams(max_tokens=1), use_tqdm=False)
        done = time.perf_counter()
        llm.llm_engine.engine_core.shutdown()
    return {"export": exported - start, "new_engine": done - exported, "total": done - start}


def speed(engine: VllmEngine, prompts: list[Prompt], sampling: Sampling, repeats: int) -> dict[str, Any]:
    """Tokens a second of both, in turns; medians of the repeats."""
    from vllm import SamplingParams

    engine.set_merge(Method.linear(Schedule.uniform(LAM)))
    raw_params = SamplingParams(
        temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k, max_tokens=sampling.max_tokens,
        stop_token_ids=sorted(engine._end_ids), ignore_eos=True,
    )  # fmt: skip
    texts = [prompt.text for prompt in prompts]
    ours, raw = [], []
    for repeat in range(repeats + 1):
        fresh = [replace(prompt, seed=prompt.seed + repeat * len(prompts)) for prompt in prompts]
        for rates in (ours, raw) if repeat % 2 else (raw, ours):
            engine._llm.reset_prefix_cache()
            start = time.perf_counter()
            if rates is ours:
                tokens = sum(response.num_tokens for response in engine.generate(fresh, sampling))
            else:
                outputs = engine._llm.generate(texts, raw_params, use_tqdm=False)
                tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
            rates.append(tokens / (time.perf_counter() - start))
    ours, raw = ours[1:], raw[1:]
    ratios = [a / b for a, b in zip(ours, raw, strict=True)]
    return {
        "tokens_per_s": round(statistics.median(ours)), "raw_tokens_per_s": round(statistics.median(raw)),
        "ratio": round(statistics.median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios],
    }  # fmt: skip


def seeds(engine: VllmEngine, prompts: list[Prompt], sampling: Sampling, repeats: int, *, batch: int) -> dict[str, Any]:
    """Tokens a second with one seed per request and with one per call, in turns, ``batch`` prompts a call."""
    rates: dict[str, list[float]] = {"request": [], "call": []}
    for repeat in range(repeats + 1):
        fresh = [replace(prompt, seed=derive_seed(prompt.seed, repeat)) for prompt in prompts]
        for name in ("request", "call") if repeat % 2 else ("call", "request"):
            engine._seeds = name
            engine._llm.reset_prefix_cache()
            start = time.perf_counter()
            calls = [engine.generate(fresh[at : at + batch], sampling) for at in range(0, len(fresh), batch)]
            tokens = sum(response.num_tokens for responses in calls for response in responses)
            rates[name].append(tokens / (time.perf_counter() - start))
    engine._seeds = "request"
    ratios = [one / other for one, other in zip(rates["request"][1:], rates["call"][1:], strict=True)]
    return {
        "tokens_per_s": round(statistics.median(rates["request"][1:])),
        "tokens_per_s_by_call": round(statistics.median(rates["call"][1:])),
        "ratio": round(statistics.median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios],
    }  # fmt: skip


def copy_rate(worker: Any) -> float:
    """GB/s of copying the live weights within the device: bytes read and written."""
    weights = [parameter.data for parameter in worker.model_runner.get_model().parameters()]
    num_bytes = 2 * sum(weight.numel() * weight.element_size() for weight in weights)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        for weight in weights:
            torch.empty_like(weight).copy_(weight)
        if weights[0].is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return num_bytes / statistics.median(times[1:]) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("bundled", *SIZES), default="bundled")
    parser.add_argument("--only", choices=("switch", "speed", "seeds"), default=None)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--max-tokens", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parents", choices=("auto", "gpu", "host", "files"), default="auto")
    given = parser.parse_args()
    models = open_models(load_config(None, overrides={}))
    sampling = replace(models.sampling, max_tokens=given.max_tokens)
    with tempfile.TemporaryDirectory() as temporary:
        pair = models.pair if given.size == "bundled" else synthetic(given.size, Path(temporary))
        tokenizer = models.chat.tokenizer if given.size == "bundled" else load_tokenizer(pair.thinking.folder)
        prompts = prompts_of(models, given.prompts)
        ids = tokenizer([prompts[0].text], add_special_tokens=False).input_ids[0]
        context, kind = len(ids) + 64 + given.max_tokens, "request" if given.only == "seeds" else "call"
        engine = VllmEngine(pair, tokenizer=tokenizer, context=context, parents=given.parents, seeds=kind)
        result: dict[str, Any] = {"size": given.size, "engine": engine.in_words, "num_parameters": pair.num_parameters}
        if given.only == "seeds":
            engine.set_merge(Method.linear(Schedule.uniform(LAM)))
            for batch in BATCHES:
                result[str(batch)] = seeds(engine, prompts, sampling, given.repeats, batch=batch)
        if given.only in (None, "speed"):
            result["speed"] = speed(engine, prompts, sampling, given.repeats)
        if given.only in (None, "switch"):
            engine.generate(prompts, sampling)
            times = switch_in_place(engine, prompts[0], replace(sampling, max_tokens=1), given.repeats)
            merges = [
                engine._ask("autolambda_merge", Method.linear(Schedule.uniform(lam)).to_dict(), None, False)[0][
                    "seconds"
                ]
                for lam in (0.3, 0.6, 0.3, 0.6)
            ]
            result["switch"] = {"seconds": statistics.median(times), "merge_seconds": statistics.median(merges)}
            if "cuda" in engine.in_words:
                [rate] = engine._llm.collective_rpc(copy_rate)
                merge_rate = 6 * pair.num_parameters / result["switch"]["merge_seconds"] / 1e9
                result["switch"] |= {"merge_gb_per_s": merge_rate, "copy_gb_per_s": rate, "ratio": merge_rate / rate}
            in_words = engine.in_words
            engine.close()
            arguments = {"max_model_len": 512, "disable_log_stats": True, "use_tqdm_on_load": False}
            if " on cpu, " in in_words:
                arguments |= {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 30, "dtype": "float32"}
            result["restart"] = switch_by_restart(pair, prompts[0], ids, arguments)
        engine.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
