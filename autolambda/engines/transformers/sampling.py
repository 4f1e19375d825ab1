"""Draws the next token of every row, each from a separate stream of random numbers.

The order is vLLM's: repetition, frequency and presence penalty, temperature, min-p, top-k, top-p. Each filter sees the
renormalised output of the one before (top-p: Holtzman et al. 2020, arXiv 1904.09751). A token is the inverse of the
cumulative distribution at a uniform number u. The row's seed and the step determine u; the device and the batch do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from autolambda.engines.base import Sampling

_BLOCK = 256
_LARGEST = 1024  # tokens that are looked at first if there is no top-k
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


class TokenCounts:
    """How often each row has each token: in its response, and whether in its prompt. V is the vocabulary."""

    def __init__(self, prompts: Sequence[Sequence[int]], *, vocab_size: int, device: torch.device) -> None:
        """``prompts`` holds the token ids of each row's prompt."""
        self.generated = torch.zeros(len(prompts), vocab_size, dtype=torch.int32, device=device)  # [B, V]
        self.in_prompt = torch.zeros(len(prompts), vocab_size, dtype=torch.bool, device=device)  # [B, V]
        for row, ids in enumerate(prompts):
            self.in_prompt[row, torch.tensor(ids, dtype=torch.long, device=device)] = True

    @classmethod
    def needed_for(
        cls, sampling: Sampling, prompts: Sequence[Sequence[int]], *, vocab_size: int, device: torch.device
    ) -> TokenCounts | None:
        """Returns counts if the sampling has a penalty, else ``None``."""
        is_plain = sampling.repetition_penalty == 1 and not (sampling.presence_penalty or sampling.frequency_penalty)
        return None if is_plain else cls(prompts, vocab_size=vocab_size, device=device)

    def add(self, tokens: torch.Tensor) -> None:
        """Counts the newest token of each row, int64 [B]."""
        self.generated.scatter_add_(1, tokens[:, None], torch.ones_like(tokens, dtype=torch.int32)[:, None])

    def keep(self, rows: torch.Tensor) -> None:
        """Keeps only the given rows (int64 [B']), in the given order."""
        self.generated, self.in_prompt = self.generated[rows], self.in_prompt[rows]

    def penalised(self, logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
        """Returns the logits [B, V] after the penalties."""
        seen = self.generated > 0
        if sampling.repetition_penalty != 1:
            scaled = torch.where(logits > 0, logits / sampling.repetition_penalty, logits * sampling.repetition_penalty)
            logits = torch.where(seen | self.in_prompt, scaled, logits)
        return logits - sampling.frequency_penalty * self.generated - sampling.presence_penalty * seen


def draw(
    logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling, counts: TokenCounts | None = None
) -> torch.Tensor:
    """Returns the next token ids, int64 [B], from logits [B, V] and ``uniform``, float32 [B].

    Only penalties need ``counts``.
    """
    logits = logits.float()
    if counts is not None:
        logits = counts.penalised(logits, sampling)
    if sampling.temperature < _GREEDY_BELOW:
        return logits.argmax(-1)
    size = logits.shape[-1]
    num_kept = min(sampling.top_k or size, size)
    if num_kept == size > 4 * _LARGEST:
        return _draw_from_all(logits, uniform, sampling)
    kept, ids = logits.topk(num_kept, dim=-1) if num_kept < size else _sorted(logits)
    return _at(uniform, _nucleus(_scaled(kept, sampling).softmax(-1), sampling), ids)


def _draw_from_all(logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Draws without a top-k. Only rows whose draw may lie beyond their ``_LARGEST`` tokens are sorted whole."""
    kept, ids = logits.topk(_LARGEST, dim=-1)
    total = _scaled(logits, sampling, highest=kept[:, :1]).logsumexp(-1, keepdim=True)
    probabilities = (_scaled(kept, sampling) - total).exp()
    reached = probabilities.sum(-1)
    inside = reached >= sampling.top_p if sampling.top_p < 1 else reached > uniform
    probabilities = _nucleus(probabilities, sampling)
    if sampling.top_p == 1:  # what is left of the distribution counts too
        probabilities = torch.cat([probabilities, (1 - reached).clamp_min(0)[:, None]], dim=-1)
        ids = torch.cat([ids, ids[:, -1:]], dim=-1)
    tokens = _at(uniform, probabilities, ids)
    if not inside.all():
        rest = ~inside
        kept, ids = _sorted(logits[rest])
        tokens[rest] = _at(uniform[rest], _nucleus(_scaled(kept, sampling).softmax(-1), sampling), ids)
    return tokens


def _sorted(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns all logits and their ids, the highest first."""
    kept, ids = logits.sort(dim=-1, descending=True, stable=True)
    return kept, ids


def _scaled(logits: torch.Tensor, sampling: Sampling, *, highest: torch.Tensor | None = None) -> torch.Tensor:
    """Returns the logits after temperature and min-p. The ``highest`` of each row, by default the first, becomes 0.

    So a low temperature cannot overflow.
    """
    scaled = (logits - (logits[:, :1] if highest is None else highest)) / sampling.temperature
    return scaled.masked_fill(scaled < math.log(sampling.min_p), -torch.inf) if sampling.min_p else scaled


def _nucleus(probabilities: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Returns the probabilities after top-p, not scaled again. The highest come first."""
    if sampling.top_p == 1:
        return probabilities
    before = probabilities.cumsum(-1) - probabilities
    return probabilities.masked_fill(before >= sampling.top_p, 0.0)


def _at(uniform: torch.Tensor, probabilities: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Returns the ids at which the cumulative distributions pass ``uniform`` of their totals."""
    cumulative = probabilities.cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    # u < 1, but rounding can reach the total: then take the last token with a probability above 0
    last = (probabilities > 0).sum(-1, keepdim=True) - 1
    index = torch.searchsorted(cumulative, target, right=True).minimum(last)
    return ids.gather(-1, index).squeeze(-1)
