"""Measures what rounding does to the next-token distribution, by kind of tensor: matrices, and norms and routers.

    python studies/rounding/vectors.py INSTRUCT THINKING TASK.jsonl

Prints, by lambda, the mean Kullback-Leibler divergence (nats a token) from the merge in float32 to rounded merges:
matrices, norm vectors (with biases) or routers alone, each rounded to nearest and dithered. The tokens are responses of
the float32 merge. Dithered rounding shows the smallest and largest of the seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from autolambda.config_file import load_config
from autolambda.driver.models import open_models
from autolambda.engines.base import Prompt
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.merging.rounding import Rounding, matrix_shape, rounded
from autolambda.responses import Sample

LAMBDAS = (0.2, 0.4, 0.48, 0.5, 0.6, 0.8)
NUM_PROMPTS, NUM_SEEDS = 16, 6


class Rounded(TransformersEngine):
    """An engine whose weights are set to one merge, each tensor rounded in its own way."""

    @torch.inference_mode()
    def set_weights(self, lam: float, kind: str = "", rounding: Rounding | None = None) -> None:
        """Merges at ``lam``, and rounds the tensors of a kind. All others stay float32."""
        for name, live in self._live.items():
            merged = torch.lerp(self._instruct[name].float(), self._thinking[name].float(), lam)
            if rounding and kind_of(name, live) == kind:
                # a matrix of a name of its own is dithered, whatever the product does with this tensor
                draws = rounding.draws(f"study {name} study", matrix_shape(live.shape), torch.bfloat16)
                merged = rounded(merged, torch.bfloat16, draws).float()
            live.copy_(merged)

    @torch.inference_mode()
    def log_probabilities(self, sequences: list[Tensor]) -> list[Tensor]:
        return [log_softmax(self._model(ids[None]).logits[0].float(), -1) for ids in sequences]


def kind_of(name: str, tensor: Tensor) -> str:
    if tensor.dim() < 2:
        return "norms"
    return "routers" if name.endswith((".gate.weight", ".router.weight")) else "matrices"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instruct")
    parser.add_argument("thinking")
    parser.add_argument("task", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = open_models(
        load_config(
            {"models": {"instruct": arguments.instruct, "thinking": arguments.thinking}},
            overrides={"sampling.max_tokens": 100},
        )
    )
    engine = Rounded(models.pair, tokenizer=models.chat.tokenizer, device="cpu", threads=1)
    rows = [json.loads(line) for line in arguments.task.read_text(encoding="utf-8").splitlines()[:NUM_PROMPTS]]
    texts = [models.chat.render(Sample("", ({"role": "user", "content": row["question"]},), "")) for row in rows]
    kinds = sorted({kind_of(name, tensor) for name, tensor in engine._live.items()})
    columns = [f"{kind}, {name}" for kind in kinds for name in ("nearest", "dithered")]
    print(f"| lambda | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for lam in LAMBDAS:
        engine.set_weights(lam)
        responses = engine.generate([Prompt(text, i) for i, text in enumerate(texts)], models.sampling)
        sequences = [
            torch.tensor(models.chat.tokenizer(text + response.text, add_special_tokens=False).input_ids)
            for text, response in zip(texts, responses, strict=True)
        ]
        exact = engine.log_probabilities(sequences)
        cells = []
        for kind in kinds:
            for name in ("nearest", "dithered"):
                found = []
                for seed in range(NUM_SEEDS if name == "dithered" else 1):
                    engine.set_weights(lam, kind, Rounding(name, seed))  # type: ignore[arg-type]
                    found.append(divergence(exact, engine.log_probabilities(sequences)))
                cells.append(" to ".join(f"{value:.2e}" for value in shown(found)))
        print(f"| {lam:g} | {' | '.join(cells)} |", flush=True)


def divergence(exact: list[Tensor], other: list[Tensor]) -> float:
    sums = [kl_div(b, a, reduction="sum", log_target=True).item() for a, b in zip(exact, other, strict=True)]
    return sum(sums) / sum(len(each) for each in exact)


def shown(values: list[float]) -> Iterator[float]:
    yield min(values)
    if len(values) > 1:
        yield max(values)


if __name__ == "__main__":
    main()
