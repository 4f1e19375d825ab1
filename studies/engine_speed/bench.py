"""Tokens a second of the transformers engine beside transformers' own ``generate``: same weights, prompts and sampling.

The two alternate in one run; medians are compared. Each counts the tokens that its responses hold, end tokens included.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from autolambda.config_file import load_config
from autolambda.driver.models import Models, open_models
from autolambda.engines.base import Prompt
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.merging.merge import open_merge
from autolambda.merging.method import Method
from autolambda.merging.writing.write import write_weights
from autolambda.schedule import Schedule
from autolambda.tasks.arithmetic import read_samples
from autolambda.tasks.requests import derive_seed

NUM_PROMPTS = 256


def load_merged(models: Models, schedule: Schedule) -> Any:
    """The merge written to disk and loaded by transformers, in float32."""
    with tempfile.TemporaryDirectory() as folder:
        merge = open_merge(models.pair, schedule)
        (Path(folder) / "config.json").write_text(json.dumps(merge.config))
        write_weights(Path(folder), merge, max_shard_size=1 << 40, identify=False)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def plain_generate(model: Any, models: Models, prompts: list[Prompt], end_ids: list[int]) -> int:
    """The number of tokens that transformers' ``generate`` makes for one left-padded batch."""
    tokenizer, sampling = models.chat.tokenizer, models.sampling
    tokenizer.padding_side = "left"
    batch = tokenizer([p.text for p in prompts], add_special_tokens=False, padding=True, return_tensors="pt")
    out = model.generate(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=sampling.max_tokens,
        do_sample=True, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p,
        eos_token_id=end_ids, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    ended = torch.isin(out[:, batch.input_ids.shape[1] :], torch.tensor(end_ids))
    return int((ended.cumsum(-1) - ended.long() == 0).sum())  # up to and with the first end token


def rate(generate: Callable[[list[Prompt]], int], prompts: list[Prompt], *, batch_size: int) -> float:
    """Tokens a second over all batches."""
    start = time.perf_counter()
    parts = [prompts[at : at + batch_size] for at in range(0, len(prompts), batch_size)]
    num_tokens = sum(generate(part) for part in parts)
    return num_tokens / (time.perf_counter() - start)


def switch_seconds(engine: TransformersEngine) -> float:
    """The median of 50 switches between two schedules."""
    times = []
    for i in range(50):
        start = time.perf_counter()
        engine.set_merge(Method.linear(Schedule.by_module(attention=0.3 + 0.1 * (i % 2), ffn=0.6)))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=None, help="torch threads; default the engine's own choice")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--lam", type=float, default=0.8)
    arguments = parser.parse_args()

    models = open_models(load_config(None, overrides={}))
    samples = read_samples("search")[:NUM_PROMPTS]
    prompts = [Prompt(models.chat.render(sample), derive_seed(0, sample.id)) for sample in samples]
    engine = TransformersEngine(
        models.pair, tokenizer=models.chat.tokenizer, device="cpu", threads=arguments.threads
    )  # float32, as transformers' own model below
    switch = switch_seconds(engine)
    schedule = Schedule.uniform(arguments.lam)
    engine.set_merge(Method.linear(schedule))
    model = load_merged(models, schedule)
    end_ids = sorted(engine._end_ids)

    def ours(part: list[Prompt]) -> int:
        return sum(response.num_tokens for response in engine.generate(part, models.sampling))

    def theirs(part: list[Prompt]) -> int:
        return plain_generate(model, models, part, end_ids)

    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for repeat in range(arguments.repeats + 1):
        for name, generate in (("ours", ours), ("theirs", theirs)):
            value = rate(generate, prompts, batch_size=arguments.batch_size)
            if repeat:  # the first warms up
                rates[name].append(value)
    medians = {name: round(statistics.median(values)) for name, values in rates.items()}
    result = {
        "threads": torch.get_num_threads(), "cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2),
        "batch_size": arguments.batch_size, "lambda": arguments.lam, "num_prompts": len(prompts),
        "tokens_per_second": medians["ours"], "generate_tokens_per_second": medians["theirs"],
        "ratio": round(medians["ours"] / medians["theirs"], 2), "switch_ms": round(1e3 * switch, 2),
        "all": {name: [round(value) for value in values] for name, values in rates.items()},
        "torch": torch.__version__,
    }  # fmt: skip
    print(json.dumps(result))
    print(
        f"{result['threads']} threads of {result['cpus']} (load {result['load']}), batches of {arguments.batch_size}: "
        f"{medians['ours']:,} tokens/s, transformers' generate {medians['theirs']:,} ({result['ratio']} times); "
        f"a switch takes {result['switch_ms']} ms"
    )


if __name__ == "__main__":
    main()
