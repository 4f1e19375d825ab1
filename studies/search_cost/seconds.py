"""The seconds of searches on a GPU of stated speed (``gpu.py``), with fixed rungs and with rungs that grow by its pace.

python studies/search_cost/seconds.py [--worlds paper:ifeval,...] [--seeds 200:220]

The worlds are the paper's tables for Qwen3-4B, with responses of at most 32,768 tokens. Prints a table of means over
the seeds: the points lost, the calls, the seconds of all calls, the seconds at saturated speed (an endless queue of
the same responses), and their ratio.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import ours
from bank import Floats, Index, Params, Phase
from cases import Case, find_cases
from gpu import ROW, STEP, call_seconds, saturated_speed
from paper import PaperBank, PaperWorld
from replay import Search, parse_seeds
from scores import facts_of, lost_of

from autolambda.errors import InputError
from autolambda.optimizer.observations import TOKENS
from autolambda.statistics.pace import Pace

CAP = 32_768
WORLDS = "paper:ifeval,paper:gpqa_diamond,paper:aime25"


class TimedWorld(PaperWorld):
    """A replay that keeps the lengths of each call, and at how many tokens it was aborted."""

    def __init__(self, bank: PaperBank, seed: int, *, num_search: int, num_confirm: int) -> None:
        self.calls: list[tuple[Floats, float]] = []
        self._num_tokens = 0
        super().__init__(bank, seed, num_search=num_search, num_confirm=num_confirm)

    @property
    def num_tokens(self) -> int:
        """The tokens of all that was measured. Tokens are taken back only from the last call, when it is aborted."""
        return self._num_tokens

    @num_tokens.setter
    def num_tokens(self, value: int) -> None:
        if value < self._num_tokens:
            lengths, most = self.calls.pop()
            self.calls.append((lengths, min(most, lengths.sum()) - (self._num_tokens - value)))
        self._num_tokens = value

    def measure(self, params: Params, phase: Phase, index: Index) -> Floats:
        """As in the other worlds, and keeps the lengths."""
        outcomes = super().measure(params, phase, index)
        self.calls.append((outcomes[:, TOKENS], np.inf))
        return outcomes

    def pace(self) -> Pace | None:
        """The stated speed, with the longest response of the first call."""
        if not self.calls:
            return None
        first, _ = self.calls[0]
        return Pace(STEP, ROW, float(first.max() / first.mean()))


@dataclass(frozen=True)
class Seconds:
    """What a search took. ``ideal`` are its seconds at saturated speed."""

    lost: float
    calls: int
    spent: float
    ideal: float


def replay(case: Case, budget: float, seed: int, *, is_paced: bool) -> Seconds:
    """Replays a search and adds up the seconds of its calls."""
    setup = Search(case, budget, "ours", 1.0, seed).setup
    assert isinstance(case.truths, PaperBank)
    world = TimedWorld(case.truths, seed, num_search=setup.num_search, num_confirm=setup.num_confirm)
    outcome = ours.search(world, setup, pace_of=world.pace) if is_paced else ours.search(world, setup)
    chosen = None if outcome.chosen is None else case.truths.truth(outcome.chosen)
    spent = sum(call_seconds(lengths, most_tokens=most) for lengths, most in world.calls)
    speed = saturated_speed(np.concatenate([lengths for lengths, _ in world.calls]))
    lost = lost_of(facts_of(case, budget), budget, chosen=chosen, parent=outcome.parent)
    return Seconds(lost, len(world.calls), spent, outcome.num_tokens / speed)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worlds", default=WORLDS)
    parser.add_argument("--seeds", default="200:220", help="FROM:TO, without the last")
    args = parser.parse_args(arguments)
    try:
        cases, seeds = find_cases(args.worlds.split(",")), parse_seeds(args.seeds)
        if others := [case.name for case in cases if not isinstance(case.truths, PaperBank)]:
            raise InputError(f"no lengths of a GPU in {others[0]!r}: give worlds of the paper, such as {WORLDS}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("| world | rungs | lost | calls | seconds | at saturated speed | ratio |\n|---|---|---|---|---|---|---|")
    for case in cases:
        capped = replace(case, truths=PaperBank(case.name.partition(":")[2], cap=CAP), cap=float(CAP))
        for budget in case.budgets:
            for is_paced in (False, True):
                found = [replay(capped, budget, seed, is_paced=is_paced) for seed in seeds]
                lost, calls, spent, ideal = np.mean([astuple(each) for each in found], axis=0)
                ratio = np.mean([each.spent / each.ideal for each in found])
                rungs = "by pace" if is_paced else "fixed"
                cells = (f"{lost:.1f}", f"{calls:.1f}", f"{spent:,.0f}", f"{ideal:,.0f}", f"{ratio:.2f}")
                print(f"| {case.name}@{budget:g} | {rungs} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
