"""Draws the next token of every row, each from a separate stream of random numbers.

The order is: presence penalty, temperature, min-p, top-k, top-p. Each filter sees the renormalised output of the one
before (top-p: Holtzman et al. 2020, arXiv 1904.09751). A token is the inverse of the cumulative distribution at a
uniform number u. The row's seed and the step determine u; the device and the batch do not.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from autolambda.engines.base import Sampling

_BLOCK = 256
_GREEDY_BELOW = 1e-5  # float32 cannot divide by lower temperatures


class RandomRows:
    """A stream of uniform numbers in [0, 1) for each seed, from the Philox generator."""

    def __init__(self, seeds: list[int]) -> None:
        self._streams = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]
        self._block = np.empty((len(seeds), 0), dtype=np.float32)
        self._start = 0

    def at(self, step: int, rows: list[int]) -> torch.Tensor:
        """Returns the number of each row at ``step``, float32 [len(rows)]. Steps must come in order, from 0."""
        if step == self._start + self._block.shape[1]:
            self._start = step
            self._block = np.stack([stream.random(_BLOCK, dtype=np.float32) for stream in self._streams])
        return torch.from_numpy(self._block[rows, step - self._start])


def draw(logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling, seen: torch.Tensor | None) -> torch.Tensor:
    """Returns the next token ids, int64 [B], from logits [B, V] and ``uniform``, float32 [B].

    ``seen`` (bool [B, V]) marks the tokens already generated; only a presence penalty needs it.
    """
    logits = logits.float()
    if sampling.presence_penalty and seen is not None:
        logits = logits - sampling.presence_penalty * seen
    if sampling.temperature < _GREEDY_BELOW:
        return logits.argmax(-1)
    num_kept = min(sampling.top_k or logits.shape[-1], logits.shape[-1])
    if num_kept == logits.shape[-1]:
        kept, ids = logits.sort(dim=-1, descending=True, stable=True)
    else:
        kept, ids = logits.topk(num_kept, dim=-1)
    kept = (
        kept - kept[:, :1]
    ) / sampling.temperature  # the highest logit becomes 0, so that a low temperature cannot overflow
    if sampling.min_p:
        kept = kept.masked_fill(kept < math.log(sampling.min_p), -torch.inf)
    probabilities = kept.softmax(-1)
    if sampling.top_p < 1:
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)
    cumulative = probabilities.cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    # u < 1, but rounding can reach the total: then take the last token with a probability above 0
    last = (probabilities > 0).sum(-1, keepdim=True) - 1
    index = torch.searchsorted(cumulative, target, right=True).minimum(last)
    return ids.gather(-1, index).squeeze(-1)
