"""The value of a study's tokens: the sweet spot, the gain from more tokens, whether a merge beats both parents.

A merge beats both parents if it is more accurate than each one, paired by prompt, on prompts that the search never saw.
The test is an intersection-union test at 5 %, divided by the number of confirmed merges (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autolambda.report.results import ScheduleResult, stage
from autolambda.responses import Graded
from autolambda.statistics.estimates import Difference, student
from autolambda.statistics.metrics import difference
from autolambda.statistics.token_value import (
    Length,
    Slope,
    runaway,
    runaway_sentence,
    slope_of,
    slope_sentences,
    sweet_spot,
)
from autolambda.statistics.words import points_of
from autolambda.study.measured import MeasuredSchedule

_LEVEL = 0.05


@dataclass(frozen=True)
class Gain:
    """A confirmed merge with its difference in accuracy to each parent. ``is_shown`` means that it beats both."""

    result: ScheduleResult
    over: Mapping[str, Difference]
    is_shown: bool


@dataclass(frozen=True)
class Insights:
    """The findings of a study about tokens and accuracy.

    ``highest`` is the most accurate smoothed result. ``sweet_spot`` has the fewest mean tokens of the smoothed results
    within a point of it. ``slope`` is accuracy against mean tokens over the schedules in stage 3. ``lengths`` are the
    mean tokens of uniform lambdas, and ``runaway`` a lambda that is far longer than both ends. ``gains`` compares each
    confirmed merge with both parents; the surest lead comes first.
    """

    sweet_spot: ScheduleResult
    highest: ScheduleResult
    slope: Slope | None
    lengths: tuple[Length, ...]
    runaway: Length | None
    gains: tuple[Gain, ...]

    @property
    def gain(self) -> Gain | None:
        """The merge with the surest lead over both parents."""
        return next(iter(self.gains), None)

    def gain_over(self, parent: str, result: ScheduleResult) -> Difference | None:
        """Returns a confirmed merge's accuracy minus a parent's; ``None`` if they were not compared."""
        return next((gain.over[parent] for gain in self.gains if gain.result is result), None)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object."""
        gain = self.gain
        return {
            "sweet_spot": self.sweet_spot.to_dict(),
            "overthinking": self.slope and self.slope.to_dict(),
            "runaway": self.runaway and self.runaway.to_dict(),
            "beats_both_parents": gain
            and {
                "trial": gain.result.trial,
                "is_shown": gain.is_shown,
                **{
                    f"accuracy_over_{name}{suffix}": getattr(each, key)
                    for name, each in gain.over.items()
                    for suffix, key in (("", "value"), ("_low", "low"), ("_high", "high"))
                },
            },
        }


def insights_of(
    seen: Sequence[MeasuredSchedule],
    smoothed: Sequence[ScheduleResult],
    confirmed: Sequence[tuple[ScheduleResult, Sequence[Graded]]],
    parents: Mapping[str, Sequence[Graded]],
    *,
    weights: Mapping[str, float],
) -> Insights:
    """Returns the insights of a study.

    Args:
        seen: the schedules measured in the search, at least one.
        smoothed: their results by the surrogate, in the order of ``seen``.
        confirmed: the confirmed results with their responses.
        parents: the responses of each parent on the prompts of the confirmation.
        weights: the share of each task in the average.
    """
    highest = max(smoothed, key=lambda result: (result.score.accuracy, -result.score.mean_tokens))
    place = sweet_spot([result.score for result in smoothed])
    assert place is not None
    thinking = [each for each in seen if stage(each.measured) == 3]
    slope = slope_of(
        [each.graded for each in thinking], [each.measured.mean_tokens.value for each in thinking], weights=weights
    )
    lengths = tuple(
        Length(each.schedule.lam, tokens.value, tokens.low, tokens.high)
        for each in seen
        if each.schedule.lam is not None and (tokens := each.measured.mean_tokens)
    )
    return Insights(smoothed[place], highest, slope, lengths, runaway(lengths), _gains(confirmed, parents, weights))


def insight_sentences(insights: Insights) -> Iterator[str]:
    """Yields what was seen of tokens and accuracy as sentences, without the answer to a budget."""
    yield from slope_sentences(insights.slope)
    if insights.runaway:
        yield runaway_sentence(insights.runaway, insights.lengths)
    if insights.gain:
        yield _gain_sentence(insights.gain)


def _gains(
    confirmed: Sequence[tuple[ScheduleResult, Sequence[Graded]]],
    parents: Mapping[str, Sequence[Graded]],
    weights: Mapping[str, float],
) -> tuple[Gain, ...]:
    """Returns merges, largest lower bound of the lead first; none before both parents are measured."""
    merges = [(result, graded) for result, graded in confirmed if result.schedule.lam not in (0.0, 1.0)]
    if len(parents) < 2:
        return ()
    gains = []
    for result, graded in merges:
        over = {name: difference(graded, responses, weights=weights) for name, responses in parents.items()}
        least = min(_bound(each, level=_LEVEL / len(merges)) for each in over.values())
        gains.append((least, Gain(result, over, least > 0)))
    return tuple(gain for _, gain in sorted(gains, key=lambda pair: -pair[0]))


def _bound(change: Difference, *, level: float) -> float:
    """Returns the one-sided lower bound at ``level``, scaled from the 5 % bounds by quantiles of Student's t."""
    freedom = max(change.num_prompts - 1, 1)
    middle = (change.lower_bound + change.upper_bound) / 2
    reach = (change.upper_bound - change.lower_bound) / 2
    return middle - reach * student(1 - level, freedom) / student(1 - _LEVEL, freedom)


def _gain_sentence(gain: Gain) -> str:
    if not gain.is_shown:
        return "No merge is shown to be more accurate than both parents."
    over = ", ".join(f"{points_of(each)} over {name.capitalize()}" for name, each in gain.over.items())
    return f"Trial {gain.result.trial} is more accurate than both parents: {over}."
