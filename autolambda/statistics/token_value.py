"""The value of more tokens: the sweet spot, the slope of accuracy against tokens, and runaway lengths.

The slope over schedules is fitted with a separate intercept for each prompt (the within estimator). So the effects of
shared prompts cancel. Its errors are clustered by prompt (Arellano 1987). The points of a CSV file have unknown
prompts; their slope is a weighted least-squares line through independent binomial shares.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autolambda.responses import Grade, Graded
from autolambda.statistics.curve import DEFAULT_RESPONSES, CurvePoint
from autolambda.statistics.estimates import Z_95, Weights, number, student, task_weights
from autolambda.statistics.pareto import Objectives
from autolambda.statistics.stages import Stages, detect_stages, sentence, stage_of
from autolambda.statistics.words import percent, signed

NEAR = 0.01  # a loss of accuracy (share of 1) that does not matter
RUNAWAY = 1.25  # runaway lengths are this many times the mean tokens of the longer end


@dataclass(frozen=True)
class Slope:
    """The accuracy (share of 1) that one more token per response brings, with its 95 % interval.

    ``mean_tokens`` is the mean over the schedules of the fit.
    """

    value: float
    low: float
    high: float
    mean_tokens: float
    num_schedules: int

    def to_dict(self) -> dict[str, float]:
        """Returns the slope as JSON; accuracy is a share of 1."""
        return {
            "accuracy_per_token": self.value,
            "accuracy_per_token_low": self.low,
            "accuracy_per_token_high": self.high,
            "mean_tokens": self.mean_tokens,
            "num_schedules": self.num_schedules,
        }


@dataclass(frozen=True)
class Length:
    """The mean tokens at a lambda, with their 95 % interval; without one, all three numbers are equal."""

    lam: float
    mean_tokens: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Returns lambda and mean tokens as JSON."""
        return {"lambda": self.lam, "mean_tokens": self.mean_tokens}


@dataclass(frozen=True)
class CurveInsights:
    """The stages of a curve, and the insights from its points that have accuracy and mean tokens.

    These points have no intervals. So the sweet spot may be a point that was measured too high by chance.
    """

    stages: Stages
    sweet_spot: CurvePoint | None
    slope: Slope | None
    lengths: tuple[Length, ...]
    runaway: Length | None

    def sentences(self) -> Iterator[str]:
        """Yields the stages and the insights as sentences."""
        yield sentence(self.stages)
        if (spot := self.sweet_spot) is not None:
            assert spot.accuracy is not None and spot.mean_tokens is not None
            yield (
                f"Without a budget we would take lambda {spot.lam:g}: {percent(spot.accuracy)} with "
                f"{number(spot.mean_tokens)} tokens, the fewest within a point of the most accurate "
                "(as measured, which favours lucky points)."
            )
            yield from slope_sentences(self.slope)
        if self.runaway:
            yield runaway_sentence(self.runaway, self.lengths)
        yield from (f"Note: {note}." for note in self.stages.notes)


def curve_insights(points: Sequence[CurvePoint]) -> CurveInsights:
    """Returns the insights of a curve. Raises the errors of ``detect_stages``."""
    stages, measured = detect_stages(points), measured_points(points)
    index = sweet_spot([Objectives(each.accuracy or 0.0, each.mean_tokens or 0.0) for each in measured])
    lengths = tuple(
        Length(each.lam, each.mean_tokens, each.mean_tokens, each.mean_tokens) for each in points if each.mean_tokens
    )
    spot = None if index is None else measured[index]
    return CurveInsights(stages, spot, slope_of_curve(points), lengths, runaway(lengths))


def sweet_spot(scores: Sequence[Objectives]) -> int | None:
    """Returns the index of the score with the fewest tokens among those within ``NEAR`` of the most accurate."""
    highest = max((score.accuracy for score in scores), default=math.nan)
    near = [index for index, score in enumerate(scores) if score.accuracy >= highest - NEAR]
    return min(near, key=lambda index: (scores[index].mean_tokens, -scores[index].accuracy), default=None)


def slope_of(
    schedules: Sequence[Sequence[Graded]], tokens: Sequence[float], *, weights: Weights | None = None
) -> Slope | None:
    """Returns the slope over schedules, given the responses and the mean tokens of each.

    Returns ``None`` for fewer than two schedules, equal mean tokens, or fewer than two prompts that two schedules
    answered. One prompt whose answer changes once is added, so that data without disagreement are not certainty.
    """
    if len(schedules) < 2:
        return None
    tasks: dict[str, dict[str, dict[int, list[bool]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for index, graded in enumerate(schedules):
        for each in graded:
            tasks[each.task][each.sample_id][index].append(each.grade is Grade.CORRECT)
    shares = task_weights(tasks, weights=weights)
    value = variance = freedom = 0.0
    for name in (name for name in tasks if shares[name] > 0):
        line = _within(tasks[name].values(), tokens)
        if line is None:
            return None
        task_variance = shares[name] ** 2 * line.variance
        value, variance = value + shares[name] * line.value, variance + task_variance
        freedom += task_variance**2 / (line.num_prompts - 1)
    if not variance:
        return None
    reach = student(0.975, variance**2 / freedom) * math.sqrt(variance)
    return Slope(value, value - reach, value + reach, math.fsum(tokens) / len(tokens), len(schedules))


@dataclass(frozen=True)
class _Line:
    value: float
    variance: float
    num_prompts: int


def _within(prompts: Iterable[Mapping[int, Sequence[bool]]], tokens: Sequence[float]) -> _Line | None:
    """Returns the within estimator of one task. A prompt maps schedule numbers to whether each repeat is correct."""
    xs, ys = [], []  # deviations of mean tokens and accuracy from each prompt's means
    for repeats in prompts:
        if len(repeats) > 1:
            x = np.array([tokens[index] for index in repeats])
            y = np.array([sum(correct) / len(correct) for correct in repeats.values()])
            xs.append(x - x.mean())
            ys.append(y - y.mean())
    squares = math.fsum(float(x @ x) for x in xs)
    if len(xs) < 2 or squares <= 0:
        return None
    value = math.fsum(float(x @ y) for x, y in zip(xs, ys, strict=True)) / squares
    scores = [float(x @ (y - value * x)) for x, y in zip(xs, ys, strict=True)]
    added = squares / sum(map(len, xs))
    spread = (math.fsum(score**2 for score in scores) + added) * len(xs) / (len(xs) - 1)
    return _Line(value, spread / squares**2, len(xs))


def slope_of_curve(points: Sequence[CurvePoint]) -> Slope | None:
    """Returns the slope over the points in stage 3 with accuracy and mean tokens; ``None`` if it is undefined."""
    chosen = [point for point in measured_points(points) if stage_of(point.think_ratio) == 3]
    tokens, accuracy = (np.array([getattr(each, name) for each in chosen]) for name in ("mean_tokens", "accuracy"))
    if len(chosen) < 2 or np.ptp(tokens) == 0:
        return None
    counts = np.array([point.num_responses or DEFAULT_RESPONSES for point in chosen])
    blended = (accuracy * counts + 1) / (counts + 2)
    weights = counts / (blended * (1 - blended))
    middle = np.average(tokens, weights=weights)
    squares = float(weights @ (tokens - middle) ** 2)
    value = float(weights @ ((tokens - middle) * accuracy)) / squares
    reach = Z_95 / math.sqrt(squares)
    return Slope(value, value - reach, value + reach, float(tokens.mean()), len(chosen))


def measured_points(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Returns the points that have accuracy and mean tokens."""
    return [point for point in points if point.accuracy is not None and point.mean_tokens is not None]


def runaway(lengths: Sequence[Length]) -> Length | None:
    """Returns the longest inner length with a lower limit above ``RUNAWAY`` times the upper limits of both ends.

    Lengths outside 0 to 1 do not count: the ends stand for the parents.
    """
    ordered = _between(lengths)
    if len(ordered) < 3:
        return None
    limit = RUNAWAY * max(ordered[0].high, ordered[-1].high)
    return max((each for each in ordered[1:-1] if each.low > limit), key=lambda each: each.mean_tokens, default=None)


def slope_sentences(slope: Slope | None) -> Iterator[str]:
    """Yields a sentence about the value of more tokens in stage 3, if it is known."""
    if slope is None:
        return
    effect = "" if slope.low > 0 else ", a loss" if slope.high < 0 else ", which may be nothing"
    value, low, high = (signed(0.1 * slope.mean_tokens * each) for each in (slope.value, slope.low, slope.high))
    yield f"Where it nearly always thinks, 10 % more tokens bring {value} points ({low} to {high}){effect}."


def runaway_sentence(found: Length, lengths: Sequence[Length]) -> str:
    """Returns a sentence about runaway lengths."""
    first, *_, last = _between(lengths)
    longest = max(first, last, key=lambda each: each.mean_tokens)
    return (
        f"Responses are longest in the middle: {number(found.mean_tokens)} tokens at lambda {found.lam:g}, "
        f"{found.mean_tokens / longest.mean_tokens:.1f} times those at lambda {longest.lam:g}."
    )


def _between(lengths: Sequence[Length]) -> list[Length]:
    """Returns the lengths from one parent to the other, by lambda."""
    return sorted((each for each in lengths if 0 <= each.lam <= 1), key=lambda each: each.lam)
