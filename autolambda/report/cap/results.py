"""The results of caps on thinking: Thinking with one, the rival of the pick, and a merge whose tail one cuts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from autolambda.config import Config
from autolambda.report.results import ScheduleResult, confirmed_result
from autolambda.responses import Capped, Graded, with_cut
from autolambda.statistics.estimates import Difference
from autolambda.statistics.metrics import difference
from autolambda.statistics.verdict import confirmed_of
from autolambda.study.store import Store
from autolambda.study.trials import Study
from autolambda.tasks.digest import digest

CapOf = Literal["thinking", "merge"]


@dataclass(frozen=True)
class CapResult:
    """A model with the cap ``capped`` on its thinking, measured on the confirmation's prompts.

    The cap changed ``num_cut`` responses. ``difference`` is its accuracy minus that of the pick (without one: of the
    nearest merge), paired by prompt. ``is_better`` means that it is shown within the budget, and more accurate than the
    pick or as accurate within the margin for fewer tokens.
    """

    result: ScheduleResult
    capped: Capped
    num_cut: int
    difference: Difference
    is_better: bool

    @property
    def cut_ratio(self) -> float:
        """The share of responses that the cap changed."""
        return self.num_cut / self.capped.num_responses

    @property
    def forced_tokens(self) -> float:
        """The mean number of forced tokens of a response. They are in its mean tokens."""
        return self.cut_ratio * self.capped.num_forced

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object: the cap, the result, and the paired difference to the pick."""
        return {
            "tokens": self.capped.tokens,
            "closing": self.capped.closing,
            "forced_tokens": self.forced_tokens,
            "cut_ratio": self.cut_ratio,
            **self.result.to_dict(),
            "accuracy_difference": self.difference.value,
            "accuracy_difference_low": self.difference.low,
            "accuracy_difference_high": self.difference.high,
            "is_better": self.is_better,
        }


def cap_name(best: ScheduleResult | None, budget: float, config: Config, *, of: CapOf) -> str:
    """Returns the name under which a study keeps a cap for an answer to a budget; ``best`` is the pick, if any."""
    return f"cap of {of} {digest(f'{budget:g}', best.schedule.key if best else '', config.cap.closing)}"


@dataclass(frozen=True)
class CapsBeside:
    """The caps beside an answer, of the Thinking model and of a merge, as far as they are measured."""

    thinking: CapResult | None = None
    merge: CapResult | None = None


@dataclass(frozen=True)
class Caps:
    """Reads caps: ``responses`` are those of the ``confirmed`` trials, ``own`` those of the parents by themselves."""

    store: Store
    study: Study
    config: Config
    confirmed: Sequence[ScheduleResult]
    responses: Mapping[int | None, Sequence[Graded]]
    own: Mapping[str, Sequence[Graded]]

    def beside(self, best: ScheduleResult | None, nearest: ScheduleResult | None, *, budget: float) -> CapsBeside:
        """Returns the measured caps for an answer to a budget: ``best`` is the pick, else ``nearest`` a merge."""
        reference = best or nearest
        if reference is None:
            return CapsBeside()
        picked = self.own[reference.parent] if reference.parent else self.responses[reference.trial]
        answer = _Answer(budget, best, picked)
        return CapsBeside(self._read("thinking", answer), self._read("merge", answer))

    def _read(self, of: CapOf, answer: _Answer) -> CapResult | None:
        key = self.study.kept(cap_name(answer.best, answer.budget, self.config, of=of))
        stored = self.store.evaluations(self.study.name, kind="cap", key=key) if key else []
        if not stored:
            return None
        schedule, cut = stored[0].schedule, self.store.graded(stored[0])
        merge = next((each for each in self.confirmed if each.schedule == schedule), None)
        whole = self.own.get("thinking") if of == "thinking" else self.responses[merge.trial] if merge else None
        if whole is None or len(cut) < stored[0].num_responses:
            return None
        capped = Capped.from_key(stored[0].key)
        graded = with_cut(whole[: capped.num_responses], cut)
        trial, parent = (merge.trial, None) if of == "merge" and merge else (None, "thinking")
        result = confirmed_result(trial, schedule, graded, self.config, parents=self.own, parent=parent)
        change = difference(graded, answer.picked, weights=self.config.weights)
        return CapResult(result, capped, len(cut), change, self._is_better(graded, result, change, answer))

    def _is_better(self, graded: Sequence[Graded], result: ScheduleResult, change: Difference, answer: _Answer) -> bool:
        numbers = confirmed_of(graded, budget=answer.budget, weights=self.config.weights, drops=result.drops)
        if not numbers.passes(answer.budget):
            return False
        if answer.best is None or change.low > 0:
            return True
        is_cheaper = numbers.mean_tokens < answer.best.score.mean_tokens
        return is_cheaper and change.lower_bound > -self.config.confirm.margin


@dataclass(frozen=True)
class _Answer:
    """The budget, the pick for it, and the responses of the pick, or of the nearest merge without one."""

    budget: float
    best: ScheduleResult | None
    picked: Sequence[Graded]


def with_cut_baseline(
    baselines: Mapping[str, ScheduleResult], cap: CapResult | None, config: Config
) -> dict[str, ScheduleResult]:
    """Adds the cap on Thinking to the baselines, if it was asked for as one."""
    if cap is None or "cut" not in config.search.baselines:
        return dict(baselines)
    return {**baselines, f"cut at {cap.capped.tokens} tokens": cap.result}
