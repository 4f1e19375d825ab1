"""A batch whose rows live on their own: row b keeps its token t in slot t of the cache, whatever its neighbours do.

Rows are right-padded, each with its own length, so that a finished row can be dropped and no row's sums change with
the batch around it: slots past a row's length are masked, widths are multiples of 32, and the number of rows one of
16, because BLAS sums the rows left over from its blocks in another order. With a mixture of experts the rows of each
expert follow from the batch, and logits can differ in their last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, PreTrainedTokenizerBase

from autolambda.engines.base import Prompt, Sampling
from autolambda.engines.draw import RandomRows, draw
from autolambda.errors import EngineError
from autolambda.responses import FinishReason, Response

ROW_STEP = 16
WIDTH_STEP = 32
# Rows are dropped once no more than this share of the batch is still running: each drop copies the cache.
KEEP_SHARE = 0.8


def round_up(value: int, step: int) -> int:
    """The smallest multiple of ``step`` that is at least ``value``."""
    return -(-value // step) * step


class RowCache(Cache):
    """Keys and values of one batch, one tensor [B, kv_heads, capacity, head_dim] a layer, in the compute dtype."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.slots = self.rows = torch.empty(0, dtype=torch.long)
        self.width = 0

    def place(self, slots: torch.Tensor, *, width: int) -> None:
        """Says where the next tokens go: ``slots`` int64 [B, T]; the first ``width`` slots are then attended to."""
        self.slots, self.width = slots, width
        self.rows = torch.arange(len(slots), device=slots.device)[:, None]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes keys and values [B, kv_heads, T, head_dim] into their slots; returns views of the first ``width``."""
        if layer_idx == len(self.keys):
            self.keys.append(_grown(key_states, self.width))
            self.values.append(_grown(value_states, self.width))
        elif self.keys[layer_idx].shape[2] < self.width:
            capacity = round_up(self.width + self.width // 2, WIDTH_STEP)
            self.keys[layer_idx] = _grown(key_states, capacity, self.keys[layer_idx])
            self.values[layer_idx] = _grown(value_states, capacity, self.values[layer_idx])
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[self.rows, :, self.slots] = key_states.transpose(1, 2)
        values[self.rows, :, self.slots] = value_states.transpose(1, 2)
        return keys[:, :, : self.width], values[:, :, : self.width]

    def keep(self, rows: torch.Tensor) -> None:
        """Keeps the given rows (int64 [B']), in that order."""
        self.keys = [tensor.index_select(0, rows) for tensor in self.keys]
        self.values = [tensor.index_select(0, rows) for tensor in self.values]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The number of slots attended to; positions are always passed in, so nothing is derived from it."""
        return self.width


def _grown(states: torch.Tensor, capacity: int, former: torch.Tensor | None = None) -> torch.Tensor:
    """Zeros [B, kv_heads, capacity, head_dim] like ``states``, starting with what ``former`` held."""
    batch, heads, _, dim = states.shape
    grown = states.new_zeros(batch, heads, capacity, dim)
    if former is not None:
        grown[:, :, : former.shape[2]] = former
    return grown


def attention_masks(
    config: Any, positions: torch.Tensor, *, width: int, dtype: torch.dtype
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Masks to add to the scores, [B, 1, T, width] in ``dtype``, for queries at ``positions`` (int64 [B, T]).

    A query sees (0, not -inf) the slots up to its own; in sliding-window layers only the last
    ``config.sliding_window`` of them. Families that mix layers (Qwen2, Qwen3, Gemma 2 and 3: their config has
    ``layer_types``) take a dict by layer type, the others (Llama, Mistral, the MoE models) one mask. Numbers and not
    booleans, which eager attention (Gemma 2) would add as 0 and 1.
    """
    distance = positions[:, None, :, None] - torch.arange(width, device=positions.device)
    full = _additive(distance >= 0, dtype)
    window = getattr(config, "sliding_window", None)
    near = _additive((distance >= 0) & (distance < window), dtype) if window else full
    if getattr(config, "layer_types", None):
        return {"full_attention": full, "sliding_attention": near}
    return near


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)


@dataclass(frozen=True)
class LiveModel:
    """What a batch generates with: a transformers model, its tokenizer, and the ids that end a response."""

    module: Any
    tokenizer: PreTrainedTokenizerBase
    end_ids: frozenset[int]

    @property
    def config(self) -> Any:
        return self.module.config.get_text_config()

    @property
    def device(self) -> torch.device:
        device: torch.device = self.module.device
        return device

    def decode(self, tokens: list[int]) -> str:
        """Text as generated, special tokens included: a tokenizer may count ``</think>`` as one."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))


class Batch:
    """One batch being generated: the rows still running, their cache, and the tokens of all."""

    def __init__(self, model: LiveModel, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        self._model, self._sampling = model, sampling
        device = model.device
        ids = model.tokenizer([prompt.text for prompt in prompts], add_special_tokens=False).input_ids
        if empty := [str(i) for i, row in enumerate(ids) if not row]:
            raise EngineError(f"prompts without a token: number {', '.join(empty)}; a model needs at least one")
        self._tokens: list[list[int]] = [[] for _ in ids]
        self._finish: list[FinishReason | None] = [None] * len(ids)
        self._random = RandomRows([prompt.seed for prompt in prompts])
        # filled up with copies of the first row, which nobody reads
        filled = list(ids) + [ids[0]] * (round_up(len(ids), ROW_STEP) - len(ids))
        self._rows = [i if i < len(ids) else 0 for i in range(len(filled))]
        self._running = [i < len(ids) for i in range(len(filled))]
        self._cache = RowCache()
        self._last = torch.tensor([row[-1] for row in filled], device=device)
        self._lengths = torch.tensor([len(row) - 1 for row in filled], device=device)
        seen = torch.zeros(len(filled), model.config.vocab_size, dtype=torch.bool, device=device)
        self._seen = seen if sampling.presence_penalty else None
        self._end = torch.tensor(sorted(model.end_ids), dtype=torch.long, device=device)
        self._tail = max((len(stop.encode()) for stop in sampling.stop), default=0) + 8
        self._num_steps = 0
        self._prefill(filled)

    @property
    def active(self) -> bool:
        return any(self._running)

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
        masks = attention_masks(self._model.config, positions, width=width, dtype=self._model.module.dtype)
        output = self._model.module(
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
        if end or self._met_stop(tokens):
            self._finish[row] = "stop"
        elif len(tokens) == self._sampling.max_tokens:
            self._finish[row] = "length"
        self._running[place] = self._finish[row] is None

    def _met_stop(self, tokens: list[int]) -> bool:
        """Whether the newest token completes a stop string: looked for in the last tokens (each at least a byte)."""
        if not self._sampling.stop:
            return False
        text = self._model.decode(tokens[-self._tail :])
        return any(stop in text for stop in self._sampling.stop) and self._stop_at(tokens) is not None

    def _stop_at(self, tokens: list[int]) -> int | None:
        """Where in the text the first stop string begins, or ``None``."""
        text = self._model.decode(tokens)
        found = [at for stop in self._sampling.stop if (at := text.find(stop)) >= 0]
        return min(found, default=None)

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

    def responses(self) -> list[Response]:
        """In the order of the prompts; end tokens count but are not part of the text."""
        return [
            self._response(tokens, finish or "length")
            for tokens, finish in zip(self._tokens, self._finish, strict=True)
        ]

    def _response(self, tokens: list[int], finish: FinishReason) -> Response:
        ended = finish == "stop" and tokens[-1] in self._model.end_ids
        text = self._model.decode(tokens[:-1] if ended else tokens)
        if finish == "stop" and not ended and (stop_at := self._stop_at(tokens)) is not None:
            text = text[:stop_at]
        return Response(text=text, num_tokens=len(tokens), finish_reason=finish)
