"""The aims of a search: its budget, its rungs, its token allowance and the targets of its proposals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autolambda.optimizer.acquisition import Target
from autolambda.optimizer.observations import TOKENS, Observation, cost_at, near
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import is_between
from autolambda.optimizer.surrogate import Guards, prompt_correlation
from autolambda.optimizer.token_allowance import TokenAllowance
from autolambda.statistics.estimates import Z_95_ONE_SIDED

NUM_LEVELS = 6  # budgets that represent the whole front if no budget is given
TYPICAL_FINALISTS = 3  # confirmed for a budget
_EXCESS = 4.0  # the upper bound lies 1.645 + _EXCESS / sqrt(prompts) standard errors above the mean (simulated)


@dataclass(frozen=True)
class Aims:
    """The aims of a search.

    ``budget`` is in mean tokens. ``rungs`` are the numbers of responses at which a measurement may pause; the last is
    the full size. The confirm slice has ``num_confirm`` responses to ``num_confirm_prompts`` prompts. ``guards`` are
    the guard tasks, each with the accuracy (share of 1) that may be lost on it. No response is longer than
    ``max_tokens``.
    """

    budget: float | None
    rungs: tuple[int, ...]
    num_confirm: int
    num_confirm_prompts: int
    guards: Guards = ()
    max_tokens: float = math.inf


def allowance_of(measured: Sequence[Observation], settings: SearchSettings, aims: Aims) -> TokenAllowance | None:
    """Returns the allowance, ``None`` before two uniform lambdas from 0 to 1 are measured.

    The outermost of these represent the parents.
    """
    costs = {each.lam: each.cost for each in measured if is_between(each.lam)}
    if len(costs) < 2:
        return None
    ends = costs[min(costs)] + costs[max(costs)]
    return TokenAllowance.of(
        ends,
        num_search=aims.rungs[-1],
        num_confirm=aims.num_confirm,
        num_confirm_prompts=aims.num_confirm_prompts,
        cap=settings.max_tokens_generated,
    )


def targets_of(measured: Sequence[Observation], allowance: TokenAllowance, budget: float | None) -> list[Target]:
    """Returns the budget as the only target. Without a budget, returns several levels of mean tokens."""
    lengths = [each.values[TOKENS] for each in measured]
    if budget is not None:
        return [target_at(measured, allowance, budget)]
    levels = np.geomspace(min(lengths), max(lengths), NUM_LEVELS + 1)[1:]
    return [target_at(measured, allowance, float(level)) for level in levels]


def target_at(measured: Sequence[Observation], allowance: TokenAllowance, budget: float) -> Target:
    """Returns the target of a budget, for a confirmation of typical size."""
    num_final = allowance.num_final(cost_at(measured, TYPICAL_FINALISTS * budget), spent=allowance.search)
    spread = spread_at(measured, allowance, budget, num_final)
    return Target(budget, spread.total, reach_at(allowance.num_prompts(num_final)))


@dataclass(frozen=True)
class Spread:
    """The relative standard error of confirmed mean tokens. All finalists have its ``shared`` part in common."""

    total: float
    shared: float


def spread_at(measured: Sequence[Observation], allowance: TokenAllowance, budget: float, num_final: int) -> Spread:
    """Returns the relative standard error of a finalist's mean tokens near the budget, with ``num_final`` responses.

    The prompts' share of the variance falls with the number of prompts, the rest with the number of responses.
    """
    rho = prompt_correlation(measured, TOKENS)
    nearest = near(measured, budget)
    variances = [
        (each.errors[TOKENS] / each.values[TOKENS]) ** 2
        / (rho / len(each.prompts) + (1 - rho) / (each.counted * each.num_responses))
        for each in nearest
    ]
    counted, variance = float(np.median([each.counted for each in nearest])), float(np.median(variances))
    shared = rho / (counted * allowance.num_prompts(num_final))
    own = (1 - rho) / (counted * num_final)
    return Spread(math.sqrt(variance * (shared + own)), math.sqrt(variance * shared))


def reach_at(num_prompts: int) -> float:
    """Returns how many standard errors the upper bound of mean tokens will lie above the mean."""
    return Z_95_ONE_SIDED + _EXCESS / math.sqrt(num_prompts)
