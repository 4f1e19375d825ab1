"""Swapped parents are recognised; a pair that is merely odd, small or cut off is not."""

import random

import pytest

from autolambda.responses import Grade, Graded, Response
from autolambda.statistics.metrics import measure
from autolambda.statistics.swapped import are_swapped


def end(think, tokens, *, num=64, cap=10**6, seed=0):
    """Responses of one end: the share that thinks, their mean tokens, and a cap that cuts thinking off."""
    rng = random.Random(seed)
    graded = []
    for i in range(num):
        length = max(1, round(tokens * rng.lognormvariate(-0.2, 0.6)))
        thought = rng.random() < think and length < cap
        reason = "stop" if length < cap else "length"
        response = Response("", min(length, cap), reason)
        graded.append(Graded("t", str(i), 0, response, Grade.CORRECT, "1", thought))
    return measure(graded)


@pytest.mark.parametrize("num", [16, 64])
def test_swapped_parents_are_recognised_from_both_ends(num):
    thinks, answers = end(0.95, 80, num=num), end(0.0, 5, num=num, seed=1)
    assert are_swapped(thinks, answers) and not are_swapped(answers, thinks)


@pytest.mark.parametrize(
    ("instruct", "thinking"),
    [
        (end(0.9, 20), end(0.0, 80, seed=1)),  # Thinking closes with another tag
        (end(0.9, 40), end(0.9, 300, cap=60, seed=1)),  # a low cap cuts Thinking off
        (end(0.6, 80), end(0.2, 5, seed=1)),  # both think at times
        (end(1.0, 20), end(0.0, 19, seed=1)),  # as long within the error
        (end(1.0, 80, num=3), end(0.0, 5, num=3, seed=1)),
        (end(1.0, 80, num=1), end(0.0, 5, num=1, seed=1)),
    ],
)
def test_what_is_odd_is_not_called_swapped(instruct, thinking):
    assert not are_swapped(instruct, thinking)


def test_equal_ends_are_never_called_swapped():
    ends = [end(0.5, 40, num=8, seed=seed) for seed in range(200)]
    assert not any(are_swapped(one, other) for one, other in zip(ends, reversed(ends), strict=True))
