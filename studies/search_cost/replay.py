"""Replays searches, ours and those of today's tools, in worlds whose truth is known.

python studies/search_cost/replay.py run OUT.jsonl --worlds FILE.json[,NAME...] [--seeds 200:220]
    [--strategies ours,grid11,...] [--allowance 0.2,0.5,1]
python studies/search_cost/replay.py table OUT.jsonl [--json]

``run`` adds a JSON line a search: what it chose, what it claimed, and what is true. A search whose line is there is
skipped. Seeds are outermost, so that a stopped run is a smaller one. Seeds from 200 on are for comparisons; nothing may
be tuned on them. ``cases.py`` says what the names of worlds mean, ``table.py`` prints.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ours
import rivals
from bank import Params, Truths
from cases import Case, find_cases
from ours import Outcome, Setup
from scores import crossings, facts_of, num_wasted
from table import markdown, read_rows, to_json

from autolambda.errors import InputError
from autolambda.statistics.estimates import Estimate

STRATEGIES = ("ours", *rivals.NUM_TRIALS)


@dataclass(frozen=True)
class Search:
    """One search to replay."""

    case: Case
    budget: float
    strategy: str
    allowance: float  # share of the default
    seed: int

    @property
    def key(self) -> list[Any]:
        return [self.case.name, self.budget, self.strategy, self.allowance, self.seed]

    @property
    def setup(self) -> Setup:
        return ours.setup_of(
            num_prompts=self.case.num_prompts,
            repeats=self.case.repeats,
            confirm_repeats=self.case.confirm_repeats,
            budget=self.budget,
            has_module=self.case.has_module,
            share=self.allowance,
            seed=self.seed,
        )

    def run(self) -> dict[str, Any]:
        """Replays the search, and returns its row."""
        setup, started = self.setup, time.process_time()
        world = self.case.world(self.seed, num_search=setup.num_search, num_confirm=setup.num_confirm)
        search = ours.search if self.strategy == "ours" else _rival(self.strategy)
        outcome = search(world, setup)
        seconds = time.process_time() - started
        return {
            "key": self.key,
            "allowance": ours.allowance(world, setup),
            "cpu_s": seconds,
            **_told(outcome),
            **_true(self.case, self.budget, outcome),
        }


def searches(
    cases: Sequence[Case], seeds: range, strategies: Sequence[str], allowances: Sequence[float]
) -> Iterator[Search]:
    """All searches, seed by seed."""
    for seed in seeds:
        for case in cases:
            for budget in case.budgets:
                for strategy in strategies:
                    for allowance in allowances:
                        yield Search(case, budget, strategy, allowance, seed)


def run(args: argparse.Namespace) -> int:
    """Replays what is not in the file yet. Returns 1 if a search failed."""
    strategies = args.strategies.split(",")
    if unknown := [name for name in strategies if name not in STRATEGIES]:
        raise InputError(f"no strategy {unknown[0]!r}: one of {', '.join(STRATEGIES)}")
    cases = find_cases(args.worlds.split(","))
    planned = searches(cases, parse_seeds(args.seeds), strategies, _shares(args.allowance))
    done = {json.dumps(row["key"]) for row in read_rows(args.out)} if args.out.exists() else set()
    num_failed = 0
    with args.out.open("a+", encoding="utf-8") as out:
        if _ends_within_a_line(args.out):
            out.write("\n")
        for search in planned:
            if json.dumps(search.key) in done:
                continue
            try:
                row = search.run()
            except Exception as error:  # the other searches are still wanted; the exit code tells
                num_failed += 1
                place = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(place.filename).name}:{place.lineno}"
                print(f"failed: {search.key}: {type(error).__name__}: {error} ({where})", file=sys.stderr, flush=True)
                continue
            out.write(json.dumps(row, default=_plain) + "\n")
            out.flush()
    return 1 if num_failed else 0


def table(args: argparse.Namespace) -> int:
    """Prints the table of a file."""
    if not args.out.exists():
        raise InputError(f"no file {args.out}")
    rows = read_rows(args.out)
    if not rows:
        raise InputError(f"{args.out} has no searches")
    print(json.dumps(to_json(rows), indent=1, allow_nan=False) if args.json else markdown(rows))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="replay searches")
    runs.add_argument("out", type=Path)
    runs.add_argument("--worlds", default="given")
    runs.add_argument("--seeds", default="200:220", help="FROM:TO, without the last")
    runs.add_argument("--strategies", default="ours,grid11,grid21,tpe")
    runs.add_argument("--allowance", default="1", help="shares of the default allowance of tokens")
    runs.set_defaults(do=run)
    tables = commands.add_parser("table", help="print a table of them")
    tables.add_argument("out", type=Path)
    tables.add_argument("--json", action="store_true")
    tables.set_defaults(do=table)
    args = parser.parse_args(arguments)
    try:
        return int(args.do(args))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _rival(name: str) -> Any:
    return lambda world, setup: rivals.search(name, world, setup)


def _told(outcome: Outcome) -> dict[str, Any]:
    """What a search reports."""
    return {
        "tokens": outcome.num_tokens,
        "search_tokens": outcome.search_tokens,
        "trials": outcome.num_trials,
        "verdict": str(outcome.verdict),
        "parent": outcome.parent,
        "likely": outcome.likely,
        "chosen": None if outcome.chosen is None else dict(outcome.chosen),
        "reported": dict(outcome.reported),
        "claimed": _interval(outcome.accuracy),
        "claimed_tokens": _interval(outcome.mean_tokens),
        "stop_reason": outcome.stop_reason,
        "loop_s": outcome.seconds,
    }


def _true(case: Case, budget: float, outcome: Outcome) -> dict[str, Any]:
    """What is true of what it reports."""
    facts, truths = facts_of(case, budget), case.truths
    boundaries = {}
    for name, lam in crossings(case).items():
        claim = getattr(outcome.stages, name)
        boundaries[name] = None if claim is None or lam is None else [claim.lam, claim.low, claim.high, lam]
    return {
        "best": facts.best,
        "provable": facts.provable,
        "instruct": _pair(facts.instruct),
        "thinking": _pair(facts.thinking),
        "chosen_true": None if outcome.chosen is None else _numbers(truths, outcome.chosen),
        "reported_true": _numbers(truths, outcome.reported),
        "finalists_true": [_numbers(truths, params) for params in outcome.finalists],
        "boundaries": boundaries,
        "places": len(outcome.places),
        "wasted": num_wasted(truths, outcome.places),
    }


def _numbers(truths: Truths, params: Params) -> list[float]:
    return _pair(truths.truth(params))


def _pair(truth: Any) -> list[float]:
    return [truth.accuracy, truth.mean_tokens]


def _interval(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]


def _plain(value: Any) -> Any:
    """What JSON does not know: params, estimates and numbers of NumPy."""
    if isinstance(value, Mapping):
        return dict(value)
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value.item()


def parse_seeds(text: str) -> range:
    first, colon, last = text.partition(":")
    try:
        seeds = range(int(first), int(last) if colon else int(first) + 1)
    except ValueError:
        raise InputError(f"--seeds takes FROM:TO, seen {text!r}") from None
    if not seeds or seeds[0] < 0:
        raise InputError(f"--seeds {text} holds no seed")
    return seeds


def _shares(text: str) -> list[float]:
    try:
        shares = [float(share) for share in text.split(",")]
    except ValueError:
        raise InputError(f"--allowance takes shares of the default such as 0.5,1, seen {text!r}") from None
    if not all(0 < share <= 100 for share in shares):
        raise InputError(f"--allowance takes shares above 0 and at most 100, seen {text!r}")
    return shares


def _ends_within_a_line(path: Path) -> bool:
    """Whether the last line of a file was cut off, as by a kill."""
    text = path.read_bytes()
    return bool(text) and not text.endswith(b"\n")


if __name__ == "__main__":
    sys.exit(main())
