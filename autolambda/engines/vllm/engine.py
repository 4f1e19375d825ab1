"""The vLLM engine: vLLM starts once, its workers load both parents once, and every merge is made inside the workers.

After every merge the prefix cache is reset, because vLLM keeps it when weights change. The live weights are compared
with merges computed from the files. Tokens are drawn with one seed per call, or with one per request (``seeds.py``).
"""

from __future__ import annotations

import gc
import itertools
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from transformers import PreTrainedTokenizerBase

from autolambda.engines.base import Fingerprint, Prompt, Sampling, Watch
from autolambda.engines.decoder import Decoder, end_ids_of
from autolambda.engines.device import vllm_device
from autolambda.engines.dtype import resolve_dtype
from autolambda.engines.uncomputed import check_unplaced, in_words
from autolambda.engines.vllm.arguments import (
    check_architecture,
    check_arguments,
    engine_arguments,
    import_vllm,
    memory_for_parents,
)
from autolambda.engines.vllm.failures import ProcessStderr, vllm_errors, with_advice
from autolambda.engines.vllm.internals import check_internals
from autolambda.engines.vllm.memory import Placement
from autolambda.engines.vllm.process import await_end, runs_in_process, wake_when_dead
from autolambda.engines.vllm.requests import Call, PromptIds, sampling_params
from autolambda.engines.vllm.seeds import Seeds, arguments_for, seed_of_call
from autolambda.errors import ConfigError, EngineError
from autolambda.merging.fingerprint import digest_of_hashes
from autolambda.merging.merge import check_in_place, open_merge
from autolambda.merging.method import Method
from autolambda.merging.pair import Pair
from autolambda.responses import Response
from autolambda.schedule import Schedule

_ENDS = {0.0, 1.0}
_MEMORY_IN_WORDS = {"gpu": "on the GPU", "host": "in host memory", "files": "in memory-mapped files"}
_DRAIN_SECONDS = 60.0


class VllmEngine:
    """Implements ``engines.base.Engine`` with vLLM, on one or several GPUs or a CPU."""

    streams = True
    _in_process: ClassVar[bool] = False  # vLLM's process groups are global, so a process can hold one engine

    def __init__(
        self,
        pair: Pair,
        *,
        tokenizer: PreTrainedTokenizerBase,
        context: int,
        dtype: str = "auto",
        merge: Literal["auto", "direct", "stream"] = "auto",
        parents: Literal["auto", "gpu", "host", "files"] = "auto",
        seeds: Seeds = "call",
        arguments: Mapping[str, Any] | None = None,
        sharing: int = 1,
    ) -> None:
        """Starts vLLM and loads the models.

        ``context`` is the number of tokens of the longest prompt plus its response. With ``seeds`` "request", a
        response depends on its own prompt and seed only. ``arguments`` are vLLM's engine arguments. ``sharing`` is the
        number of engines that share this host's memory. Raises ``ConfigError`` for what the user can correct in the
        config, ``EngineError`` if vLLM fails or memory is short.
        """
        arguments = arguments_for(seeds, vllm_device(), context=context, asked=arguments or {})
        check_arguments(arguments)
        check_internals()
        check_architecture(pair)
        if merge == "auto" and arguments.get("quantization"):
            merge = "stream"
        if merge == "stream" and parents in ("gpu", "host"):
            instead = "" if arguments.get("quantization") else "engine.merge to auto or direct, or "
            raise ConfigError(
                f"engine.parents: {parents} needs the direct merge, because a stream reads the files; "
                f"set {instead}engine.parents to auto or files"
            )
        self._pair = pair
        self._tokenizer, self._end_ids = tokenizer, end_ids_of(pair, tokenizer)
        self._prompt_ids = PromptIds(tokenizer)
        self._seeds = seeds
        self._calls = itertools.count()
        self._whole_ends: set[float] = set()
        self._whole_further: set[str] = set()
        self._llm: Any = None
        self._num_threads = torch.get_num_threads()
        self._set_num_threads = torch.set_num_threads
        compute = resolve_dtype(dtype, pair, vllm_device())
        placed: Placement | None = None  # a stream reads the files
        if merge != "stream":
            placed = memory_for_parents(
                pair, arguments, asked=parents, context=context, itemsize=compute.itemsize, sharing=sharing
            )
        dtype_name = str(compute).removeprefix("torch.")
        self._start(
            engine_arguments(
                pair, arguments, tokenizer=tokenizer.name_or_path, dtype=dtype_name, context=context, placed=placed
            )
        )
        try:
            merged = self._open_parents(pair, merge, placed or Placement("files"))
            self.set_merge(Method.linear(Schedule.uniform(1.0)))
        except BaseException:
            self.close()
            raise
        self.in_words = f"vLLM {import_vllm().__version__} on {vllm_device()}, {dtype_name}, {merged}"

    def set_merge(self, method: Method) -> None:
        """Merges in place on all ranks, compares the live weights with the files, and resets the prefix cache.

        Compares all values for non-linear methods, and at the first merge of each endpoint and of each further model,
        otherwise a sample of rows.
        Raises ``EngineError`` if live weights differ from the merge of the files.
        """
        check_in_place(open_merge(self._pair, method))
        lam = method.schedule.lam if method.name == "linear" and method.schedule else None
        is_new_end = lam in _ENDS - self._whole_ends
        whole = is_new_end or method.name != "linear" or not self._whole_further.issuperset(method.further)
        for rank, report in enumerate(self._ask("autolambda_merge", method.to_dict(), method.base, whole)):
            if differing := report["differing"]:
                raise EngineError(
                    f"after merging {method}, rank {rank} holds other weights than the files give: "
                    f"{len(differing)} tensors, the first is '{differing[0]}'; {_advice(method, differing[0])}"
                )
        if is_new_end and lam is not None:
            self._whole_ends.add(lam)
        self._whole_further.update(method.further)
        self._reset_prefix_cache()

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        """Returns one response per prompt. vLLM gets all prompts at once and refills its batch when responses end."""
        if not prompts:
            return []
        engine = self._engine()
        decoder = Decoder.of(self._tokenizer, sampling, end_ids=self._end_ids)
        call = Call(engine, decoder, next(self._calls), self._errors)
        if sampling.temperature and self._seeds == "call":
            with self._errors("seeding"):
                self._llm.collective_rpc("autolambda_seed", args=(seed_of_call(prompts),))
        own = [prompt.seed if self._seeds == "request" else None for prompt in prompts]
        call.add(self._prompt_ids.of(prompts), [sampling_params(sampling, decoder.end_ids, seed) for seed in own])
        call.run(watch)
        return call.responses()

    def fingerprint(self) -> Fingerprint:
        """Hashes the live weights in the checkpoint's dtype. ``whole`` is true on one rank if vLLM repacks nothing."""
        self._engine()
        with self._errors("reading the weights"):
            ranks = [Fingerprint(*fields) for fields in self._llm.collective_rpc("autolambda_digest")]
        if len(ranks) == 1:
            return ranks[0]
        return Fingerprint(digest_of_hashes({str(rank): one.digest for rank, one in enumerate(ranks)}), whole=False)

    def close(self) -> None:
        """Ends vLLM and its workers."""
        if self._llm is None:
            return
        llm, self._llm = self._llm, None
        self._closed.set()
        with suppress(Exception):  # the engine may have died already
            llm.llm_engine.engine_core.shutdown()
        await_end()
        del llm
        gc.collect()
        if VllmEngine._in_process:
            VllmEngine._in_process = False
            torch.set_num_threads = self._set_num_threads  # vLLM's CPU worker replaces it by a no-op
            torch.set_num_threads(self._num_threads)

    def _start(self, arguments: Mapping[str, Any]) -> None:
        vllm = import_vllm()
        if VllmEngine._in_process:
            raise EngineError("a vLLM engine is open in this process already, and only one can be; close it first")
        VllmEngine._in_process = runs_in_process()
        stderr = ProcessStderr()
        self._errors = partial(vllm_errors, stderr=stderr)
        try:
            with self._errors("starting"), stderr.taken(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._llm = vllm.LLM(**arguments)
            self._closed = wake_when_dead(self._llm.llm_engine.engine_core)
        except BaseException:
            VllmEngine._in_process = False
            raise

    def _open_parents(self, pair: Pair, merge: str, placed: Placement) -> str:
        """Loads the models in every worker. Describes how they are merged and what cannot be compared."""
        models = {"instruct": pair.instruct, "thinking": pair.thinking, **pair.further}
        folders = {role: str(model.folder) for role, model in models.items()}
        holds_further = placed.num_models == len(models)
        settings = asdict(pair.rounding), pair.vision, merge, placed.memory, holds_further
        reports = self._ask("autolambda_open", folders, *settings)
        unplaced = set.intersection(*(set(report["missing"]) for report in reports))
        computed = (
            unplaced - pair.outside if pair.outside <= unplaced else unplaced
        )  # vLLM may leave the vision part out
        check_unplaced([*computed], num_layers=pair.num_layers, model=f"vLLM's {reports[0]['model']}")
        path, num_quantised = reports[0]["path"], reports[0]["num_quantised"]
        where = _MEMORY_IN_WORDS[placed.memory] if path == "direct" else "in their files"
        if pair.further and path == "direct":
            where += f", {' and '.join(pair.further)} {'too' if holds_further else 'in the files'}"
        unseen = f"; {num_quantised} tensors are quantised and cannot be compared with the files"
        return f"merged by {path}, parents {where}{unseen if num_quantised else ''}{in_words([*unplaced])}"

    def _ask(self, method: str, *args: object) -> list[dict[str, Any]]:
        """Calls a method on all ranks and returns their reports. Raises ``EngineError`` if one reports an error."""
        self._engine()
        with self._errors("merging"):
            reports: list[dict[str, Any]] = self._llm.collective_rpc(method, args=args)
        if errors := [report["error"] for report in reports if "error" in report]:
            raise EngineError(with_advice(errors[0]))
        return reports

    def _engine(self) -> Any:
        if self._llm is None:
            raise EngineError("the vLLM engine is closed")
        return self._llm.llm_engine

    def _reset_prefix_cache(self) -> None:
        """Empties the prefix cache; waits until aborted responses have freed their blocks."""
        engine, deadline = self._engine(), time.monotonic() + _DRAIN_SECONDS
        with self._errors("resetting the prefix cache"):
            while not engine.reset_prefix_cache(reset_connector=True):  # and what kv_offloading_size keeps
                if time.monotonic() > deadline:
                    raise EngineError("vLLM did not reset its prefix cache, whose entries belong to other weights")
                time.sleep(0.01)


def _advice(method: Method, tensor: str) -> str:
    """Returns what to change if the live values of a tensor differ from the merge."""
    if method.name != "linear":
        return "leave this baseline out"
    # FlashInfer's kernels (the default except on Hopper) take w13 in another order than the checkpoint's
    another = "engine.moe_backend to triton" if ".experts." in tensor else "engine.merge to stream"
    return f"set {another}, or engine.name to transformers"
