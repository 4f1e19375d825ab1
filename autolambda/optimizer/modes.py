"""The two modes of a schedule's responses: with thinking and without.

Accuracy and mean tokens are mixtures: ``E[x] = pi E[x | thinking] + (1 - pi) E[x | direct]`` with the Think ratio pi. A
cliff lies in pi alone, so the curves of the modes are smooth and need few measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autolambda.statistics.estimates import Z_95, Floats, wilson

_USUAL_VARIATION = 0.7  # standard deviation of lengths over their mean, assumed with the weight of ``_USUAL_SIZE``
_USUAL_SIZE = 4.0


@dataclass(frozen=True)
class ModeObservation:
    """The responses of one mode: their accuracy and mean tokens, and the standard errors.

    ``prompts`` int64 [n] have such responses. ``prompt_effects`` float64 [n, 2] are the deviations of their means.
    """

    values: tuple[float, float]
    errors: tuple[float, float]
    prompts: NDArray[np.int64]
    prompt_effects: Floats


def mode_of(prompts: NDArray[np.int64], outcomes: Floats, weights: Floats) -> ModeObservation | None:
    """Returns the observation of a mode; ``None`` without responses.

    ``prompts`` [n] and ``outcomes`` [n, 2] (correct, tokens) belong to its responses; ``weights`` [n] add up over tasks
    as the tasks count. Standard errors cluster by prompt.
    """
    if not len(prompts) or not weights.sum():
        return None
    asked, place = np.unique(prompts, return_inverse=True)
    total, size = float(weights.sum()), len(asked)
    mean = weights @ outcomes / total
    residuals = np.zeros((size, 2))
    np.add.at(residuals, place, weights[:, None] * (outcomes - mean))
    variance = (residuals**2).sum(axis=0) / total**2 * size / max(size - 1, 1)
    right = max(math.sqrt(variance[0]), wilson(float(mean[0]), len(prompts))[1] / Z_95)
    usual = (_USUAL_VARIATION * mean[1]) ** 2 / size
    spread = ((size - 1) * variance[1] + _USUAL_SIZE * usual) / (size - 1 + _USUAL_SIZE)
    errors = (right, max(math.sqrt(spread), 0.01 * float(mean[1])))
    effects = residuals / np.bincount(place, weights=weights)[:, None]
    return ModeObservation((float(mean[0]), float(mean[1])), errors, asked, effects)
