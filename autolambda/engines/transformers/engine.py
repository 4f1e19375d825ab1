"""Generates with transformers: both parents and a live model on a CPU or a GPU, merged in place.

The live weights are rounded once, to the checkpoint's dtype; ``dtype`` is only the compute dtype. The evaluated weights
therefore equal the exported ones bit for bit. Nothing is cached between two calls of ``generate``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging as logging_of_transformers

from autolambda.engines.base import WATCH_STEPS, Fingerprint, Prompt, Sampling, Watch
from autolambda.engines.decoder import Decoder, end_ids_of
from autolambda.engines.transformers.batch import Batch
from autolambda.engines.transformers.layout import draws_in, tensors_in
from autolambda.errors import CheckpointError, ConfigError, EngineError, one_line, reason
from autolambda.merging.arithmetic import interpolate
from autolambda.merging.fingerprint import digest_of_shares, digest_of_tensors
from autolambda.merging.merge import check_in_place, open_merge
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
        the device is missing or the dtype is too narrow for the weights. Raises ``EngineError`` if memory is short or
        the files lack parameters.
        """
        self._device = resolve_device(device)
        if threads is None and self._device.type == "cpu" and pair.num_parameters < SMALL:
            threads = 1
        self._threads = threads
        self._tokenizer = tokenizer
        self._pair = pair
        with _model_errors(pair.thinking.folder):
            config = _config(pair)
        with self._computing():
            self._instruct = _parameters(pair.instruct.folder, pair, self._device)
            self._thinking = _parameters(pair.thinking.folder, pair, self._device)
            # if one parent is tied, the untied one has the lm_head
            source = pair.instruct if pair.thinking.tied and not pair.tied else pair.thinking
            model, _ = _load(source.folder, dtype=resolve_dtype(dtype, pair, self._device), config=config)
            self._model: Any = model.to(self._device).eval()
        self._live: dict[str, torch.Tensor] = dict(self._model.named_parameters())
        self._draws = draws_in(self._live, pair)
        self._end_ids = end_ids_of(pair, tokenizer)
        self.in_words = f"transformers on {self._device}, {str(self._model.dtype).removeprefix('torch.')}"
        self.set_merge(Method.linear(Schedule.uniform(1.0)))

    def set_merge(self, method: Method) -> None:
        """Merges in place: the linear method from the parents in memory, others from the files.

        If weights are dithered in a layout unknown to layout.py, their draws are not known in memory; then the linear
        method reads the files too.
        """
        with self._computing():
            if method.name != "linear" or method.schedule is None or self._draws is None:
                self._merge_files(method)
                return
            lams = {name: self._pair.lam_of(_stored(name, self._pair), method.schedule) for name in self._live}
            for name, lam in lams.items():
                parents = self._instruct[name], self._thinking[name]
                interpolate(*parents, lam, out=self._live[name], draws=self._draws.get(name))

    def _merge_files(self, method: Method) -> None:
        """Makes the merge as a checkpoint in memory, loads it as a model, and copies its parameters."""
        merge = open_merge(self._pair, method)
        check_in_place(merge)
        tensors = dict(merge.tensors())
        with _without_bars():
            # the loader fuses tensors that are separate in the files, such as experts
            model: Any = type(self._model).from_pretrained(
                None, config=_config(self._pair), dtype=_widest(self._pair), state_dict=tensors
            )
        for name, parameter in model.named_parameters():
            self._live[name].copy_(parameter)

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
        """Hashes the live weights in the checkpoint's dtype. ``whole`` is false for a layout unknown to layout.py."""
        if tensors := tensors_in(self._live, self._pair.tensors):
            return Fingerprint(digest_of_tensors(tensors, self._pair.tensors), whole=True)
        stored = ((name, live.to(self._thinking[name].dtype)) for name, live in sorted(self._live.items()))
        return Fingerprint(digest_of_shares(stored), whole=False)

    def close(self) -> None:
        """Frees the weights."""
        self._instruct, self._thinking, self._live, self._draws, self._model = {}, {}, {}, None, None
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


def _parameters(folder: Path, pair: Pair, device: torch.device) -> dict[str, torch.Tensor]:
    """Returns a parent's parameters by name, in the dtypes of the files; a tied head has both names."""
    model, report = _load(folder, dtype=_widest(pair))
    if missing := sorted(report["missing_keys"]):
        raise EngineError(f"{folder}: {len(missing)} parameters are missing in its files, the first is '{missing[0]}'")
    parameters = model.to(device).named_parameters(remove_duplicate=False)
    dtypes = {name: info.dtype for name, info in pair.tensors.items()}
    return {name: parameter.detach().to(dtypes.get(name, pair.dtype)) for name, parameter in parameters}


def _stored(name: str, pair: Pair) -> str:
    """Returns a tensor of the checkpoint that a parameter holds: itself, or the first of its experts."""
    stem = name.rpartition(".")[0]
    held = [name] if name in pair.tensors else [stored for stored in pair.tensors if stored.startswith(stem)]
    if not held:
        raise EngineError(f"the checkpoints have no tensor for '{name}'")
    return held[0]


def _config(pair: Pair) -> PretrainedConfig:
    config: PretrainedConfig = AutoConfig.from_pretrained(
        pair.thinking.folder, tie_word_embeddings=pair.tied, trust_remote_code=False
    )
    return config


def _load(folder: Path, *, dtype: torch.dtype, config: PretrainedConfig | None = None) -> tuple[Any, dict[str, Any]]:
    """Loads a checkpoint folder as a model; returns transformers' report on missing keys too."""
    with _without_bars(), _model_errors(folder):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,  # if left out, transformers asks on the terminal
        )
    model, report = loaded
    return model, report


@contextmanager
def _without_bars() -> Iterator[None]:
    shown = logging_of_transformers.is_progress_bar_enabled()
    logging_of_transformers.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped upstream
    try:
        yield
    finally:
        if shown:
            logging_of_transformers.enable_progress_bar()  # type: ignore[no-untyped-call]


def resolve_device(name: str) -> torch.device:
    """Returns the device of ``engine.device``; auto prefers CUDA. Raises ``ConfigError`` if it cannot be used."""
    try:
        device = torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"engine.device: '{name}' cannot be used ({reason(error)}); use auto, cpu or cuda") from error
    return device


def _widest(pair: Pair) -> torch.dtype:
    """Returns the narrowest dtype that holds the values of every floating-point tensor."""
    dtypes = {info.dtype for info in pair.tensors.values() if info.dtype.is_floating_point}
    return reduce(torch.promote_types, dtypes)


def resolve_dtype(name: str, pair: Pair, device: torch.device) -> torch.dtype:
    """Returns the compute dtype of ``engine.dtype``: auto is float32 on a CPU, the checkpoints' dtype on a GPU.

    Raises ``ConfigError`` for a dtype that cannot hold the checkpoints' values.
    """
    widest = _widest(pair)
    if name == "auto":
        return torch.float32 if device.type == "cpu" else widest
    compute: torch.dtype = getattr(torch, name)
    if torch.promote_types(compute, widest) != compute:
        stored = str(widest).removeprefix("torch.")
        raise ConfigError(f"engine.dtype: {name} cannot hold the checkpoints' {stored} values; use auto or float32")
    return compute


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def _model_errors(folder: Path) -> Iterator[None]:
    """Turns any error of transformers over a config into a ``CheckpointError`` of one line."""
    try:
        yield
    except Exception as error:  # a wrong value can raise anything: types, keys, divisions, sizes
        if _is_out_of_memory(error):
            raise
        raise CheckpointError(
            f"'{folder}': transformers cannot make the model of its config.json ({one_line(error)}); correct the config"
        ) from error


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turns an out-of-memory error into an ``EngineError`` with advice."""
    try:
        yield
    except RuntimeError as error:
        if _is_out_of_memory(error):
            advice = "lower engine.batch_size or sampling.max_tokens, or use smaller parents"
            raise EngineError(f"out of memory: {str(error).splitlines()[0]}; {advice}") from error
        raise
