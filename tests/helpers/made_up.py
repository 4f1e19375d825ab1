"""Evidence by hand: a made-up truth in the sampler's box, and points as if they had been measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from autolambda.config import parse_config
from autolambda.optimizer.aims import Aims
from autolambda.optimizer.observations import TOKENS, Observation, Observations, PartObservation, Proposal
from autolambda.optimizer.propose import Stop, propose
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import to_schedule
from autolambda.optimizer.surrogate import Guards

RUNGS = (64, 256)
GUARD = "rules"
Truth = Callable[[Mapping[str, float]], tuple[float, float, float]]


def truth(params: Mapping[str, float]) -> tuple[float, float, float]:
    """Accuracy, tokens and Think ratio: all rise with lam between 0.4 and 0.6, accuracy a little with the split."""
    ratio = min(1.0, max(0.0, (params["lam"] - 0.4) * 5))
    return 0.4 + 0.4 * ratio + 0.05 * params["split"], 10 + 100 * ratio, ratio


def guarded_truth(params: Mapping[str, float]) -> float:
    """The accuracy on a guard task: it collapses in the middle of lam and comes back, not quite, at its end."""
    lam = params["lam"]
    return 0.8 - 0.5 * min(1.0, max(0.0, (lam - 0.3) * 10)) + 0.48 * min(1.0, max(0.0, (lam - 0.8) * 10))


def point(
    params: Mapping[str, float],
    num_responses: int = RUNGS[-1],
    *,
    values: tuple[float, float, float] | None = None,
    guard: float | None = None,
) -> Observation:
    """A point that was measured without luck, with the errors of so many responses to as many prompts.

    With the accuracy on a ``guard`` task it was measured on as many of that task too.
    """
    accuracy, tokens, ratio = values or truth(params)
    root = num_responses**0.5
    errors = tuple(max(share * (1 - share), 0.01) ** 0.5 / root for share in (accuracy, ratio))
    return Observation(
        to_schedule(params),
        (accuracy, tokens, ratio),
        (errors[0], 0.6 * tokens / root, errors[1]),
        np.arange(num_responses),
        np.zeros((num_responses, 3)),
        params,
        num_responses,
        {} if guard is None else {GUARD: guarded(guard, num_responses)},
    )


def guarded(value: float, num_responses: int) -> PartObservation:
    error = (max(value * (1 - value), 0.01) / num_responses) ** 0.5
    prompts = np.arange(num_responses) + 10_000
    return PartObservation((value, 100.0), (error, 5.0), prompts, np.zeros((num_responses, 2)))


def settings_of(*, finalists: int = 3, margin: float = 0.01, **search: object) -> SearchSettings:
    """The settings of a config whose ``search`` section holds these keys."""
    return parse_config({"search": search, "confirm": {"finalists": finalists, "margin": margin}}).search_settings


def aims(
    budget: float | None = None, *, rungs: tuple[int, ...] = RUNGS, num_confirm: int = 1024, guards: Guards = ()
) -> Aims:
    return Aims(budget=budget, rungs=rungs, num_confirm=num_confirm, num_confirm_prompts=num_confirm, guards=guards)


def evidence(points: Sequence[Observation], failed: Sequence[Mapping[str, float]] = (), **more: object) -> Observations:
    """As if each point had been measured in one trial."""
    costs = tuple(int(each.values[TOKENS] * each.num_responses) for each in points)
    return replace(Observations(tuple(points), failed=tuple(failed), costs=costs), **more)


def measured(
    before: Observations, proposal: Proposal, *, rng: np.random.Generator | None = None, of: Truth = truth
) -> Observations:
    """The evidence after a trial: a new point, or one that is known on more responses.

    With an ``rng`` a guard task was measured too, with luck.
    """
    guard = None
    if rng is not None:
        guard = float(rng.binomial(proposal.stop, guarded_truth(proposal.params))) / proposal.stop
    found = point(proposal.params, proposal.stop, values=of(proposal.params), guard=guard)
    cost = int(found.values[TOKENS] * (proposal.stop - proposal.start))
    return before.with_measured(found, cost=cost)


def searched(
    settings: SearchSettings,
    *,
    budget: float | None = None,
    start: Observations | None = None,
    num_trials: int | None = None,
    max_drop: float | None = None,
    rungs: tuple[int, ...] = RUNGS,
    of: Truth = truth,
) -> tuple[Observations, list[Proposal], Stop | None]:
    """A search to its end or for ``num_trials`` trials in all, from ``start``; its evidence and its proposals.

    With a ``max_drop`` it keeps a guard; without one what it would see of the guard is not measured.
    """
    known, proposals = start or Observations(), list[Proposal]()
    rng = None if max_drop is None else np.random.default_rng(settings.seed)
    guards = () if max_drop is None else ((GUARD, max_drop),)
    while num_trials is None or known.num_trials < num_trials:
        answer = propose(known, settings, aims(budget, rungs=rungs, guards=guards))
        if isinstance(answer, Stop):
            return known, proposals, answer
        proposals.append(answer)
        known = measured(known, answer, rng=rng, of=of)
    return known, proposals, None
