"""Generates with transformers: both parents and a live model on a CPU or a GPU, merged in place.

The live weights are rounded once, to the checkpoint's dtype; ``dtype`` is only the compute dtype. The evaluated weights
therefore equal the exported ones bit for bit. Nothing is cached between two calls of ``generate``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from autolambda.engines.base import WATCH_STEPS, Fingerprint, Prompt, Sampling, Watch
from autolambda.engines.decoder import Decoder, end_ids_of
from autolambda.engines.dtype import check_dtypes, resolve_dtype
from autolambda.engines.transformers.attention import use_grouped_heads
from autolambda.engines.transformers.batch import Batch
from autolambda.engines.transformers.layout import live_tensors, misplaced
from autolambda.engines.transformers.loading import (
    is_out_of_memory,
    load_model,
    resolve_device,
)
from autolambda.engines.transformers.packed import PackedLinears
from autolambda.engines.uncomputed import check_unplaced, in_words
from autolambda.errors import AutolambdaError, EngineError, one_line
from autolambda.merging.arithmetic import combine
from autolambda.merging.fingerprint import digest_of_tensors
from autolambda.merging.kernels.formula import roles_of
from autolambda.merging.merge import Merge, check_in_place, open_merge
from autolambda.merging.method import Method
from autolambda.merging.pair import Pair
from autolambda.responses import Response
from autolambda.schedule import Schedule

# For fewer parameters a second thread gains little on an idle CPU, and is 5 to 10 times slower on a busy one.
SMALL = 50_000_000


class TransformersEngine:
    """Implements ``engines.base.Engine`` with transformers' own model code."""

    streams = False  # with a mixture of experts a response depends on its whole batch

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

        ``threads`` is PyTorch's number of threads on a CPU, by default one for a small model. Raises ``ConfigError`` if
        the device is missing or the dtype is too narrow for the weights. Raises ``EngineError`` if memory is short, the
        files lack parameters, or the model has no place for one of their tensors.
        """
        self._device = resolve_device(device)
        if threads is None and self._device.type == "cpu" and pair.num_parameters < SMALL:
            threads = 1
        self._threads = threads
        self._tokenizer = tokenizer
        self._pair = pair
        with self._computing():
            self._model: Any = load_model(pair, dtype=resolve_dtype(dtype, pair, self._device)).to(self._device).eval()
            if self._device.type == "cpu":
                use_grouped_heads(self._model)
            self._live = self._find_tensors()
            self._packed = PackedLinears(self._model)
            check_dtypes({name: live.dtype for name, live in self._live.items()}, pair)
            parents = open_merge(pair, Schedule.uniform(1.0))
            # on a CPU they stay in their files, which workers share
            self._instruct, self._thinking = (
                {name: parents.read(role, name).to(self._device) for name in self._live} for role in parents.models
            )
            self._check_places()
            self._draws = {
                name: draws.to(self._device)
                for name in self._live
                if (draws := pair.rounding.draws(name, pair.tensors[name].shape, pair.tensors[name].dtype))
            }
        self._end_ids = end_ids_of(pair, tokenizer)
        dtype_name = str(self._model.dtype).removeprefix("torch.")
        unplaced = [name for name in pair.tensors if name not in self._live]
        self.in_words = f"transformers on {self._device}, {dtype_name}{in_words(unplaced)}"
        self.set_merge(Method.linear(Schedule.uniform(1.0)))
        self._check_generation()

    def _find_tensors(self) -> dict[str, Tensor]:
        """Returns views of the live values by checkpoint name. Raises ``EngineError`` if a tensor has no place."""
        infos = self._pair.tensors
        live = live_tensors(self._model, {name: info.shape for name, info in infos.items()})
        unplaced = [name for name in infos if name not in live]
        model = f"transformers' {type(self._model).__name__}"
        check_unplaced(unplaced, num_layers=self._pair.num_layers, model=model)
        return live

    def _check_places(self) -> None:
        """Raises ``EngineError`` if transformers has loaded other values than the files hold in the places found."""
        stored = {name: self._live[name] for name in self._live.keys() & self._pair.thinking.tensors.keys()}
        if wrong := misplaced(self._model, stored, self._thinking):
            raise EngineError(
                f"transformers' {type(self._model).__name__} does not hold '{wrong[0]}' as its files do, so it cannot "
                "be merged in place; set engine.name to vllm"
            )

    def _check_generation(self) -> None:
        """Generates a token. Raises ``EngineError`` for a model that needs a cache or masks of its own."""
        sampling = Sampling(temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0, stop=(), max_tokens=1)
        try:
            if "past_key_values" not in inspect.signature(self._model.forward).parameters:
                raise TypeError("it takes no past_key_values")  # RWKV would ignore them, and lose the context
            self.generate([Prompt("a b", 0)], sampling)
        except AutolambdaError:
            raise
        except Exception as error:  # model code can raise anything
            raise EngineError(
                f"transformers' {type(self._model).__name__} cannot generate in batches of independent rows "
                f"({one_line(error)}); set engine.name to vllm"
            ) from error

    def set_merge(self, method: Method) -> None:
        """Merges in place: the linear method from the parents in memory, other models and methods from the files."""
        merge = open_merge(self._pair, method)
        check_in_place(merge)
        with self._computing():
            # of all names first: a schedule that does not know one of them changes nothing
            points = {name: merge.coefficients_of(name) for name in self._live} if method.name == "linear" else {}
            for name, live in self._live.items():
                if not points:
                    live.copy_(merge.tensor(name).view(live.shape))
                    continue
                models = {"instruct": self._instruct[name], "thinking": self._thinking[name]}
                models |= {role: merge.read(role, name) for role in roles_of(points[name]) if role not in models}
                models = {role: model.view(live.shape) for role, model in models.items()}
                combine(models, points[name], out=live, draws=self._draws.get(name))
            self._packed.renew()
        self._merge: Merge = merge

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        """Returns one response per prompt; the whole list is one batch."""
        if not prompts:
            return []
        with self._computing():
            decoder = Decoder.of(self._tokenizer, sampling, end_ids=self._end_ids)
            batch = Batch(self._model, decoder, prompts, sampling)
            _run(batch, watch)
            return batch.responses()

    def fingerprint(self) -> Fingerprint:
        """Hashes the live weights in the checkpoint's dtypes; tensors that are not computed, as merges of the files."""
        infos = self._pair.tensors
        with self._computing():
            tensors = {
                name: self._live[name].reshape(info.shape) if name in self._live else self._merge.tensor(name)
                for name, info in infos.items()
            }
            return Fingerprint(digest_of_tensors(tensors, infos), whole=True)

    def close(self) -> None:
        """Frees the weights."""
        self._instruct, self._thinking, self._live, self._draws, self._model = {}, {}, {}, {}, None
        self._packed.close()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Turns gradients off and sets the number of threads; restores both at the end."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads or before)
        try:
            with _memory_errors(), torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)


def _run(batch: Batch, watch: Watch | None) -> None:
    """Generates until no row is running, or until the watcher aborts."""
    while num_active := batch.num_active:
        batch.step()
        is_due = batch.num_active < num_active or batch.num_steps % WATCH_STEPS == 0
        if watch and is_due and not watch(batch.progress()):
            batch.abort()


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turns an out-of-memory error into an ``EngineError`` with advice."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            advice = "lower engine.batch_size or sampling.max_tokens, shorten the prompts, or use smaller parents"
            raise EngineError(f"out of memory: {str(error).splitlines()[0]}; {advice}") from error
        raise
