"""Computes the metrics of an evaluation from graded responses: accuracy, tokens, Think ratio, truncation.

Every metric is a mean over prompts of a mean over the prompt's repeats, ``1/n sum_i 1/k_i sum_j x_ij`` (Mean@k of
arXiv 2510.10977, section 4.1). So every prompt has equal weight, however many repeats it has. Tasks are averaged by
weight. A task with weight 0 is a guard: it is measured, but not averaged. ``estimates`` gives the standard errors.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from autolambda.errors import InputError
from autolambda.responses import Grade, Graded
from autolambda.statistics import estimates
from autolambda.statistics.estimates import Bounds, Difference, Estimate, Limits, Weights
from autolambda.statistics.quantiles import Quantiles, quantiles

Repeats = Sequence[Graded]
Prompts = Mapping[str, Repeats]
T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """The metrics of an evaluation. ``tasks`` holds the metrics of each task and is empty inside a task.

    ``num_responses`` counts all responses, guards included.
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
    """Returns Mean@k, the share of correct responses. ``weights`` of tasks are equal by default."""
    return mean_share(graded, weights, _correct)


def mean_tokens(graded: Sequence[Graded], *, weights: Weights | None = None) -> Estimate:
    """Returns the generated tokens per response, a mean of min(length, cap)."""
    tasks = _counted(_by_task(graded, weights), weights)
    return estimates.macro({name: _tokens(prompts).estimate for name, prompts in tasks.items()}, weights=weights)


def token_bounds(graded: Sequence[Graded], *, weights: Weights | None = None) -> Bounds:
    """Returns two one-sided 95 % bounds of mean tokens, for the verdict. Each holds on its own."""
    limits = {name: _tokens(prompts) for name, prompts in _counted(_by_task(graded, weights), weights).items()}
    one_sided = {
        name: replace(each.estimate, low=each.bounds.lower, high=each.bounds.upper) for name, each in limits.items()
    }
    combined = estimates.macro(one_sided, weights=weights)
    return Bounds(combined.low, combined.high)


def paired_difference(left: Sequence[Graded], right: Sequence[Graded], *, weights: Weights | None = None) -> Difference:
    """Returns accuracy of ``left`` minus accuracy of ``right``. Raises ``InputError`` if their prompts differ."""
    tasks, others = (_counted(_by_task(side), weights) for side in (left, right))
    if {task: prompts.keys() for task, prompts in tasks.items()} != {task: others[task].keys() for task in others}:
        raise InputError("a paired difference needs the same prompts on both sides: measure both on one slice")
    changes = {
        name: np.array([_correct(repeats) - _correct(others[name][key]) for key, repeats in prompts.items()])
        for name, prompts in tasks.items()
    }
    return estimates.paired(changes, weights=weights)


def difference(left: Sequence[Graded], right: Sequence[Graded], *, weights: Mapping[str, float]) -> Difference:
    """Returns accuracy of ``left`` minus accuracy of ``right`` over the responses that both have.

    Confirmations for different budgets may have different numbers of responses.
    """
    return paired_difference(*in_both(left, right), weights=weights)


def in_both(left: Sequence[Graded], right: Sequence[Graded]) -> tuple[list[Graded], list[Graded]]:
    """Returns the responses of each side to the prompts and repeats that both answered."""
    shared = {each.key for each in left} & {each.key for each in right}
    one, other = ([each for each in side if each.key in shared] for side in (left, right))
    return one, other


def measure(graded: Sequence[Graded], *, weights: Weights | None = None) -> Measured:
    """Returns all metrics of one schedule's responses, for each task and over the tasks.

    ``weights`` name every task and sum to 1. Raises ``InputError`` if there are no responses, if a response is given
    twice, or if the weights do not fit the tasks.
    """
    grouped = _by_task(graded, weights)
    tasks = {name: _measure_task(prompts) for name, prompts in grouped.items()}

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


def mean_share(graded: Sequence[Graded], weights: Weights | None, of: Callable[[Repeats], float]) -> Estimate:
    """Returns the mean of ``of(repeats)`` (0 to 1) over prompts, then the weighted mean over tasks."""
    tasks = _counted(_by_task(graded, weights), weights)
    return estimates.macro({name: _task_share(prompts, of) for name, prompts in tasks.items()}, weights=weights)


def _correct(repeats: Repeats) -> float:
    return sum(each.grade is Grade.CORRECT for each in repeats) / len(repeats)


def _thought(repeats: Repeats) -> float:
    return sum(each.thought for each in repeats) / len(repeats)


def _truncated(repeats: Repeats) -> float:
    return sum(each.response.finish_reason == "length" for each in repeats) / len(repeats)


def _unparsed(repeats: Repeats) -> float:
    return sum(each.grade is Grade.UNPARSED for each in repeats) / len(repeats)


def _by_task(graded: Sequence[Graded], weights: Weights | None = None) -> dict[str, dict[str, list[Graded]]]:
    """Groups responses by task and prompt, sorted, so that the order of storing has no effect.

    Tasks are in the order of ``weights``, else in the order of the responses.
    """
    if not graded:
        raise InputError("no responses to measure")
    if len({each.key for each in graded}) < len(graded):
        raise InputError("a response was given twice: task, sample and repeat must be unique")
    names = dict.fromkeys(each.task for each in graded)
    known = [name for name in weights or () if name in names]
    tasks: dict[str, dict[str, list[Graded]]] = {name: defaultdict(list) for name in dict.fromkeys([*known, *names])}
    for each in sorted(graded, key=lambda each: each.key):
        tasks[each.task][each.sample_id].append(each)
    return tasks


def _counted(tasks: Mapping[str, T], weights: Weights | None) -> dict[str, T]:
    """Leaves guards out. A task without a weight stays in, so that ``task_weights`` refuses it."""
    return {name: task for name, task in tasks.items() if weights is None or weights.get(name) != 0}


def _measure_task(prompts: Prompts) -> Measured:
    num_responses = sum(map(len, prompts.values()))
    return Measured(
        _task_share(prompts, _correct),
        _tokens(prompts).estimate,
        _task_share(prompts, _thought),
        _task_share(prompts, _truncated),
        _task_share(prompts, _unparsed),
        _quantiles({"": prompts}, None),
        num_responses,
        {},
    )


def _task_share(prompts: Prompts, of: Callable[[Repeats], float]) -> Estimate:
    means = np.array([of(repeats) for repeats in prompts.values()])
    return estimates.share(means, num_responses=sum(map(len, prompts.values())))


def _tokens(prompts: Prompts) -> Limits:
    lengths = [[each.response.num_tokens for each in repeats] for repeats in prompts.values()]
    means = np.array([math.fsum(each) / len(each) for each in lengths])
    cut = any(_truncated(repeats) for repeats in prompts.values())
    cap = max(map(max, lengths)) if cut else math.inf  # a cut response shows the cap
    return estimates.tokens(means, num_responses=sum(map(len, lengths)), cap=cap, seed=0)


def _quantiles(tasks: Mapping[str, Prompts], weights: Weights | None) -> Quantiles:
    """Returns quantiles of lengths, with each response weighted as in mean tokens."""
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
