"""The transformers engine: both parents and one live model on a CPU or a GPU, merged in place, generating in batches.

The live weights hold values of the checkpoint's dtype (one rounding), computed with in ``dtype``: what is evaluated is
bit for bit what is exported. A finished row is dropped from the batch as soon as enough of them have gathered.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerBase

from autolambda.engines.base import Prompt, Sampling
from autolambda.engines.draw import RandomRows, draw
from autolambda.engines.rows import MIN_ROWS, WIDTH_STEP, RowCache, attention_masks, round_up
from autolambda.errors import EngineError
from autolambda.merge import interpolate
from autolambda.pair import Pair
from autolambda.responses import FinishReason, Response
from autolambda.schedule import Schedule

logger = logging.getLogger(__name__)

KEEP_SHARE = (
    0.8  # rows are dropped once fewer than this share of the batch is still running: each drop copies the cache
)


class TransformersEngine:
    """Implements ``engines.base.Engine`` with transformers' own model code."""

    def __init__(
        self,
        pair: Pair,
        *,
        tokenizer: PreTrainedTokenizerBase,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
    ) -> None:
        """Loads both parents. ``dtype`` is the compute dtype: auto is float32 on a CPU, the checkpoint's on a GPU.

        ``threads`` are PyTorch's on a CPU. Raises ``EngineError`` where the device or the memory is missing.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        self._device = _device(device)
        self._tokenizer = tokenizer
        self._num_layers = pair.num_layers
        storage = pair.dtype
        compute = getattr(torch, dtype) if dtype != "auto" else torch.float32 if self._device.type == "cpu" else storage
        with _memory_errors(), torch.inference_mode():
            self._instruct = _load(pair.instruct.folder, dtype=storage, device=self._device)
            self._thinking = _load(pair.thinking.folder, dtype=storage, device=self._device)
            config = AutoConfig.from_pretrained(pair.thinking.folder)
            config.tie_word_embeddings = pair.tied
            model: Any = AutoModelForCausalLM.from_config(config, dtype=compute)  # type: ignore[no-untyped-call]  # untyped upstream
            self._model = model.to(self._device).eval()
        self._live = dict(self._model.named_parameters())
        self._storage = storage
        self._end_ids = _end_ids(pair, tokenizer)
        self.set_schedule(Schedule.uniform(1.0))

    @torch.inference_mode()
    def set_schedule(self, schedule: Schedule) -> None:
        """Merges in place: ``interpolate`` into each live parameter."""
        self._schedule = schedule
        for name, live in self._live.items():
            lam = schedule.lam_of(name, num_layers=self._num_layers)
            interpolate(self._instruct[name], self._thinking[name], lam, out=live)

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Response]:
        """One response a prompt; the whole list is one batch."""
        if not prompts:
            return []
        with _memory_errors():
            batch = _Batch(self, prompts, sampling)
            while batch.active:
                batch.step()
            return batch.responses()

    def fingerprint(self) -> str:
        """SHA-256 of names and live weights in the checkpoint's dtype."""
        digest = hashlib.sha256()
        for name, live in sorted(self._live.items()):
            digest.update(name.encode())
            stored = live.detach().to(self._storage).cpu().contiguous()
            digest.update(stored.view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def decode(self, tokens: list[int]) -> str:
        """Text with its special tokens: a tokenizer may count ``</think>`` as one."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))

    def close(self) -> None:
        """Drops the weights."""
        self._instruct, self._thinking, self._live = {}, {}, {}
        del self._model
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class _Batch:
    """One batch being generated: the rows still running, their cache, and the tokens of all."""

    def __init__(self, engine: TransformersEngine, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        self._engine, self._sampling = engine, sampling
        device = engine._device
        ids = engine._tokenizer([prompt.text for prompt in prompts], add_special_tokens=False).input_ids
        self._tokens: list[list[int]] = [[] for _ in ids]
        self._finish: list[FinishReason | None] = [None] * len(ids)
        self._random = RandomRows([prompt.seed for prompt in prompts])
        # filled up to MIN_ROWS with copies of the first row, which nobody reads
        filled = list(ids) + [ids[0]] * max(0, MIN_ROWS - len(ids))
        self._rows = [i if i < len(ids) else 0 for i in range(len(filled))]
        self._running = [i < len(ids) for i in range(len(filled))]
        self._cache = RowCache()
        self._last = torch.tensor([row[-1] for row in filled], device=device)
        self._lengths = torch.tensor([len(row) - 1 for row in filled], device=device)
        vocab = engine._model.config.get_text_config().vocab_size
        self._seen = (
            torch.zeros(len(filled), vocab, dtype=torch.bool, device=device) if sampling.presence_penalty else None
        )
        self._end = torch.tensor(sorted(engine._end_ids), device=device)
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
        self._forward(padded.to(self._engine._device), slots.to(self._engine._device), width)

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, used: int) -> torch.Tensor:
        """Logits [B, V] of the last token of ``ids`` int64 [B, T] at ``positions`` [B, T]; ``used`` slots are taken."""
        model = self._engine._model
        width = round_up(used, WIDTH_STEP)
        self._cache.place(positions, width=width)
        masks: Any = attention_masks(model.config.get_text_config(), positions, width=width)
        output = model(
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
        if end or (self._sampling.stop and self._stop_at(tokens) is not None):
            self._finish[row] = "stop"
        elif len(tokens) == self._sampling.max_tokens:
            self._finish[row] = "length"
        self._running[place] = self._finish[row] is None

    def _stop_at(self, tokens: list[int]) -> int | None:
        """Where in the text the first stop string begins, or ``None``."""
        text = self._engine.decode(tokens)
        found = [at for stop in self._sampling.stop if (at := text.find(stop)) >= 0]
        return min(found, default=None)

    def _drop_finished(self) -> None:
        places = [place for place, running in enumerate(self._running) if running]
        num_kept = max(len(places), MIN_ROWS)
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
        ended = finish == "stop" and tokens[-1] in self._engine._end_ids
        text = self._engine.decode(tokens[:-1] if ended else tokens)
        if finish == "stop" and not ended and (stop_at := self._stop_at(tokens)) is not None:
            text = text[:stop_at]
        return Response(text=text, num_tokens=len(tokens), finish_reason=finish)


def _load(folder: Any, *, dtype: torch.dtype, device: torch.device) -> dict[str, torch.Tensor]:
    """A parent's parameters by the live model's names; a tied head stands under both of its names."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    parameters = model.to(device).named_parameters(remove_duplicate=False)
    return {name: parameter.detach() for name, parameter in parameters}


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _end_ids(pair: Pair, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The Thinking parent's end-of-sequence ids, from its generation config, its config and the tokenizer."""
    ids: set[int] = set()
    sources = [tokenizer.eos_token_id, pair.thinking.config.get("eos_token_id")]
    if (pair.thinking.folder / "generation_config.json").exists():
        sources.append(GenerationConfig.from_pretrained(pair.thinking.folder).eos_token_id)
    for source in sources:
        ids.update(source if isinstance(source, list) else [] if source is None else [source])
    return ids


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turns an out-of-memory error into one line that says what to change."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            advice = "lower engine.batch_size or sampling.max_tokens, or use smaller parents"
            raise EngineError(f"out of memory: {str(error).splitlines()[0]}; {advice}") from error
        raise
