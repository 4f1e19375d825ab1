"""From graded responses to the numbers of an evaluation: Mean@k, Pass@k, Vote@k, tokens, Think ratio, truncation.

Every metric is a mean over prompts of a mean over that prompt's repeats, ``1/n sum_i 1/k_i sum_j x_ij`` (Mean@k of
arXiv 2510.10977, section 4.1), so prompts weigh the same whatever their repeats; tasks are averaged by weight, and one
that weighs nothing, a guard, is measured by itself alone. How an estimate gets its errors is in ``estimates``.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from autolambda.errors import InputError
from autolambda.responses import Grade, Graded
from autolambda.statistics import estimates
from autolambda.statistics.estimates import Bounds, Difference, Estimate, Limits, Weights
from autolambda.statistics.quantiles import Quantiles, quantiles

__all__ = [
    "Bounds",
    "Difference",
    "Estimate",
    "Measured",
    "Weights",
    "accuracy",
    "mean_tokens",
    "measure",
    "paired_difference",
    "pass_at_k",
    "think_ratio",
    "token_bounds",
    "truncated_ratio",
    "unparsed_ratio",
    "vote_at_k",
]

Repeats = Sequence[Graded]
Prompts = Mapping[str, Repeats]
T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """What an evaluation measured; ``tasks`` holds the same for each task and is empty inside one.

    ``num_responses`` are all, those of guards with them.
    """

    accuracy: Estimate
    mean_tokens: Estimate
    think_ratio: Estimate
    truncated_ratio: Estimate
    unparsed_ratio: Estimate
    token_quantiles: Quantiles
    num_responses: int
    tasks: Mapping[str, Measured]


def accuracy(graded: Sequence[Graded], *, weights: Weights | None = None) -> Estimate:
    """Mean@k: the share of correct responses. Several tasks are averaged by ``weights`` (equal ones by default)."""
    return _share(graded, weights, _correct)


def think_ratio(graded: Sequence[Graded], *, weights: Weights | None = None) -> Estimate:
    """The share of responses whose generated text closes its thinking."""
    return _share(graded, weights, _thought)


def truncated_ratio(graded: Sequence[Graded], *, weights: Weights | None = None) -> Estimate:
    """The share of responses cut at the cap: their true length is only known to be at least that."""
    return _share(graded, weights, _truncated)


def unparsed_ratio(graded: Sequence[Graded], *, weights: Weights | None = None) -> Estimate:
    """The share of responses in which the grader found no answer."""
    return _share(graded, weights, _unparsed)


def mean_tokens(graded: Sequence[Graded], *, weights: Weights | None = None, seed: int = 0) -> Estimate:
    """Generated tokens per response, i.e. the mean of min(length, cap); ``seed`` is the bootstrap's."""
    tasks = _counted(_by_task(graded, weights), weights)
    return estimates.macro({name: _tokens(prompts, seed).estimate for name, prompts in tasks.items()}, weights=weights)


def token_bounds(graded: Sequence[Graded], *, weights: Weights | None = None, seed: int = 0) -> Bounds:
    """The two one-sided 95 % bounds of mean tokens, for the verdict; each holds on its own."""
    limits = {name: _tokens(prompts, seed) for name, prompts in _counted(_by_task(graded, weights), weights).items()}
    one_sided = {
        name: replace(each.estimate, low=each.bounds.lower, high=each.bounds.upper) for name, each in limits.items()
    }
    combined = estimates.macro(one_sided, weights=weights)
    return Bounds(combined.low, combined.high)


def pass_at_k(graded: Sequence[Graded], *, k: int, weights: Weights | None = None) -> Estimate:
    """The chance that one of k responses is correct, unbiased: ``1 - C(n-c, k) / C(n, k)`` (Chen et al. 2021).

    Raises ``InputError`` where a prompt has fewer than k responses.
    """

    def one_prompt(repeats: Repeats) -> float:
        _check_repeats(repeats, k)
        num_correct = sum(each.grade is Grade.CORRECT for each in repeats)
        return 1 - math.comb(len(repeats) - num_correct, k) / math.comb(len(repeats), k)

    return _share(graded, weights, one_prompt)


def vote_at_k(graded: Sequence[Graded], *, k: int, weights: Weights | None = None) -> Estimate:
    """Majority vote over the answers of each prompt's first k repeats (self-consistency, Wang et al. 2023).

    Answers are compared as text; truncated responses and those without an answer do not vote. A tie counts as a fair
    draw among the tied answers. Raises ``InputError`` where a prompt has fewer than k responses.
    """

    def one_prompt(repeats: Repeats) -> float:
        _check_repeats(repeats, k)
        first = sorted(repeats, key=lambda each: each.repeat)[:k]
        voters = [each for each in first if each.answer is not None and not _truncated([each])]
        votes = Counter(each.answer for each in voters)
        right = Counter(each.answer for each in voters if each.grade is Grade.CORRECT)
        tied = [answer for answer, count in votes.items() if count == max(votes.values())]
        return sum(right[answer] / votes[answer] for answer in tied) / len(tied) if tied else 0.0

    return _share(graded, weights, one_prompt)


def paired_difference(left: Sequence[Graded], right: Sequence[Graded], *, weights: Weights | None = None) -> Difference:
    """Accuracy of ``left`` minus that of ``right`` over the same prompts; raises ``InputError`` where they differ."""
    tasks, others = (_counted(_by_task(side), weights) for side in (left, right))
    if {task: prompts.keys() for task, prompts in tasks.items()} != {task: others[task].keys() for task in others}:
        raise InputError("a paired difference needs the same prompts on both sides: measure both on one slice")
    changes = {
        name: np.array([_correct(repeats) - _correct(others[name][key]) for key, repeats in prompts.items()])
        for name, prompts in tasks.items()
    }
    return estimates.paired(changes, weights=weights)


def measure(graded: Sequence[Graded], *, weights: Weights | None = None, seed: int = 0) -> Measured:
    """All metrics of one schedule's responses, by task and over the tasks.

    ``weights`` name every task and sum to 1. Raises ``InputError`` for no responses, one response given twice, or
    weights that do not fit.
    """
    grouped = _by_task(graded, weights)
    tasks = {name: _measure_task(prompts, seed) for name, prompts in grouped.items()}

    def over_tasks(of: Callable[[Measured], Estimate]) -> Estimate:
        return estimates.macro({name: of(task) for name, task in tasks.items()}, weights=weights)

    return Measured(
        over_tasks(lambda task: task.accuracy),
        over_tasks(lambda task: task.mean_tokens),
        over_tasks(lambda task: task.think_ratio),
        over_tasks(lambda task: task.truncated_ratio),
        over_tasks(lambda task: task.unparsed_ratio),
        _quantiles(_counted(grouped, weights), weights),
        len(graded),
        tasks,
    )


def _correct(repeats: Repeats) -> float:
    return sum(each.grade is Grade.CORRECT for each in repeats) / len(repeats)


def _thought(repeats: Repeats) -> float:
    return sum(each.thought for each in repeats) / len(repeats)


def _truncated(repeats: Repeats) -> float:
    return sum(each.response.finish_reason == "length" for each in repeats) / len(repeats)


def _unparsed(repeats: Repeats) -> float:
    return sum(each.grade is Grade.UNPARSED for each in repeats) / len(repeats)


def _by_task(graded: Sequence[Graded], weights: Weights | None = None) -> dict[str, dict[str, list[Graded]]]:
    """The responses of each prompt of each task: in an order that does not follow the one they were stored in.

    Tasks come in the order of their ``weights``, else as they were met.
    """
    if not graded:
        raise InputError("no responses to measure")
    if len({each.key for each in graded}) < len(graded):
        raise InputError("a response was given twice: task, sample and repeat must be unique")
    met = dict.fromkeys(each.task for each in graded)
    known = [name for name in weights or () if name in met]
    tasks: dict[str, dict[str, list[Graded]]] = {name: defaultdict(list) for name in dict.fromkeys([*known, *met])}
    for each in sorted(graded, key=lambda each: each.key):
        tasks[each.task][each.sample_id].append(each)
    return tasks


def _counted(tasks: Mapping[str, T], weights: Weights | None) -> dict[str, T]:
    """The tasks without guards, which weigh nothing; one that has no weight is left for ``task_weights`` to refuse."""
    return {name: task for name, task in tasks.items() if weights is None or weights.get(name) != 0}


def _check_repeats(repeats: Repeats, k: int) -> None:
    if not 1 <= k <= len(repeats):
        raise InputError(f"k = {k} needs k >= 1 and k responses a prompt; '{repeats[0].sample_id}' has {len(repeats)}")


def _measure_task(prompts: Prompts, seed: int) -> Measured:
    num_responses = sum(map(len, prompts.values()))
    return Measured(
        _task_share(prompts, _correct),
        _tokens(prompts, seed).estimate,
        _task_share(prompts, _thought),
        _task_share(prompts, _truncated),
        _task_share(prompts, _unparsed),
        _quantiles({"": prompts}, None),
        num_responses,
        {},
    )


def _share(graded: Sequence[Graded], weights: Weights | None, of: Callable[[Repeats], float]) -> Estimate:
    tasks = _counted(_by_task(graded, weights), weights)
    return estimates.macro({name: _task_share(prompts, of) for name, prompts in tasks.items()}, weights=weights)


def _task_share(prompts: Prompts, of: Callable[[Repeats], float]) -> Estimate:
    means = np.array([of(repeats) for repeats in prompts.values()])
    return estimates.share(means, num_responses=sum(map(len, prompts.values())))


def _tokens(prompts: Prompts, seed: int) -> Limits:
    lengths = [[each.response.num_tokens for each in repeats] for repeats in prompts.values()]
    means = np.array([math.fsum(each) / len(each) for each in lengths])
    cut = any(_truncated(repeats) for repeats in prompts.values())
    cap = max(map(max, lengths)) if cut else math.inf  # a cut response shows the cap
    return estimates.tokens(means, num_responses=sum(map(len, lengths)), cap=cap, seed=seed)


def _quantiles(tasks: Mapping[str, Prompts], weights: Weights | None) -> Quantiles:
    """Each response counts as it does in the mean of the lengths."""
    shares = estimates.task_weights(tasks, weights=weights)
    responses = [
        (each.response, shares[name] / len(prompts) / len(repeats))
        for name, prompts in tasks.items()
        for repeats in prompts.values()
        for each in repeats
    ]
    lengths = np.array([response.num_tokens for response, _ in responses], dtype=np.float64)
    cut = np.array([response.finish_reason == "length" for response, _ in responses])
    return quantiles(lengths, np.array([share for _, share in responses]), cut=cut)
