"""Pass@k and Vote@k: accuracy if each prompt may be answered k times."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from autolambda.errors import InputError
from autolambda.responses import Grade, Graded
from autolambda.statistics.estimates import Estimate, Weights
from autolambda.statistics.metrics import mean_share


def pass_at_k(graded: Sequence[Graded], *, k: int, weights: Weights | None = None) -> Estimate:
    """Returns the unbiased estimate of pass@k, ``1 - C(n-c, k) / C(n, k)`` for c of n correct (Chen et al. 2021).

    It is the chance that at least one of k responses is correct. Raises ``InputError`` for fewer than k responses.
    """

    def one_prompt(repeats: Sequence[Graded]) -> float:
        _check_repeats(repeats, k)
        num_correct = sum(each.grade is Grade.CORRECT for each in repeats)
        return 1 - math.comb(len(repeats) - num_correct, k) / math.comb(len(repeats), k)

    return mean_share(graded, weights, one_prompt)


def vote_at_k(graded: Sequence[Graded], *, k: int, weights: Weights | None = None) -> Estimate:
    """Returns the accuracy of a majority vote over each prompt's first k repeats (self-consistency, Wang et al. 2023).

    Answers are compared as text. Truncated responses and responses without an answer do not vote. A tie counts as a
    fair draw among the tied answers. Raises ``InputError`` if a prompt has fewer than k responses.
    """

    def one_prompt(repeats: Sequence[Graded]) -> float:
        _check_repeats(repeats, k)
        first = sorted(repeats, key=lambda each: each.repeat)[:k]
        voters = [each for each in first if each.answer is not None and each.response.finish_reason != "length"]
        votes = Counter(each.answer for each in voters)
        right = Counter(each.answer for each in voters if each.grade is Grade.CORRECT)
        tied = [answer for answer, count in votes.items() if count == max(votes.values())]
        return sum(right[answer] / votes[answer] for answer in tied) / len(tied) if tied else 0.0

    return mean_share(graded, weights, one_prompt)


def _check_repeats(repeats: Sequence[Graded], k: int) -> None:
    if not 1 <= k <= len(repeats):
        raise InputError(f"k = {k} needs k >= 1 and k responses a prompt; '{repeats[0].sample_id}' has {len(repeats)}")
