"""Chooses the finalists: the schedules to confirm on unseen prompts, their order and their numbers of responses.

The choice depends only on the search and is made before anything is confirmed (see ``statistics/verdict.py``). The
cheapest finalist is tested first; with guards and a budget, the finalist with the highest chance.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autolambda.optimizer import acquisition
from autolambda.optimizer.aims import Aims, allowance_of, reach_at, spread_at, target_at
from autolambda.optimizer.observations import ACCURACY, Observations, cost_at
from autolambda.optimizer.portfolio import Portfolio, Precision
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import ENDS, is_between
from autolambda.optimizer.surrogate import PosteriorSamples, Surrogate, fit, prompt_correlation
from autolambda.optimizer.token_allowance import TokenAllowance
from autolambda.schedule import Schedule
from autolambda.statistics.estimates import Floats
from autolambda.statistics.pareto import Objectives, front
from autolambda.statistics.verdict import confirmation_order

NUM_DRAWS = 512
LIKELY = 0.5  # chance to break no guard at which a schedule may be confirmed if there is no budget
HOPELESS = 0.01  # chance to be shown within the budget below which only the cheapest merge is confirmed
IN_PLAY = 0.05  # chance to be within the budget at which a parent may be the answer


@dataclass(frozen=True)
class Plan:
    """The finalists in testing order, as indices of the measured schedules, and the numbers of responses.

    ``num_parents`` are those of Instruct and Thinking. ``expected`` [n] and ``covariance`` [n][n] are the finalists'
    accuracy by the search (share of 1), ``shared`` the part of the confirmation's errors that all have in common.
    """

    finalists: tuple[int, ...]
    num_responses: int
    num_parents: tuple[int, int]
    expected: tuple[float, ...] = ()
    covariance: tuple[tuple[float, ...], ...] = ()
    shared: float = 0.0

    def combined(self, confirmed: Sequence[float]) -> list[float]:
        """Returns the accuracies of the first finalists by search and confirmation together.

        The pick is chosen by them. What is claimed for it is the confirmation's alone.
        """
        size = len(confirmed)
        if not self.expected:
            return list(confirmed)
        seen, mean = np.array(confirmed), np.array(self.expected[:size])
        prior = np.array(self.covariance)[:size, :size]
        single = float(np.clip(seen.mean() * (1 - seen.mean()), 0.02, 0.25)) / self.num_responses
        noise = single * (self.shared + (1 - self.shared) * np.eye(size))
        result: list[float] = (mean + prior @ np.linalg.solve(prior + noise, seen - mean)).tolist()
        return result


def plan(observations: Observations, settings: SearchSettings, aims: Aims, *, model: Surrogate | None = None) -> Plan:
    """Returns the finalists for the budget of ``aims``, or along the whole front without a budget.

    For a budget, they are the set whose confirmation is expected to end with the most accurate pick. Without a budget,
    they are spread evenly over the predicted front of schedules that probably break no guard. ``model`` is a surrogate
    that is already fitted to the observations.
    """
    measured = observations.measured
    allowance = allowance_of(measured, settings, aims)
    if allowance is None:  # only one end of the ladder is measured
        size = aims.num_confirm
        return Plan(tuple(range(len(measured)))[: settings.finalists], size, (size, size))
    schedules = [each.schedule for each in measured]
    model = model or fit(observations, settings, guards=aims.guards, cap=aims.max_tokens)
    draw = model.draw(schedules, num_draws=NUM_DRAWS, seed=settings.seed)
    predicted = draw.tokens.mean(axis=0).tolist()
    chance: Floats = draw.allowed.mean(axis=0)
    if aims.budget is None:
        scores = [Objectives(*pair) for pair in zip(draw.accuracy.mean(axis=0).tolist(), predicted, strict=True)]
        eligible = np.flatnonzero(chance >= min(LIKELY, float(chance.max()))).tolist()
        members = front(eligible, key=lambda index: scores[index])
        chosen = [members[i] for i in _even(len(members), settings.finalists)]
    else:
        chance = acquisition.chances(draw, target_at(measured, allowance, aims.budget))
        portfolio = portfolio_of(
            draw, schedules, observations, settings, aims, allowance, spent=float(observations.num_tokens)
        )
        chosen = _for_budget(portfolio, draw, schedules, chance, settings)
    order = confirmation_order([predicted[index] for index in chosen])
    if aims.guards and aims.budget is not None:
        order = tuple(sorted(order, key=lambda i: -chance[chosen[i]]))
    finalists = tuple(chosen[i] for i in order)
    costs = sum(predicted[index] * measured[index].cost_ratio for index in finalists)
    parents = _ParentCosts.of(draw, schedules, observations, aims, allowance)
    num_responses = parents.num_final(costs, spent=float(observations.num_tokens))
    accuracy = draw.accuracy[:, list(finalists)]
    covariance = np.atleast_2d(np.cov(accuracy, rowvar=False)) + 1e-8 * np.eye(len(finalists))
    return Plan(
        finalists,
        num_responses,
        parents.num_parents(num_responses),
        tuple(accuracy.mean(axis=0).tolist()),
        tuple(map(tuple, covariance.tolist())),
        prompt_correlation(measured, ACCURACY),
    )


def _for_budget(
    portfolio: Portfolio,
    draw: PosteriorSamples,
    schedules: Sequence[Schedule],
    chance: Floats,
    settings: SearchSettings,
) -> list[int]:
    """Returns the most valuable set of merges.

    The best uniform lambda stands beside any other schedule. Beside any beyond the line between the parents stand the
    best on the line and the best uniform lambda, as far as there is room. A single finalist is on the line. The best
    are chosen each by itself: beside a schedule that leads them all, they would add nothing to the value.
    """
    merges = [index for index, schedule in enumerate(schedules) if schedule not in ENDS]
    if not merges:
        return list(range(len(schedules)))[: settings.finalists]
    on_line = [index for index in merges if schedules[index].is_on_line]
    uniform = [index for index in on_line if schedules[index].lam is not None]
    if settings.finalists == 1:
        merges = on_line or merges
    chosen, _ = portfolio.best(merges, settings.finalists)
    if max(chance[chosen]) < HOPELESS:
        chosen = [min(merges, key=lambda index: portfolio.mean_tokens[index])]
    if set(chosen) <= set(uniform):
        return chosen
    kinds = (uniform,) if set(chosen) <= set(on_line) else (on_line, uniform)
    best = [portfolio.best(places, 1)[0][0] for places in kinds if places]
    rivals = list(dict.fromkeys(best))[: settings.finalists - 1]
    others = sorted(set(chosen) - set(rivals), key=lambda index: (index in on_line, chosen.index(index)))
    return [*others[: settings.finalists - len(rivals)], *rivals]


@dataclass(frozen=True)
class _ParentCosts:
    """What the confirmation of the parents costs, in tokens per response.

    Those ``in_play`` may be the answer, and get all responses. Others answer each prompt of the finalists once.
    """

    costs: tuple[float, float]
    in_play: tuple[bool, bool]
    allowance: TokenAllowance

    @classmethod
    def of(
        cls,
        draw: PosteriorSamples,
        schedules: Sequence[Schedule],
        observations: Observations,
        aims: Aims,
        allowance: TokenAllowance,
    ) -> _ParentCosts:
        costs, in_play = [], []
        known = {each.schedule: each.cost for each in observations.measured}
        uniform = {lam: i for i, each in enumerate(schedules) if each in known and is_between(lam := each.lam)}
        for end, outermost in zip(ENDS, (min, max), strict=True):
            index = schedules.index(end) if end in schedules else uniform[outermost(uniform)]
            costs.append(known.get(schedules[index], allowance.ends / 2))
            within = aims.budget is not None and float((draw.tokens[:, index] <= aims.budget).mean()) >= IN_PLAY
            in_play.append(bool(aims.guards) or aims.budget is None or within)
        return cls((costs[0], costs[1]), (in_play[0], in_play[1]), allowance)

    def num_final(self, costs: float, *, spent: float) -> int:
        both = list(zip(self.costs, self.in_play, strict=True))
        once = sum(cost for cost, plays in both if not plays)
        return self.allowance.num_final(costs + sum(cost for cost, plays in both if plays), spent=spent, once=once)

    def num_parents(self, num_responses: int) -> tuple[int, int]:
        first, second = (
            num_responses if plays else self.allowance.num_prompts(num_responses) for plays in self.in_play
        )
        return first, second


def portfolio_of(
    draw: PosteriorSamples,
    schedules: Sequence[Schedule],
    observations: Observations,
    settings: SearchSettings,
    aims: Aims,
    allowance: TokenAllowance,
    *,
    spent: float,
) -> Portfolio:
    """Returns the portfolio over ``schedules``, given a joint ``draw`` at them that begins with the measured ones."""
    assert aims.budget is not None
    measured, budget = observations.measured, aims.budget
    parents = _ParentCosts.of(draw, schedules, observations, aims, allowance)
    mean_tokens = draw.tokens.mean(axis=0)
    shared = prompt_correlation(measured, ACCURACY)

    @functools.cache
    def with_size(num_final: int) -> Precision:
        spread = spread_at(measured, allowance, budget, num_final)
        error = math.sqrt((1 - shared) * 0.2 / num_final)
        return Precision(spread.total, spread.shared, reach_at(allowance.num_prompts(num_final)), error)

    def precision(members: Sequence[int]) -> Precision:
        costs = cost_at(measured, float(mean_tokens[list(members)].sum()))
        num_final = parents.num_final(costs, spent=spent)
        return with_size(round(2 ** (round(8 * math.log2(num_final)) / 8)))

    alone = with_size(parents.num_final(budget, spent=spent))
    fallback = np.zeros(len(draw.tokens))
    for end in ENDS:
        if end in schedules:
            index = schedules.index(end)
            within = draw.tokens[:, index] * (1 + alone.reach * alone.spread) <= budget
            fallback = np.maximum(fallback, np.where(within, draw.accuracy[:, index], 0.0))
    order = -acquisition.chances(draw, target_at(measured, allowance, budget)) if aims.guards else mean_tokens
    seed = settings.seed + observations.num_trials
    lead = np.array([0.0 if each.lam is not None else settings.margin for each in schedules])
    return Portfolio(draw, budget=budget, precision=precision, fallback=fallback, seed=seed, order=order, lead=lead)


def _even(count: int, limit: int) -> list[int]:
    """Returns up to ``limit`` positions spread evenly over ``count``, both ends included."""
    if count <= limit:
        return list(range(count))
    return sorted({round(i * (count - 1) / max(limit - 1, 1)) for i in range(limit)})
