"""Measures uniform merges of a pair, rounded to nearest, dithered or kept in float32, on held-out prompts.

    python studies/rounding/sweep.py PAIR OUT.jsonl --rounding nearest,dithered,float32 --lambdas .45,.48,.5

``PAIR`` is the folder of studies/real_pair: ``instruct`` and ``thinking`` in bfloat16, and exact copies of them in
float32 (``instruct-float32``, ``thinking-float32``), whose merges are not rounded. Each line of OUT is one merge on 128
prompts, with every response's length and grade. Lines that are there already are not measured again, so a killed sweep
continues.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from autolambda.config_file import load_config
from autolambda.driver.models import open_models
from autolambda.engines.base import Prompt
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.graders.grading import find_grader, score
from autolambda.merging.method import Method
from autolambda.responses import Grade, Sample
from autolambda.schedule import Schedule

sys.path.insert(0, str(Path(__file__).parents[1] / "real_pair"))
import tasks  # of studies/real_pair

CHUNK = 128  # prompts of a line
FIRST = 600  # the rows before it are the task file of the searches
MAX_TOKENS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounding", default="nearest,dithered,float32")
    parser.add_argument("--lambdas", required=True)
    parser.add_argument("--seeds", default="0", help="seeds of dithered rounding")
    parser.add_argument("--chunks", type=int, default=1, help=f"chunks of {CHUNK} prompts, at most 4")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    wanted = [
        (rounding, seed, float(lam), chunk)
        for chunk in range(arguments.chunks)
        for lam in arguments.lambdas.split(",")
        for rounding in arguments.rounding.split(",")
        for seed in (map(int, arguments.seeds.split(",")) if rounding == "dithered" else [0])
    ]
    done = (
        {key_of(json.loads(line)) for line in arguments.out.read_text().splitlines()}
        if arguments.out.exists()
        else set()
    )
    engines: dict[tuple[str, int], Sweep] = {}
    for rounding, seed, lam, chunk in wanted:
        # at the ends no weight is rounded
        rounding, seed = ("nearest", 0) if lam in (0.0, 1.0) else (rounding, seed)
        if (rounding, seed, lam, chunk) in done:
            continue
        if (rounding, seed) not in engines:
            engines[rounding, seed] = Sweep(arguments.pair, rounding, seed, arguments.threads)
        line = engines[rounding, seed].measure(lam, chunk)
        done.add(key_of(line))
        with arguments.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print({key: value for key, value in line.items() if not isinstance(value, list)}, flush=True)


def key_of(line: dict[str, object]) -> tuple[object, ...]:
    return line["rounding"], line["seed"], line["lambda"], line["chunk"]


class Sweep:
    """One engine with one rounding."""

    def __init__(self, folder: Path, rounding: str, seed: int, threads: int) -> None:
        kind, suffix = ("nearest", "-float32") if rounding == "float32" else (rounding, "")
        self.rounding, self.seed = rounding, seed
        config = load_config(
            {
                "models": {name: str(folder / f"{name}{suffix}") for name in ("instruct", "thinking")},
                "merge": {"rounding": kind, "seed": seed},
                "sampling": {"max_tokens": MAX_TOKENS, "top_k": 20},
            },
            overrides={},
        )
        self.models = open_models(config)
        self.engine = TransformersEngine(
            self.models.pair, tokenizer=self.models.chat.tokenizer, device="cpu", threads=threads
        )
        self.rows = tasks.rows(1, 1200)[FIRST:]
        self.grade = find_grader("number")

    def measure(self, lam: float, chunk: int) -> dict[str, object]:
        rows = self.rows[chunk * CHUNK : (chunk + 1) * CHUNK]
        samples = [
            Sample(str(i), ({"role": "user", "content": row["question"]},), str(row["answer"]))
            for i, row in enumerate(rows)
        ]
        prompts = [
            Prompt(self.models.chat.render(sample), 1000 + chunk * CHUNK + i) for i, sample in enumerate(samples)
        ]
        begun = time.perf_counter()
        self.engine.set_merge(Method.linear(Schedule.uniform(lam)))
        merged = time.perf_counter()
        responses = self.engine.generate(prompts, self.models.sampling)
        ended = time.perf_counter()
        tokens = [response.num_tokens for response in responses]
        correct = [
            int(score(response, sample.target, grader=self.grade, think_end="</think>").grade is Grade.CORRECT)
            for sample, response in zip(samples, responses, strict=True)
        ]
        thinks = [int("</think>" in response.text) for response in responses]
        count = len(rows)
        return {
            "rounding": self.rounding, "seed": self.seed, "lambda": lam, "chunk": chunk,
            "accuracy": sum(correct) / count, "mean_tokens": sum(tokens) / count, "think_ratio": sum(thinks) / count,
            "truncated_ratio": sum(response.finish_reason == "length" for response in responses) / count,
            "merge_seconds": round(merged - begun, 3), "seconds": round(ended - merged, 1),
            "tokens": tokens, "correct": correct, "thinks": thinks,
        }  # fmt: skip


if __name__ == "__main__":
    main()
