"""Rounds merges of the bundled pair to fewer bits: the staircase must appear, and dithering must remove it.

    python studies/rounding/staircase.py OUT.jsonl --bits 2 3 --seeds 0 1 2

The bundled parents are far apart, so bfloat16 (7 bits of mantissa) does not distort their merges. With 2 or 3 bits the
steps are as large as the differences of the weights. The parents are rounded to these bits first, so both ends are the
same for every rounding. With ``--bits 7`` nothing but the product's own rounding is measured.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from autolambda.bundled import FOLDER
from autolambda.config import parse_config
from autolambda.config_file import bundled_defaults
from autolambda.driver.job import open_job
from autolambda.driver.search import evaluate
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.merging.method import Method
from autolambda.merging.rounding import Draws, Rounding, matrix_shape
from autolambda.schedule import Schedule

LAMBDAS = (0.0, 0.3, 0.4, 0.45, 0.48, 0.49, 0.5, 0.51, 0.52, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0)


class CoarseEngine(TransformersEngine):
    """An engine whose weights have ``bits`` bits of mantissa."""

    bits: int
    rounding: str
    seed: int

    def coarsen(self, bits: int) -> None:
        """Rounds both parents to so many bits."""
        self.bits = bits
        for parent in (self._instruct, self._thinking):
            for name, values in parent.items():
                parent[name] = nearest(values.float(), bits)

    @torch.inference_mode()
    def set_merge(self, method: Method) -> None:
        if not hasattr(self, "bits"):  # while it starts
            super().set_merge(method)
            return
        assert method.schedule is not None and method.schedule.lam is not None
        lam = method.schedule.lam
        for name, live in self._live.items():
            merged = torch.lerp(self._instruct[name], self._thinking[name], lam)
            live.copy_(self.rounded(name, merged))

    def rounded(self, name: str, values: Tensor) -> Tensor:
        if self.rounding == "float32":
            return values
        if self.rounding == "nearest":
            return nearest(values, self.bits)
        # vectors too, unlike in the product: with so few bits their steps are as large as their differences
        draws = Rounding("dithered", self.seed).draws(name, matrix_shape(values.shape), torch.bfloat16)
        assert draws is not None
        return dithered(values, self.bits, draws)


def nearest(values: Tensor, bits: int) -> Tensor:
    """Rounds float32 to so many bits of mantissa, to the nearest, ties to even."""
    cut = 23 - bits
    found = values.view(torch.int32)
    return ((found + (1 << cut - 1) - 1 + (found >> cut & 1)) >> cut << cut).view(torch.float32)


def dithered(values: Tensor, bits: int, draws: Draws) -> Tensor:
    """Rounds float32 to so many bits by the product's draws, as ``autolambda.merging.rounding`` does with 7."""
    cut = 23 - bits
    found = values.view(torch.int32) + (draws.values().view(values.shape) << cut - 16)
    return (found >> cut << cut).view(torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 3, 7])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limit", type=int, default=512)
    arguments = parser.parse_args()
    plain = bundled_defaults(with_task=True)
    num_rows = len((FOLDER / "test.jsonl").read_text(encoding="utf-8").splitlines())
    plain |= {
        "tasks": [{"path": str(FOLDER / "test.jsonl"), "limit": arguments.limit}],
        "confirm": {"share": 1.5 / num_rows},
        "engine": {"threads": 1},
    }
    config = parse_config(plain)
    job = open_job(config)
    for bits in arguments.bits:
        engine = CoarseEngine(job.models.pair, tokenizer=job.models.chat.tokenizer, device="cpu", threads=1)
        engine.coarsen(bits)
        kinds = [("nearest", 0), ("float32", 0), *(("dithered", seed) for seed in arguments.seeds)]
        for lam in LAMBDAS:
            for engine.rounding, engine.seed in kinds if 0 < lam < 1 else kinds[:1]:
                measured = evaluate(config, Schedule.uniform(lam), engine=engine)
                line = {
                    "bits": bits, "rounding": engine.rounding, "seed": engine.seed, "lambda": lam,
                    "responses": measured.num_responses, "accuracy": measured.accuracy.value,
                    "mean_tokens": measured.mean_tokens.value, "think_ratio": measured.think_ratio.value,
                }  # fmt: skip
                with arguments.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(line, flush=True)
        engine.close()


if __name__ == "__main__":
    main()
