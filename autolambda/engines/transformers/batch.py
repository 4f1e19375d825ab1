"""One batch being generated: the rows still running and the tokens of all. A finished row is dropped.

A row's tokens follow from its prompt and seed alone (see rows.py). With a mixture of experts the rows of each expert
follow from the batch, and logits can differ in their last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from autolambda.engines.base import Progress, Prompt, Sampling
from autolambda.engines.decoder import Decoder, encode
from autolambda.engines.transformers.cache import ROW_STEP, WIDTH_STEP, RowCache, attention_masks, round_up
from autolambda.engines.transformers.sampling import RandomRows, draw
from autolambda.errors import EngineError
from autolambda.responses import FinishReason, Response

# Rows are dropped once no more than this share of the batch is still running: each drop copies the cache.
KEEP_SHARE = 0.8


class Batch:
    """One batch being generated: the rows still running, their cache, and the tokens of all."""

    def __init__(self, module: Any, decoder: Decoder, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        """``module`` is a transformers model. Raises ``EngineError`` for prompts without a token."""
        self._module, self._config = module, module.config.get_text_config()
        self._decoder, self._sampling = decoder, sampling
        device = module.device
        ids = encode(decoder.tokenizer, prompts)
        self._tokens: list[list[int]] = [[] for _ in ids]
        self._responses: list[Response | None] = [None] * len(ids)
        self._random = RandomRows([prompt.seed for prompt in prompts])
        # filled up with copies of the first row, which nobody reads
        filled = list(ids) + [ids[0]] * (round_up(len(ids), ROW_STEP) - len(ids))
        self._rows = [i if i < len(ids) else 0 for i in range(len(filled))]
        self._running = [i < len(ids) for i in range(len(filled))]
        self._cache = RowCache()
        self._last = torch.tensor([row[-1] for row in filled], device=device)
        self._lengths = torch.tensor([len(row) - 1 for row in filled], device=device)
        self._seen: torch.Tensor | None = None  # bool [B, V]: which tokens a row has generated
        if sampling.presence_penalty:
            self._seen = torch.zeros(len(filled), self._config.vocab_size, dtype=torch.bool, device=device)
        self._end = torch.tensor(sorted(decoder.end_ids), dtype=torch.long, device=device)
        self._num_steps = 0
        self._prefill(filled)

    @property
    def num_active(self) -> int:
        """The rows still running."""
        return sum(self._running)

    @property
    def num_steps(self) -> int:
        """The steps so far: the tokens of each row still running."""
        return self._num_steps

    def _prefill(self, ids: list[list[int]]) -> None:
        """All prompt tokens but the last of each row; the first step feeds that one."""
        width = max(len(row) for row in ids) - 1
        if width == 0:
            return
        padded = torch.tensor([row[:-1] + [row[-1]] * (width - len(row) + 1) for row in ids])
        slots = torch.arange(width).expand(len(ids), -1)
        self._forward(padded.to(self._last.device), slots.to(self._last.device), width)

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, used: int) -> torch.Tensor:
        """Logits [B, V] of the last token of ``ids`` int64 [B, T] at ``positions`` [B, T]; ``used`` slots are taken."""
        width = round_up(used, WIDTH_STEP)
        self._cache.place(positions, width=width)
        masks = attention_masks(self._config, positions, width=width, dtype=self._module.dtype)
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
        """One token for every row that is running."""
        used = int(self._lengths.max()) + 1
        logits = self._forward(self._last[:, None], self._lengths[:, None], used)
        if bool(logits.amax(-1).isnan().any()):
            raise EngineError("the model's logits are NaN; set engine.dtype to float32, or check the parents' weights")
        uniform = self._random.at(self._num_steps, self._rows).to(logits.device)
        self._last = draw(logits, uniform, self._sampling, self._seen)
        if self._seen is not None:
            self._seen.scatter_(1, self._last[:, None], True)
        self._lengths += 1
        self._num_steps += 1
        ended = torch.isin(self._last, self._end).tolist()
        for place, (token, end) in enumerate(zip(self._last.tolist(), ended, strict=True)):
            if self._running[place]:
                self._record(place, token, end)
        self._drop_finished()

    def _record(self, place: int, token: int, end: bool) -> None:
        row = self._rows[place]
        tokens = self._tokens[row]
        tokens.append(token)
        if end or self._decoder.met_stop(tokens):
            self._finish(place, "stop")
        elif len(tokens) == self._sampling.max_tokens:
            self._finish(place, "length")

    def _finish(self, place: int, reason: FinishReason) -> None:
        row = self._rows[place]
        self._responses[row] = self._decoder.response(self._tokens[row], reason)
        self._running[place] = False

    def _drop_finished(self) -> None:
        places = [place for place, running in enumerate(self._running) if running]
        num_kept = round_up(len(places), ROW_STEP)
        if not places or num_kept > KEEP_SHARE * len(self._rows):
            return
        places += [place for place, running in enumerate(self._running) if not running][: num_kept - len(places)]
        kept = torch.tensor(places, device=self._last.device)
        self._cache.keep(kept)
        self._last, self._lengths = self._last[kept], self._lengths[kept]
        self._seen = self._seen[kept] if self._seen is not None else None
        self._rows = [self._rows[place] for place in places]
        self._running = [self._running[place] for place in places]

    def abort(self) -> None:
        """Ends the rows that are running as they are."""
        for place, running in enumerate(self._running):
            if running:
                self._finish(place, "aborted")

    def progress(self) -> Progress:
        """How far it got: values that the next step does not change, but for the tokens."""
        return Progress([len(tokens) for tokens in self._tokens], list(self._responses), self._tokens)

    def responses(self) -> list[Response]:
        """In the order of the prompts, once no row is running."""
        assert not self.num_active
        return [response for response in self._responses if response is not None]
