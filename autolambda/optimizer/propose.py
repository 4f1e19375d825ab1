"""Proposals: which schedule to measure next, and on how many responses. The ladder comes first.

After it the surrogate is asked, or one of Optuna's samplers, which take every measurement as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from autolambda.optimizer import acquisition
from autolambda.optimizer.acquisition import Target
from autolambda.optimizer.ladder import is_known, next_rung
from autolambda.optimizer.observations import MOST_POINTS, Observations, Point, cost_at, is_tried, leading, near
from autolambda.optimizer.optuna_samplers import ask_optuna
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import Params, Space, box, free_of, to_schedule, uniform_lam, uniform_params
from autolambda.optimizer.surrogate import THINK, TOKENS, Guards, PosteriorSamples, Surrogate, prompt_correlation
from autolambda.optimizer.token_allowance import TokenAllowance, allowance
from autolambda.statistics.curve import CurvePoint

NUM_DRAWS = 64
NUM_LEVELS = 6  # budgets that stand for the whole front where none was given
NUM_CENTRES = 2  # schedules around which a search looks closely
LADDER_SHARE = 0.5  # of the search's tokens
TYPICAL_FINALISTS = 1.5  # finalists that a budget usually gets

StopReason = Literal["trials", "tokens", "gain", "spaces"]


@dataclass(frozen=True)
class Aims:
    """What a search is for. ``rungs`` are the numbers of responses at which a schedule's measurement may pause, the
    last of them the full size; ``num_confirm`` responses to ``num_confirm_prompts`` are that of the confirmation.
    ``guards`` are the tasks on which no more than so much accuracy may be lost."""

    budget: float | None
    rungs: tuple[int, ...]
    num_confirm: int
    num_confirm_prompts: int
    guards: Guards = ()


@dataclass(frozen=True)
class Proposal:
    """A schedule's params, and the responses to measure: from the ``start``-th to before the ``stop``-th."""

    params: dict[str, float]
    start: int
    stop: int


@dataclass(frozen=True)
class Stop:
    """The search is over: ``gain`` is what a further look at the best place was expected to bring (share of 1)."""

    reason: StopReason
    gain: float | None = None


def propose(evidence: Observations, settings: SearchSettings, aims: Aims) -> Proposal | Stop:
    """What to measure next, given all that was measured. The same arguments give the same answer."""
    if evidence.num_trials >= settings.trials:
        return Stop("trials")
    if on_the_ladder(evidence, settings, aims):
        return _rung(evidence, settings, aims)
    granted = allowance_of(evidence.points, settings, aims)
    if settings.sampler != "surrogate":
        over = granted is not None and evidence.num_tokens >= granted.search
        return Stop("tokens") if over else _optuna_proposal(evidence, settings, aims)
    assert granted is not None
    return _look_ahead(evidence, settings, aims, granted)


def on_the_ladder(evidence: Observations, settings: SearchSettings, aims: Aims) -> bool:
    """Whether the next trial is a rung: until the stages are known, or its trials or its tokens are spent."""
    granted = allowance_of(evidence.points, settings, aims)
    if evidence.num_trials >= settings.ladder or (granted and evidence.num_tokens > LADDER_SHARE * granted.search):
        return False
    return not is_known([_curve_point(point) for point in evidence.points if point.lam is not None])


def allowance_of(points: Sequence[Point], settings: SearchSettings, aims: Aims) -> TokenAllowance | None:
    """The study's tokens, once two uniform lambdas are measured: the outermost stand for the parents."""
    costs = {point.lam: point.cost for point in points if point.lam is not None}
    if len(costs) < 2:
        return None
    ends = costs[min(costs)] + costs[max(costs)]
    return allowance(
        ends,
        num_search=aims.rungs[-1],
        num_confirm=aims.num_confirm,
        num_confirm_prompts=aims.num_confirm_prompts,
        cap=settings.max_tokens_generated,
        with_guards=bool(aims.guards),
    )


def targets_of(points: Sequence[Point], granted: TokenAllowance, budget: float | None) -> list[Target]:
    """The budget, or levels between the cheapest and the longest point that stand for all budgets."""
    lengths = [point.observation.values[TOKENS] for point in points]
    if budget is not None:
        return [Target(budget, _spread(points, granted, budget))]
    levels = np.geomspace(min(lengths), max(lengths), NUM_LEVELS + 1)[1:]
    return [Target(float(level), _spread(points, granted, float(level))) for level in levels]


def fit(evidence: Observations, num_knots: int, *, guards: Guards = ()) -> Surrogate:
    """The model of what was measured: of all, or of what leads of it."""
    observations = [point.observation for point in leading(evidence.points, num_knots=num_knots)]
    return Surrogate(observations, num_knots=num_knots, censored=evidence.censored[-MOST_POINTS // 2 :], guards=guards)


def _optuna_proposal(evidence: Observations, settings: SearchSettings, aims: Aims) -> Proposal | Stop:
    """The proposal of one of Optuna's samplers: a new schedule, to be measured at full size.

    In the first space, from the one whose turn it is, that is not used up.
    """
    turn = settings.spaces.index(_space(evidence, settings, None))
    for space in (*settings.spaces[turn:], *settings.spaces[:turn]):
        params = ask_optuna(evidence, settings, free=free_of(space, settings.knots), budget=aims.budget)
        if params is not None:
            return Proposal(params, 0, aims.rungs[-1])
    return Stop("spaces")


def _look_ahead(
    evidence: Observations, settings: SearchSettings, aims: Aims, granted: TokenAllowance
) -> Proposal | Stop:
    """The surrogate's choice in the first space, from the one whose turn it is, in which there is something to gain."""
    model = fit(evidence, settings.knots, guards=aims.guards)
    turn = settings.spaces.index(_space(evidence, settings, granted))
    gains = []
    for space in settings.spaces[turn:]:
        answer = _look_into(space, model, evidence, settings, aims, granted)
        if not isinstance(answer, Stop) or answer.reason != "gain":
            return answer
        gains.append(answer.gain or 0.0)
    return Stop("gain", max(gains))


def _look_into(
    space: Space,
    model: Surrogate,
    evidence: Observations,
    settings: SearchSettings,
    aims: Aims,
    granted: TokenAllowance,
) -> Proposal | Stop:
    """The surrogate's choice among the points that can be measured further and new places of a space."""
    step = evidence.num_trials
    rng = np.random.default_rng([settings.seed, step, len(evidence.failed), len(evidence.censored)])
    targets = targets_of(evidence.points, granted, aims.budget)
    points = leading(evidence.points, num_knots=settings.knots)
    places = [point.params for point in points]
    known = model.draw([point.observation.schedule for point in points], num_draws=NUM_DRAWS, seed=step)
    centres = _centres(known, places, targets)
    new = acquisition.candidates(free_of(space, settings.knots), box(settings.knots), centres, rng)
    left = granted.search - evidence.num_tokens
    stopped = {excess.schedule for excess in evidence.censored}
    open_points = [
        point for point in points if _next_cost(point, aims) <= left and point.observation.schedule not in stopped
    ]
    pool = [*(point.params for point in open_points), *(params for params in new if not is_tried(params, evidence))]
    draw = model.draw([to_schedule(params) for params in pool], num_draws=NUM_DRAWS, seed=step)
    gain = float(np.mean([acquisition.expected_gain(draw, target) for target in targets]))
    if gain < settings.min_gain:
        return Stop("gain", gain)
    chosen = _chosen(draw, _target(targets, evidence.points, granted, step, rng), step, rng)
    start = open_points[chosen].num_responses if chosen < len(open_points) else 0
    stop = next(rung for rung in aims.rungs if rung > start)
    if (stop - start) * cost_at(evidence.points, float(draw.tokens[:, chosen].mean())) > left:
        return Stop("tokens", gain)
    return Proposal(dict(pool[chosen]), start, stop)


def _next_cost(point: Point, aims: Aims) -> float:
    """The tokens that a point's next rung will take; infinite where it is measured at full size."""
    stop = next((rung for rung in aims.rungs if rung > point.num_responses), None)
    return np.inf if stop is None else (stop - point.num_responses) * point.cost


def _chosen(draw: PosteriorSamples, target: Target, step: int, rng: np.random.Generator) -> int:
    """Every third look goes to the pick itself, which sharpens it; the others to what may be better."""
    if step % 3 == 0:
        return acquisition.safe(draw, target)
    return acquisition.sampled(draw, target, index=int(rng.integers(NUM_DRAWS)))


def _target(
    targets: Sequence[Target], points: Sequence[Point], granted: TokenAllowance, step: int, rng: np.random.Generator
) -> Target:
    """Today's target: the budget, every fourth time some budget below it; without one, any level."""
    if len(targets) > 1:
        return targets[int(rng.integers(len(targets)))]
    if step % 4 != 3:
        return targets[0]
    lowest = min(point.observation.values[TOKENS] for point in points)
    if lowest >= targets[0].budget:
        return targets[0]
    budget = float(rng.uniform(lowest, targets[0].budget))
    return Target(budget, _spread(points, granted, budget))


def _centres(known: PosteriorSamples, places: Sequence[Params], targets: Sequence[Target]) -> list[Params]:
    """The places around which to look: those picked for the targets, and for one of them in some draw."""
    found = [acquisition.safe(known, target) for target in targets]
    found += [acquisition.sampled(known, targets[-1], index=index) for index in range(NUM_CENTRES)]
    return [places[index] for index in dict.fromkeys(found)][: max(NUM_CENTRES, len(targets))]


def _spread(points: Sequence[Point], granted: TokenAllowance, budget: float) -> float:
    """The relative standard error that the mean tokens of a finalist near the budget will have when confirmed.

    Of the variance of lengths the prompts' own share falls with their number, the rest with that of the responses. As
    many of them count as in the search.
    """
    own = prompt_correlation([point.observation for point in points], TOKENS)
    nearest = near(points, budget)
    variances = [
        (point.observation.errors[TOKENS] / point.observation.values[TOKENS]) ** 2
        / (own / len(point.observation.prompts) + (1 - own) / (point.counted * point.num_responses))
        for point in nearest
    ]
    num_final = granted.num_final([cost_at(points, TYPICAL_FINALISTS * budget)])
    counted = float(np.median([point.counted for point in nearest]))
    fall = own / (counted * min(num_final, granted.num_confirm_prompts)) + (1 - own) / (counted * num_final)
    return float(np.sqrt(np.median(variances) * fall))


def _rung(evidence: Observations, settings: SearchSettings, aims: Aims) -> Proposal:
    """The next uniform lambda; a sampler that does not know the noise has it measured at full size."""
    curve = [(point.lam, point.observation.values[THINK]) for point in evidence.points if point.lam is not None]
    failed_lams = {lam for params in evidence.failed if (lam := uniform_lam(params)) is not None}
    size = aims.rungs[0] if settings.sampler == "surrogate" else aims.rungs[-1]
    return Proposal(uniform_params(next_rung(curve, failed_lams), num_knots=settings.knots), 0, size)


def _curve_point(point: Point) -> CurvePoint:
    assert point.lam is not None
    return CurvePoint(point.lam, point.observation.values[THINK], len(point.observation.prompts))


def _space(evidence: Observations, settings: SearchSettings, granted: TokenAllowance | None) -> Space:
    """What is left after the ladder, of trials or of tokens, is shared out evenly among the spaces, in their order."""
    done = (evidence.num_trials - settings.ladder) / max(settings.trials - settings.ladder, 1)
    if granted is not None:
        climbed = sum(evidence.costs[: settings.ladder])
        done = max(done, (evidence.num_tokens - climbed) / max(granted.search - climbed, 1.0))
    return settings.spaces[min(max(int(done * len(settings.spaces)), 0), len(settings.spaces) - 1)]
