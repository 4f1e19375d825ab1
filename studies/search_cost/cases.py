"""The cases of the benchmark: worlds whose truth is known, each with its size and its budgets, found by their names.

A name is that of a group (``GROUPS``), of one case in a group (``dip``, ``bank100``, ``paper:ifeval``), of a file of
pairs (``FILE.json``) or of a recorded bank (``FILE.npz``). ``@`` and a budget behind it keep that budget only:
``bank@40``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from bank import BANK, BANK_CAP, Bank, Replay, Truths, World
from paper import MAX_TOKENS, PaperBank, PaperWorld
from worlds import NO_CAP, Pair, PairWorld, load_pairs

from autolambda.errors import InputError

PAIRS = Path(__file__).parent / "worlds.json"
RECORDED = Path(__file__).parent / "recorded"
BANK_BUDGETS = (25.0, 40.0, 60.0)
# the paper's benchmarks at their real sizes: budgets, prompts of half of the rows, repeats, repeats to confirm
PAPER: dict[str, tuple[tuple[float, ...], int, int, int]] = {
    "aime25": ((16_000.0,), 30, 8, 8),
    "ifeval": ((1_500.0,), 270, 2, 1),
    "gpqa_diamond": ((6_000.0,), 99, 4, 1),
}


@dataclass(frozen=True)
class Case:
    """A user's case: what is true, and what the user has.

    The file has ``2 * num_prompts`` rows. ``repeats`` and ``confirm_repeats`` are those of the benchmark. ``cap`` is
    the most tokens of a response.
    """

    name: str
    budgets: tuple[float, ...]
    truths: Truths
    num_prompts: int
    repeats: int
    confirm_repeats: int
    has_module: bool
    cap: float

    def world(self, seed: int, *, num_search: int, num_confirm: int) -> Replay:
        """A replay with its own prompts for the search and for the confirmation."""
        if isinstance(self.truths, Pair):
            return PairWorld(self.truths, seed, num_search=num_search, num_confirm=num_confirm)
        if isinstance(self.truths, PaperBank):
            return PaperWorld(self.truths, seed, num_search=num_search, num_confirm=num_confirm)
        assert isinstance(self.truths, Bank)
        return World(self.truths, seed, num_search=num_search, num_confirm=num_confirm, cap=self.cap)


def find_cases(names: Iterable[str]) -> list[Case]:
    """The cases of these names, each once. Raises ``InputError`` for an unknown name or two cases of one name."""
    found: dict[str, Case] = {}
    for name in names:
        for case in _cases_of(name):
            known = found.setdefault(case.name, case)
            if replace(known, budgets=()) != replace(case, budgets=()):
                raise InputError(f"two worlds are called {case.name}; run them into different files")
            found[case.name] = replace(known, budgets=tuple(dict.fromkeys([*known.budgets, *case.budgets])))
    return list(found.values())


def _cases_of(name: str) -> list[Case]:
    base, budget = re.fullmatch(r"(.*?)(?:@([0-9.]+))?", name).groups()  # type: ignore[union-attr]  # anything matches
    cases = _group(base)
    if not cases and base == "recorded":
        raise InputError(f"no recorded bank in {RECORDED}")
    if not cases:
        raise InputError(
            f"no world {base!r}: give a file of pairs that ends in .json, a bank that ends in .npz, "
            f"one of {', '.join(GROUPS)}, or one in them"
        )
    if not budget:
        return cases
    kept = [replace(case, budgets=tuple(b for b in case.budgets if b == float(budget))) for case in cases]
    if not any(case.budgets for case in kept):
        seen = ", ".join(f"{b:g}" for case in cases for b in case.budgets)
        raise InputError(f"no world {name!r}: {base} has the budgets {seen}")
    return [case for case in kept if case.budgets]


def _group(base: str) -> list[Case]:
    if base.endswith(".json"):
        return [_pair_case(pair) for pair in load_pairs(Path(base))]
    if base.endswith(".npz"):
        return [_recorded_case(Path(base))]
    if base in GROUPS:
        return GROUPS[base]()
    return next(filter(None, ([case for case in group() if case.name == base] for group in _SINGLE)), [])


def _pair_case(pair: Pair) -> Case:
    cap = pair.cap if pair.cap < NO_CAP else float("inf")
    return Case(
        pair.name,
        tuple(map(float, pair.budgets)),
        pair,
        pair.num_prompts,
        pair.repeats,
        pair.confirm_repeats,
        pair.has_module,
        cap,
    )


@cache
def _bundled() -> Bank:
    return Bank(BANK)


def _pairs() -> list[Case]:
    return [_pair_case(pair) for pair in load_pairs(PAIRS)]


def _bank() -> list[Case]:
    return [Case("bank", BANK_BUDGETS, _bundled(), 1000, 2, 8, True, BANK_CAP)]


def _bank100() -> list[Case]:
    return [Case("bank100", BANK_BUDGETS[1:], _bundled(), 100, 2, 1, True, BANK_CAP)]


@cache
def _paper_bank(benchmark: str) -> PaperBank:
    return PaperBank(benchmark)


def _paper() -> list[Case]:
    return [
        Case(f"paper:{name}", budgets, _paper_bank(name), size, repeats, confirm, False, float(MAX_TOKENS))
        for name, (budgets, size, repeats, confirm) in PAPER.items()
    ]


def _recorded() -> list[Case]:
    """The other banks: ``NAME.npz`` as bank.npz, and ``NAME.json`` with name, budgets, num_prompts and repeats."""
    return [_recorded_case(path) for path in sorted(RECORDED.glob("*.npz"))]


@cache
def _recorded_case(path: Path) -> Case:
    try:
        plain = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        bank = Bank(path, uniform=not plain.get("has_module", True))
        sizes = (int(plain["num_prompts"]), int(plain["repeats"]), int(plain.get("confirm_repeats", 1)))
        budgets = tuple(map(float, plain["budgets"]))
        return Case(plain["name"], budgets, bank, *sizes, bank.has_module, float(plain.get("cap", "inf")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read with its .json: {error}") from None
    except KeyError as error:
        raise InputError(f"{path.with_suffix('.json')}: lacks {error}") from None


def _given() -> list[Case]:
    return [*_pairs(), *_bank100(), *_paper(), replace(_bank()[0], budgets=(40.0,))]


def _bank_uniform() -> list[Case]:
    return [replace(case, name="bank_uniform", has_module=False) for case in _bank()]


def _recorded100() -> list[Case]:
    """The recorded pairs with files of 200 rows."""
    return [replace(case, name=f"{case.name}100", num_prompts=100, repeats=1) for case in _recorded()]


GROUPS: dict[str, Callable[[], list[Case]]] = {
    "given": _given,
    "pairs": _pairs,
    "bank": _bank,
    "bank_uniform": _bank_uniform,
    "bank100": _bank100,
    "paper": _paper,
    "recorded": _recorded,
    "recorded100": _recorded100,
}
_SINGLE = (_pairs, _paper, _recorded)
