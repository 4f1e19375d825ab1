"""Records a bank: real responses of a pair on a set of schedules, from which searches are replayed.

    python studies/search_cost/record.py PARTS [--only 0/2]
    python studies/search_cost/record.py PARTS --pack studies/search_cost/bank.npz
    python studies/search_cost/record.py PARTS --pair FOLDER --lambdas 0:1:.05 --grid 0:1:.25 [--pack OUT.npz ...]

Without ``--pair``, 2,000 prompts of the bundled pair's test split, which nothing else uses: 8 repeats each on a grid of
uniform lambdas and on a grid of attention x ffn, 2 on a band of closer places, one on schedules drawn from the whole
box. 40 million tokens: about two and a half hours on one core.

``--pair`` is a folder of studies/recorded_pairs. Its prompts come from ``test.jsonl``, and it is recorded at the given
lambdas and on a grid of attention x ffn. ``--pack`` with ``--budgets`` writes a sidecar OUT.json beside the bank.

Every part is a file of its own under PARTS, so a recording can be stopped at any time and goes on where it was.
``--only 0/2`` takes every second part, for a second process.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autolambda.bundled import FOLDER
from autolambda.config import Config, parse_config
from autolambda.config_file import bundled_defaults, load_config
from autolambda.driver.engine import open_engine
from autolambda.driver.job import Job, open_job
from autolambda.engines.base import Engine, Prompt
from autolambda.graders.grading import find_grader, score
from autolambda.merging.method import Method
from autolambda.optimizer.space import MAX_TILT, to_schedule
from autolambda.responses import Grade, Sample
from autolambda.tasks.requests import derive_seed

NUM_PROMPTS, NUM_REPEATS, NUM_KNOTS = 2000, 8, 3
NUM_SCATTERED = 64
CORRECT, THOUGHT, TRUNCATED = 1, 2, 4  # the bits of a response's flags

Whole = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Part:
    """Some repeats of a node: ``params`` in the box of sampler.py, ``repeats`` from and to."""

    params: dict[str, float]
    repeats: tuple[int, int]

    @property
    def name(self) -> str:
        return "_".join(f"{value:+.4f}" for value in self.params.values()) + f"_r{self.repeats[0]}-{self.repeats[1]}"


def bundled_parts() -> list[Part]:
    """All parts of the bundled pair, those first without which nothing can be replayed."""
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


def pair_parts(lambdas: list[float], grid: list[float], *, repeats: int, grid_repeats: int) -> list[Part]:
    """Uniform lambdas, then a grid of attention x ffn; first one repeat of each."""
    uniform = [_params(lam=lam) for lam in lambdas]
    wide = [_params(lam=(a + f) / 2, split=a - f) for a in grid for f in grid if a != f]
    return [
        *(Part(params, (0, 1)) for params in uniform),
        *(Part(params, (0, grid_repeats)) for params in wide),
        *(Part(params, (1, repeats)) for params in uniform if repeats > 1),
    ]


def places(text: str) -> list[float]:
    """The numbers of ``0,.4:.5:.02,1``, where ``.4:.5:.02`` are all from .4 to .5 in steps of .02."""
    found: set[float] = set()
    for part in text.split(",") if text else []:
        first, *rest = map(float, part.split(":"))
        last, step = rest or (first, 1.0)
        found.update(round(first + i * step, 4) for i in range(round((last - first) / step) + 1))
    return sorted(found)


def _params(*, lam: float, split: float = 0.0, tilts: object = None) -> dict[str, float]:
    values = np.zeros(NUM_KNOTS) if tilts is None else np.asarray(tilts)
    plain = {"lam": lam, "split": split, **{f"tilt_{i}": float(value) for i, value in enumerate(values)}}
    return {name: round(float(value), 4) for name, value in plain.items()}


@dataclass(frozen=True)
class Bank:
    """What is recorded: the parts, and the config and the task file of the pair."""

    parts: list[Part]
    num_prompts: int
    num_repeats: int
    config: Config
    rows: Path

    def read_rows(self) -> list[dict[str, str]]:
        lines = self.rows.read_text(encoding="utf-8").splitlines()[: self.num_prompts]
        return [json.loads(line) for line in lines]


def record(bank: Bank, folder: Path, share: int, of: int) -> None:
    """Generates the parts that are missing under ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    job = open_job(bank.config)
    engine = open_engine(job)
    rows = bank.read_rows()
    samples = [Sample(row["id"], ({"role": "user", "content": row["question"]},), row["answer"]) for row in rows]
    for part in bank.parts[share::of]:
        path = folder / f"{part.name}.npz"
        if path.exists():
            continue
        tokens, flags = measure(job, engine, samples, part)
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("wb") as file:
            np.savez_compressed(file, tokens=tokens, flags=flags)
        unfinished.rename(path)
        means = (flags & CORRECT).mean(), tokens.mean(), (flags & THOUGHT > 0).mean(), (flags & TRUNCATED > 0).mean()
        print(part.name, *(round(float(mean), 3) for mean in means), flush=True)


def measure(job: Job, engine: Engine, samples: list[Sample], part: Part) -> tuple[Whole, Whole]:
    """The tokens and the flags of a part, each [prompts, repeats]."""
    engine.set_merge(Method.linear(to_schedule(part.params)))
    grader, think_end = find_grader(job.config.tasks[0].grader_name), job.models.chat.think_end
    shape = (len(samples), part.repeats[1] - part.repeats[0])
    tokens, flags = (
        np.zeros(shape, np.uint8 if job.models.sampling.max_tokens < 256 else np.uint16),
        np.zeros(shape, np.uint8),
    )
    for column, repeat in enumerate(range(*part.repeats)):
        for start in range(0, len(samples), 1000):
            batch = samples[start : start + 1000]
            # one seed a (prompt, repeat) for all schedules, as in a search
            prompts = [Prompt(job.models.chat.render(each), derive_seed(0, "bank", each.id, repeat)) for each in batch]
            responses = engine.generate(prompts, job.models.sampling)
            for i, (response, sample) in enumerate(zip(responses, batch, strict=True)):
                scored = score(response, sample.target, grader=grader, think_end=think_end)
                flags[start + i, column] = (
                    CORRECT * (scored.grade is Grade.CORRECT)
                    + THOUGHT * (think_end in response.text)
                    + TRUNCATED * (response.finish_reason == "length")
                )
                tokens[start + i, column] = response.num_tokens
    return tokens, flags


def pack(bank: Bank, folder: Path, out: Path, budgets: list[float]) -> None:
    """One file of all parts: params [N, 5], tokens and flags [N, prompts, repeats] (repeats never recorded: 0)."""
    found: dict[tuple[float, ...], tuple[Whole, Whole]] = {}
    shape = (bank.num_prompts, bank.num_repeats)
    for part in bank.parts:
        path = folder / f"{part.name}.npz"
        if not path.exists():
            continue
        with np.load(path) as arrays:
            empty = tuple(np.zeros(shape, arrays[name].dtype) for name in ("tokens", "flags"))
            tokens, flags = found.setdefault(tuple(part.params.values()), empty)
            tokens[:, slice(*part.repeats)] = arrays["tokens"]
            flags[:, slice(*part.repeats)] = arrays["flags"]
    np.savez_compressed(
        out,
        params=np.array(list(found)),
        tokens=np.array([tokens for tokens, _ in found.values()]),
        flags=np.array([flags for _, flags in found.values()]),
    )
    if budgets:
        cap = open_job(bank.config).models.sampling.max_tokens
        sidecar = {"name": out.stem, "budgets": budgets, "num_prompts": shape[0], "repeats": shape[1], "cap": cap}
        out.with_suffix(".json").write_text(json.dumps(sidecar) + "\n")


def open_bank(args: argparse.Namespace) -> Bank:
    """The bundled pair's bank, or that of ``--pair``."""
    engine = {"engine": {"name": "transformers", "threads": 1}}
    if args.pair is None:
        config = parse_config({**bundled_defaults(with_task=True), **engine})
        return Bank(bundled_parts(), NUM_PROMPTS, NUM_REPEATS, config, FOLDER / "test.jsonl")
    config = load_config(args.pair / "config.yaml", overrides={"engine": engine["engine"]})
    lambdas, grid = places(args.lambdas), places(args.grid)
    parts = pair_parts(lambdas, grid, repeats=args.repeats, grid_repeats=args.grid_repeats)
    return Bank(parts, args.prompts, args.repeats, config, args.pair / "test.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path)
    parser.add_argument("--only", default="0/1")
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--pair", type=Path)
    parser.add_argument("--lambdas", default="0:1:.05", help="uniform lambdas, such as 0,.4:.5:.02,1")
    parser.add_argument("--grid", default="", help="the lambdas of attention and of ffn")
    parser.add_argument("--prompts", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--grid-repeats", type=int, default=2)
    parser.add_argument("--budgets", type=places, default=[], help="for the sidecar, such as 20,30")
    args = parser.parse_args()
    bank = open_bank(args)
    if args.pack:
        pack(bank, args.parts, args.pack, args.budgets)
    else:
        share, of = map(int, args.only.split("/"))
        record(bank, args.parts, share, of)


if __name__ == "__main__":
    main()
