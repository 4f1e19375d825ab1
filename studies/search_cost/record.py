"""Records the bank: real responses of the bundled pair on a set of schedules, from which searches are replayed.

python studies/search_cost/record.py PARTS [--only 0/2]
python studies/search_cost/record.py PARTS --pack studies/search_cost/bank.npz

2,000 prompts of the test split, which nothing else uses: 8 repeats each on a grid of uniform lambdas and on a grid of
attention x ffn, 2 on a band of closer places, one on schedules drawn from the whole box. Every part is a file of its
own under PARTS, so it can be stopped at any time and goes on where it was; ``--only 0/2`` takes every second part, for
a second process. 40 million tokens: about two and a half hours on one core.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autolambda.bundled import FOLDER
from autolambda.config import parse_config
from autolambda.config_file import bundled_defaults
from autolambda.driver.engine import open_engine
from autolambda.driver.job import open_job
from autolambda.engines.base import Prompt
from autolambda.graders.grading import GRADERS, score
from autolambda.merging.method import Method
from autolambda.optimizer.space import MAX_TILT, to_schedule
from autolambda.responses import Grade
from autolambda.tasks.requests import derive_seed

NUM_PROMPTS, NUM_REPEATS, NUM_KNOTS = 2000, 8, 3
NUM_SCATTERED = 64
CORRECT, THOUGHT, TRUNCATED = 1, 2, 4  # the bits of a response's flags


@dataclass(frozen=True)
class Part:
    """Some repeats of a node: ``params`` in the box of sampler.py, ``repeats`` from and to."""

    params: dict[str, float]
    repeats: tuple[int, int]

    @property
    def name(self) -> str:
        return "_".join(f"{value:+.4f}" for value in self.params.values()) + f"_r{self.repeats[0]}-{self.repeats[1]}"


def parts() -> list[Part]:
    """All parts, those first without which nothing can be replayed."""
    uniform = [_params(lam=i / 20) for i in range(21)]
    steps = [i / 5 for i in range(6)]
    grid = [_params(lam=(a + f) / 2, split=a - f) for a in steps for f in steps if a != f]
    # where the grid's cells are wide, beside the uniform lambdas: a response comes from the corners of its cell
    band = [
        params
        for split in (-0.4, -0.2, 0.2, 0.4)
        for lam in (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)
        if (params := _params(lam=lam, split=split)) not in grid
    ]
    rng = np.random.default_rng(0)
    scattered = [
        _params(
            lam=rng.uniform(0.2, 1.0),
            split=rng.uniform(-0.5, 0.5),
            tilts=rng.uniform(-MAX_TILT, MAX_TILT, NUM_KNOTS),
        )
        for _ in range(NUM_SCATTERED)
    ]
    return [
        *(Part(params, (0, 2)) for params in [*uniform, *grid]),
        *(Part(params, (0, 2)) for params in band),
        *(Part(params, (0, 1)) for params in scattered),
        *(Part(params, (2, 5)) for params in [*uniform, *grid]),
        *(Part(params, (5, NUM_REPEATS)) for params in [*uniform, *grid]),
    ]


def _params(*, lam: float, split: float = 0.0, tilts: object = None) -> dict[str, float]:
    values = np.zeros(NUM_KNOTS) if tilts is None else np.asarray(tilts)
    plain = {"lam": lam, "split": split, **{f"tilt_{i}": float(value) for i, value in enumerate(values)}}
    return {name: round(float(value), 4) for name, value in plain.items()}


def record(folder: Path, share: int, of: int) -> None:
    """Generates the parts that are missing under ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    config = parse_config({**bundled_defaults(with_task=True), "engine": {"name": "transformers", "threads": 1}})
    job = open_job(config)
    engine = open_engine(job)
    rows = [json.loads(line) for line in (FOLDER / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    samples = [(row["id"], row["answer"], _rendered(job, row["question"])) for row in rows[:NUM_PROMPTS]]
    for part in parts()[share::of]:
        path = folder / f"{part.name}.npz"
        if path.exists():
            continue
        engine.set_merge(Method.linear(to_schedule(part.params)))
        shape = (NUM_PROMPTS, part.repeats[1] - part.repeats[0])
        tokens, flags = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        for column, repeat in enumerate(range(*part.repeats)):
            for start in range(0, NUM_PROMPTS, 1000):
                batch = samples[start : start + 1000]
                # one seed a (prompt, repeat) for all schedules, as in a search
                prompts = [Prompt(text, derive_seed(0, "bank", name, repeat)) for name, _, text in batch]
                responses = engine.generate(prompts, job.models.sampling)
                for i, (response, (_, target, _)) in enumerate(zip(responses, batch, strict=True)):
                    scored = score(response, target, grader=GRADERS["number"], think_end=job.models.chat.think_end)
                    flags[start + i, column] = (
                        CORRECT * (scored.grade is Grade.CORRECT)
                        + THOUGHT * (job.models.chat.think_end in response.text)
                        + TRUNCATED * (response.finish_reason == "length")
                    )
                    tokens[start + i, column] = response.num_tokens
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("wb") as file:
            np.savez_compressed(file, tokens=tokens, flags=flags)
        unfinished.rename(path)
        print(part.name, round(float((flags & CORRECT).mean()), 3), round(float(tokens.mean()), 2), flush=True)


def _rendered(job: object, question: str) -> str:
    from autolambda.responses import Sample

    return str(job.models.chat.render(Sample("", ({"role": "user", "content": question},), "")))  # type: ignore[attr-defined]


def pack(folder: Path, out: Path) -> None:
    """One file of all parts: params [N, 5], tokens and flags [N, prompts, repeats] (repeats never recorded: 0)."""
    found: dict[tuple[float, ...], tuple[np.ndarray, np.ndarray]] = {}
    for part in parts():
        path = folder / f"{part.name}.npz"
        if not path.exists():
            continue
        shape = (NUM_PROMPTS, NUM_REPEATS)
        tokens, flags = found.setdefault(
            tuple(part.params.values()), (np.zeros(shape, np.uint8), np.zeros(shape, np.uint8))
        )
        with np.load(path) as arrays:
            tokens[:, slice(*part.repeats)] = arrays["tokens"]
            flags[:, slice(*part.repeats)] = arrays["flags"]
    np.savez_compressed(
        out,
        params=np.array(list(found)),
        tokens=np.array([tokens for tokens, _ in found.values()]),
        flags=np.array([flags for _, flags in found.values()]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", type=Path)
    parser.add_argument("--only", default="0/1")
    parser.add_argument("--pack", type=Path)
    args = parser.parse_args()
    if args.pack:
        pack(args.parts, args.pack)
    else:
        share, of = map(int, args.only.split("/"))
        record(args.parts, share, of)


if __name__ == "__main__":
    main()
