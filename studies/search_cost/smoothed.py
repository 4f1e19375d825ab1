"""How often the 95 % intervals of the smoothed front hold the truth, over replayed searches.

    python studies/search_cost/smoothed.py [--worlds given] [--seeds 0:5]

Each search's measured merges get the surrogate's intervals, as in the report. A merge is *on the cliff* if its true
Think ratio is from 2 to 98 %. *measured* are intervals of each merge's own responses: value and two standard errors.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import ours
from cases import Case, find_cases
from replay import parse_seeds

from autolambda.optimizer.observations import ACCURACY, THINK, TOKENS
from autolambda.optimizer.space import parent_of
from autolambda.optimizer.surrogate import fit
from autolambda.statistics.estimates import Z_95

OUTPUTS = {"accuracy": ACCURACY, "mean tokens": TOKENS, "Think ratio": THINK}
CLIFF = (0.02, 0.98)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="given")
    parser.add_argument("--seeds", default="0:5", type=parse_seeds)
    args = parser.parse_args()
    held: dict[tuple[str, str, str], list[tuple[bool, bool, float]]] = defaultdict(list)
    for case in find_cases(args.worlds.split(",")):
        for seed in args.seeds:
            for budget in case.budgets:
                for where, output, *row in rows(case, budget, seed):
                    held["all", where, output].append(tuple(row))
                    held[case.name, where, output].append(tuple(row))
    print(
        "| worlds | merges | number | " + " | ".join(f"{name}, smoothed | measured | width" for name in OUTPUTS) + " |"
    )
    print("|---|---|---|" + "---|---|---|" * len(OUTPUTS))
    for world, where in dict.fromkeys((world, where) for world, where, _ in held):
        cells = []
        for output in OUTPUTS:
            found = np.array(held[world, where, output], dtype=float)
            smoothed, measured, width = found.mean(axis=0)
            cells += [f"{100 * smoothed:.0f} %", f"{100 * measured:.0f} %", f"{width:.2f}"]
        print(f"| {world} | {where} | {len(found)} | {' | '.join(cells)} |")


def rows(case: Case, budget: float, seed: int) -> Iterator[tuple[str, str, bool, bool, float]]:
    """Yields where each merge lies, an output, whether both intervals hold it, and the width of the smoothed one."""
    setup = ours.setup_of(
        num_prompts=case.num_prompts,
        repeats=case.repeats,
        confirm_repeats=case.confirm_repeats,
        budget=budget,
        has_module=case.has_module,
        share=1.0,
        seed=seed,
    )
    world = case.world(seed, num_search=setup.num_search, num_confirm=setup.num_confirm)
    observations = ours.explore(world, setup).observations
    model = fit(observations, setup.settings, cap=world.cap)
    merges = [each for each in observations.measured if parent_of(each.schedule) is None]
    for name, output in OUTPUTS.items():
        band = model.predict([each.schedule for each in merges], output)
        for i, each in enumerate(merges):
            truth = case.truths.truth(each.params)
            true = (truth.accuracy, truth.mean_tokens, truth.think_ratio)[output]
            low, high = CLIFF
            where = "cliff" if low <= truth.think_ratio <= high else "elsewhere"
            own = abs(each.values[output] - true) <= Z_95 * each.errors[output] + 1e-9
            holds = band.low[i] <= true <= band.high[i]
            yield where, name, holds, own, (band.high[i] - band.low[i]) / (2 * Z_95 * each.errors[output])


if __name__ == "__main__":
    main()
