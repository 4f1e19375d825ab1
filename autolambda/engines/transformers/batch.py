"""A batch during generation: its running rows, and the tokens of all its prompts. Finished rows are dropped.

With a dense model and prompts up to about 100 tokens, a row's tokens depend only on its prompt and seed (see cache.py).
For longer ones PyTorch's attention chooses its blocks by the longest prompt prefilled beside them, and with a mixture
of experts the batch decides how many rows an expert computes: logits can then differ in their last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from autolambda.engines.base import Progress, Prompt, Sampling
from autolambda.engines.decoder import Decoder, encode
from autolambda.engines.transformers.cache import ROW_STEP, WIDTH_STEP, RowCache, attention_masks, round_up
from autolambda.engines.transformers.rope import RowRope
from autolambda.engines.transformers.sampling import RandomRows, TokenCounts, draw
from autolambda.engines.transformers.states import StateCache, has_states
from autolambda.errors import EngineError
from autolambda.responses import FinishReason, Response

# Finished rows are dropped when at most this share of the rows would be kept, because each drop copies the cache.
KEEP_SHARE = 0.8
PREFILL = 512  # positions that a prefill reads at once, at least: below, a matrix product is less efficient


class Batch:
    """The running rows with their cache, and the tokens of all prompts. B is the number of rows, V the vocabulary."""

    def __init__(self, module: Any, decoder: Decoder, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        """``module`` is a transformers model. Raises ``EngineError`` for prompts without a token."""
        self._module, self._config = module, module.config.get_text_config()
        self._decoder, self._sampling = decoder, sampling
        device = module.device
        ids = encode(decoder.tokenizer, prompts, num_rows=module.get_input_embeddings().num_embeddings)
        self._tokens: list[list[int]] = [[] for _ in ids]
        self._responses: list[Response | None] = [None] * len(ids)
        self._random = RandomRows([prompt.seed for prompt in prompts])
        # copies of the first prompt fill the batch up; nobody reads them
        filled = list(ids) + [ids[0]] * (round_up(len(ids), ROW_STEP) - len(ids))
        self._prompt_of_row = [i if i < len(ids) else 0 for i in range(len(filled))]
        self._running = [i < len(ids) for i in range(len(filled))]
        self._prompts = ids
        self._recurs = has_states(self._config)
        self._cache = StateCache(self._config) if self._recurs else RowCache(len(filled))
        self._rope = RowRope(module)
        self._last = torch.tensor([row[-1] for row in filled], device=device)
        self._lengths = torch.tensor([len(row) - 1 for row in filled], device=device)
        self._counts = TokenCounts.needed_for(sampling, filled, vocab_size=self._config.vocab_size, device=device)
        self._end = torch.tensor(sorted(decoder.end_ids), dtype=torch.long, device=device)
        self._num_steps = 0
        self._prefill(filled)

    @property
    def num_active(self) -> int:
        """The number of running rows."""
        return sum(self._running)

    @property
    def num_steps(self) -> int:
        """The number of steps so far, which is the number of tokens of each running row."""
        return self._num_steps

    def _prefill(self, ids: list[list[int]]) -> None:
        """Fills the cache with all prompt tokens except the last of each row, which the first step computes."""
        if self._recurs:
            read = [self._read_alone(ids[prompt]) for prompt in range(len(self._tokens))]
            first, *others = (read[prompt] for prompt in self._prompt_of_row)
            first.join(others)
            self._cache = first
            return
        device = self._last.device
        for rows in alike([len(row) - 1 for row in ids]):
            width = max(len(ids[row]) for row in rows) - 1
            padded = torch.tensor([ids[row][:-1] + [ids[row][-1]] * (width - len(ids[row]) + 1) for row in rows])
            slots = torch.arange(width).expand(len(rows), -1)
            self._forward(padded.to(device), slots.to(device), width, rows=torch.tensor(rows, device=device))

    def _read_alone(self, ids: list[int]) -> StateCache:
        """Returns the cache of one row, with all tokens of its prompt except the last."""
        self._cache = cache = StateCache(self._config)
        read = torch.tensor([ids[:-1] or ids], device=self._last.device)
        lengths = torch.tensor([read.shape[1]], device=self._last.device)
        self._forward(read, torch.arange(read.shape[1], device=read.device)[None], read.shape[1], lengths=lengths)
        if len(ids) == 1:  # read to make its states, and its slot is written again
            cache.forget()
        return cache

    def _forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        used: int,
        *,
        rows: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns the last logits [B, V]; ``ids`` and ``positions`` are int64 [B, T], ``used`` is the visible width.

        They belong to all rows, or to ``rows`` (int64 [B]), which must have the same positions. ``lengths`` are the
        tokens of these rows, with the newest.
        """
        width = round_up(used, WIDTH_STEP)
        self._cache.select(positions, width=width, rows=rows)
        seen = positions if rows is None else positions[:1]  # one mask for all: with long prompts it takes gigabytes
        masks: Any = attention_masks(self._config, seen, width=width, dtype=self._module.dtype)
        if self._recurs and isinstance(masks, dict):
            masks |= {"linear_attention": None, "conv": None}  # nothing is padded
        if lengths is None:
            lengths = self._lengths + 1 if rows is None else self._lengths[rows] + 1
        with self._rope.of(lengths):
            output = self._module(
                input_ids=ids,
                position_ids=positions,
                attention_mask=masks,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def step(self) -> None:
        """Generates one token for every running row."""
        if self._rope.switch is not None and self._num_steps:
            self._compute_again(self._rope.switch)
        used = int(self._lengths.max()) + 1
        logits = self._forward(self._last[:, None], self._lengths[:, None], used)
        if bool(logits.amax(-1).isnan().any()):
            raise EngineError("the model's logits are NaN; set engine.dtype to float32, or check the parents' weights")
        uniform = self._random.at(self._num_steps, self._prompt_of_row).to(logits.device)
        self._last = draw(logits, uniform, self._sampling, self._counts)
        if self._counts is not None:
            self._counts.add(self._last)
        self._lengths += 1
        self._num_steps += 1
        ended = torch.isin(self._last, self._end).tolist()
        for row, (token, end) in enumerate(zip(self._last.tolist(), ended, strict=True)):
            if self._running[row]:
                self._record(row, token, end)
        self._drop_finished()

    def _compute_again(self, num_tokens: int) -> None:
        """Fills the cache anew for the running rows that are about to pass ``num_tokens``, by the long frequencies."""
        rows = [i for i, num in enumerate(self._lengths.tolist()) if num == num_tokens and self._running[i]]
        for start in range(0, len(rows), ROW_STEP):
            part = rows[start : start + ROW_STEP]
            part += [part[0]] * (ROW_STEP - len(part))
            prompts = [self._prompt_of_row[row] for row in part]
            ids = torch.tensor([(self._prompts[i] + self._tokens[i])[:num_tokens] for i in prompts])
            slots = torch.arange(num_tokens).expand(len(part), -1)
            device = self._last.device
            self._forward(ids.to(device), slots.to(device), num_tokens, rows=torch.tensor(part, device=device))

    def _record(self, row: int, token: int, end: bool) -> None:
        tokens = self._tokens[self._prompt_of_row[row]]
        tokens.append(token)
        if end or self._decoder.met_stop(tokens):
            self._finish(row, "stop")
        elif len(tokens) == self._sampling.max_tokens:
            self._finish(row, "length")

    def _finish(self, row: int, reason: FinishReason) -> None:
        prompt = self._prompt_of_row[row]
        self._responses[prompt] = self._decoder.response(self._tokens[prompt], reason)
        self._running[row] = False

    def _drop_finished(self) -> None:
        rows = [row for row, running in enumerate(self._running) if running]
        num_kept = round_up(len(rows), ROW_STEP)
        if not rows or num_kept > KEEP_SHARE * len(self._running):
            return
        rows += [row for row, running in enumerate(self._running) if not running][: num_kept - len(rows)]
        kept = torch.tensor(rows, device=self._last.device)
        self._cache.keep(kept)
        self._last, self._lengths = self._last[kept], self._lengths[kept]
        if self._counts is not None:
            self._counts.keep(kept)
        self._prompt_of_row = [self._prompt_of_row[row] for row in rows]
        self._running = [self._running[row] for row in rows]

    def abort(self) -> None:
        """Ends the running rows with the tokens generated so far."""
        for row, running in enumerate(self._running):
            if running:
                self._finish(row, "aborted")

    def progress(self) -> Progress:
        """Returns the progress as a copy, which later steps do not change."""
        return Progress([len(tokens) for tokens in self._tokens], list(self._responses))

    def responses(self) -> list[Response]:
        """Returns the responses in the order of the prompts. No row may be running."""
        assert not self.num_active
        return [response for response in self._responses if response is not None]


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Returns groups of rows of like length, the longest first, each to be prefilled at once. Empty rows have none.

    Each has a multiple of ``ROW_STEP`` rows, as ``lengths`` has, and ``PREFILL`` positions or more.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    groups: list[list[int]] = []
    for start in range(0, len(order), ROW_STEP):
        part = order[start : start + ROW_STEP]
        if not lengths[part[0]]:
            break
        if groups and len(groups[-1]) * lengths[groups[-1][0]] < PREFILL:
            groups[-1] += part
        else:
            groups.append(part)
    return groups
