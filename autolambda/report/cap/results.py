"""The results of caps on thinking: Thinking with one, the rival of the pick, and a merge whose tail one cuts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from autolambda.config import Config
from autolambda.report.results import ScheduleResult, confirmed_result
from autolambda.responses import Capped, Graded, with_cut
from autolambda.statistics.estimates import Difference
from autolambda.statistics.verdict import confirmed_of, difference
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


def cap_name(best: ScheduleResult | None, budget: float, *, of: CapOf) -> str:
    """Returns the name under which a study keeps a cap for an answer to a budget; ``best`` is the pick, if any."""
    return f"cap of {of} {digest(f'{budget:g}', best.schedule.key if best else '')}"


class Caps:
    """Reads the caps beside the answer to a budget: ``best`` is the pick, ``nearest`` the nearest merge without one.

    ``responses`` are those of the ``confirmed`` trials, ``own`` those of the parents under their own templates.
    """

    def __init__(
        self,
        store: Store,
        study: Study,
        config: Config,
        *,
        budget: float,
        best: ScheduleResult | None,
        nearest: ScheduleResult | None,
        confirmed: Sequence[ScheduleResult],
        responses: Mapping[int | None, Sequence[Graded]],
        own: Mapping[str, Sequence[Graded]],
    ) -> None:
        self._store, self._study, self._config, self._budget = store, study, config, budget
        self._best, self._reference = best, best or nearest
        self._confirmed, self._responses, self._own = confirmed, responses, own

    def read(self, of: CapOf) -> CapResult | None:
        """Returns the cap of the Thinking model or of a merge; ``None`` until it is measured."""
        key = self._study.kept(cap_name(self._best, self._budget, of=of))
        stored = self._store.evaluations(self._study.name, kind="cap", key=key) if key else []
        if not stored or self._reference is None:
            return None
        schedule, cut = stored[0].schedule, self._store.graded(stored[0])
        merge = next((each for each in self._confirmed if each.schedule == schedule), None)
        whole = self._own.get("thinking") if of == "thinking" else self._responses[merge.trial] if merge else None
        if whole is None or len(cut) < stored[0].num_responses:
            return None
        capped = Capped.from_key(stored[0].key)
        graded = with_cut(whole[: capped.num_responses], cut)
        trial, parent = (merge.trial, None) if of == "merge" and merge else (None, "thinking")
        result = confirmed_result(trial, schedule, graded, self._config, parents=self._own, parent=parent)
        change = difference(graded, self._responses_of(self._reference), weights=self._config.weights)
        return CapResult(result, capped, len(cut), change, self._is_better(graded, result, change))

    def _responses_of(self, result: ScheduleResult) -> Sequence[Graded]:
        return self._own[result.parent] if result.parent else self._responses[result.trial]

    def _is_better(self, graded: Sequence[Graded], result: ScheduleResult, change: Difference) -> bool:
        numbers = confirmed_of(graded, budget=self._budget, weights=self._config.weights, drops=result.drops)
        if not numbers.passes(self._budget):
            return False
        if self._best is None or change.low > 0:
            return True
        is_cheaper = numbers.mean_tokens < self._best.score.mean_tokens
        return is_cheaper and change.lower_bound > -self._config.confirm.margin
