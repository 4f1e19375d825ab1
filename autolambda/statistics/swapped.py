"""Recognises that Instruct and Thinking were given in each other's place, from the evaluations of both ends.

Two one-sided tests must agree: the end called Instruct thinks more often, by half of all responses at least, and it is
longer. Each is Student's t at ``LEVEL``. So a false alarm takes two errors at once. A Thinking model that a cap cuts
off before it closes its thinking raises none, because its responses are the longer ones.
"""

from __future__ import annotations

import math

from autolambda.statistics.estimates import Estimate, student
from autolambda.statistics.metrics import Measured

LEVEL = 1e-4  # of each test
LEAST_LEAD = 0.5  # of the Think ratio


def are_swapped(instruct: Measured, thinking: Measured) -> bool:
    """Returns whether ``instruct`` (lambda 0) is shown to think more often and longer than ``thinking`` (lambda 1)."""
    lead = instruct.think_ratio.value - thinking.think_ratio.value
    return (
        lead >= LEAST_LEAD
        and _is_above(instruct.think_ratio, thinking.think_ratio)
        and _is_above(instruct.mean_tokens, thinking.mean_tokens)
    )


def _is_above(one: Estimate, other: Estimate) -> bool:
    size = min(one.num_prompts, other.num_prompts)
    if size < 2:
        return False
    error = math.hypot(one.standard_error, other.standard_error)
    return one.value - other.value > student(1 - LEVEL, size - 1) * error
