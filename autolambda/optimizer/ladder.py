"""The ladder: the uniform lambdas that begin a search.

It takes both ends, then bisects the steepest rise of the Think ratio. These lambdas find the stages, are compared with
the parents, and are the first observations of the surrogate.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace

from autolambda.optimizer.aims import Aims, allowance_of
from autolambda.optimizer.observations import THINK, Observations, Proposal
from autolambda.optimizer.settings import SearchSettings
from autolambda.optimizer.space import is_between, uniform_lam, uniform_params
from autolambda.optimizer.token_allowance import TokenAllowance
from autolambda.statistics.curve import CurvePoint
from autolambda.statistics.pace import Pace
from autolambda.statistics.stages import detect_stages

KNOWN_WITHIN = 0.03  # half width in lambda at which a boundary is known well enough
LADDER_SHARE = 0.5  # of the tokens of the search
LEAST_POINTS = 5  # of the ladder, which larger rungs must leave room for


def paced(aims: Aims, pace: Pace, allowance: TokenAllowance) -> Aims:
    """Returns the aims with a first rung so large that a call does not mostly wait for its last responses.

    Its tokens must allow ``LEAST_POINTS`` trials of the ladder. The later rungs are at least twice as large.
    """
    affordable = LADDER_SHARE * allowance.search / (LEAST_POINTS * allowance.ends / 2)
    first = min(max(aims.rungs[0], int(min(pace.enough, affordable))), aims.rungs[-1])
    later = [rung for rung in aims.rungs[:-1] if rung >= 2 * first]
    return replace(aims, rungs=tuple(dict.fromkeys([first, *later, aims.rungs[-1]])))


def on_the_ladder(observations: Observations, settings: SearchSettings, aims: Aims) -> bool:
    """Returns whether the next trial belongs to the ladder: until the stages are known, or trials or tokens spent."""
    allowance = allowance_of(observations.measured, settings, aims)
    over = allowance is not None and observations.num_tokens > LADDER_SHARE * allowance.search
    return not over and observations.num_trials < settings.ladder and not is_known(think_curve(observations))


def ladder_proposal(observations: Observations, settings: SearchSettings, aims: Aims) -> Proposal:
    """Proposes the next uniform lambda, up to the first rung for the surrogate, else at full size."""
    curve = [(point.lam, point.think_ratio) for point in think_curve(observations)]
    failed_lams = {lam for params in observations.failed if (lam := uniform_lam(params)) is not None}
    size = aims.rungs[0] if settings.sampler == "surrogate" else aims.rungs[-1]
    return Proposal(uniform_params(next_lambda(curve, failed_lams), num_knots=settings.knots), 0, size)


def think_curve(observations: Observations) -> list[CurvePoint]:
    """Returns the Think ratios of the uniform lambdas from one parent to the other, which the ladder is about."""
    return [
        CurvePoint(each.lam, each.values[THINK], len(each.prompts))
        for each in observations.measured
        if is_between(each.lam)
    ]


def is_known(curve: Sequence[CurvePoint]) -> bool:
    """Returns whether emergence and saturation both have a 95 % interval of half width ``KNOWN_WITHIN`` or less."""
    if len({point.lam for point in curve}) < 2:
        return False
    stages = detect_stages(curve)
    return all(
        boundary is not None and boundary.high - boundary.low <= 2 * KNOWN_WITHIN
        for boundary in (stages.emergence, stages.saturation)
    )


def next_lambda(curve: Sequence[tuple[float, float]], failed: Collection[float] = ()) -> float:
    """Returns the next uniform lambda from (lam, think_ratio) pairs: 0, 1, then the middle of the steepest rise.

    A gap is scored by its rise plus a quarter of its width, so that no part of the range stays unseen. ``failed``
    lambdas are skipped. If an end failed, the gap next to it is scored by its width alone. If a middle failed, the
    middle of its lower half is taken.
    """
    seen = {lam for lam, _ in curve}
    failed = set(failed) - seen
    ends = [end for end in (0.0, 1.0) if end not in seen]
    for end in ends:
        if end not in failed:
            return end
    # a failed end takes its neighbour's ratio, so the rise next to it is 0
    ratios = [ratio for _, ratio in sorted(curve)] or [0.0]
    ordered = sorted([*curve, *((end, ratios[-1 if end else 0]) for end in ends)])
    gaps = [
        (abs(b[1] - a[1]) + (b[0] - a[0]) / 4, -a[0], _middle(a[0], b[0], failed))
        for a, b in itertools.pairwise(ordered)
    ]
    return max(gap for gap in gaps if gap[2] not in seen)[2]


def _middle(low: float, high: float, failed: Collection[float]) -> float:
    """Returns the middle; if it failed, the middle of the lower half, and so on."""
    while (middle := (low + high) / 2) in failed:
        high = middle
    return middle
