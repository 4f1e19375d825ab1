"""The methods that the vLLM engine calls on its workers; vLLM mixes them into its worker (``worker_extension_cls``).

Every method is called on all ranks through ``collective_rpc``, and takes and returns plain values. Errors are returned,
not raised: an exception would end the engine without telling the caller the reason.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from autolambda.engines.vllm.failures import log_errors
from autolambda.engines.vllm.parents import LiveParents, MergePath
from autolambda.engines.vllm.places import live_parameters
from autolambda.engines.vllm.process import end_with_driver, runs_apart
from autolambda.engines.vllm.snapshot import ParentMemory
from autolambda.merging.merge import open_merge
from autolambda.merging.method import Method, Role
from autolambda.merging.pair import open_pair
from autolambda.merging.rounding import Rounding


class MergingWorker:
    """Holds both parents on one rank. The prefix ``autolambda`` keeps names apart from those of vLLM's worker."""

    model_runner: Any
    vllm_config: Any

    def autolambda_open(
        self,
        folders: Mapping[str, str],
        rounding: Mapping[str, Any],
        vision: Role,
        path: str,
        memory: str,
        holds_further: bool,
    ) -> dict[str, Any]:
        """Loads the models in ``folders`` by role.

        ``path`` "auto" becomes "direct" if no parameter is packed or quantised, else "stream". ``rounding`` holds the
        fields of ``Rounding``, and ``vision`` is the parent whose vision part is kept. With ``holds_further``,
        ``memory`` holds the base model and the third parent too. Returns ``path``, ``model`` (its class), ``missing``
        (checkpoint tensors that are not on this rank) and ``num_quantised`` (a number of tensors), or ``error``.
        """
        from vllm.distributed import get_tp_group

        try:
            pair = open_pair(**folders, across_configs=True, rounding=Rounding(**rounding), vision=vision)
            model = self.model_runner.get_model()
            group = get_tp_group()
            shapes = {name: info.shape for name, info in pair.tensors.items()}
            parameters = live_parameters(model, shapes, rank=group.rank_in_group, size=group.world_size)
            changed = [name for name, parameter in parameters.items() if not parameter.plain]
            if path == "direct" and changed:
                return {"error": f"'{changed[0]}' is repacked or quantised; set engine.merge to stream"}
            chosen: MergePath = "stream" if path == "stream" or (path == "auto" and changed) else "direct"
            kind: ParentMemory = memory  # type: ignore[assignment]  # from the config, where it is a Literal
            with _all_cores():
                self._autolambda = LiveParents(
                    pair,
                    parameters,
                    load=self._autolambda_load,
                    path=chosen,
                    memory=kind,
                    holds_further=holds_further,
                )
        except Exception as error:  # raised here, it would end the engine's process
            return {"error": f"{type(error).__name__}: {error}"}
        live = self._autolambda
        missing, num_quantised = live.missing(), live.num_quantised()
        return {"path": chosen, "model": type(model).__name__, "missing": missing, "num_quantised": num_quantised}

    def autolambda_merge(self, method: Mapping[str, object], base: str | None, whole: bool) -> dict[str, Any]:
        """Merges in place and compares all live weights (``whole``), or a sample of them, with the files.

        Returns ``seconds`` of the merge and the names of the ``differing`` tensors, or ``error``.
        """
        try:
            merge = open_merge(self._autolambda.pair, Method.from_dict(method, base=base))
            start = time.perf_counter()
            with _all_cores():
                self._autolambda.merge(merge)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
            with _all_cores():
                return {"seconds": seconds, "differing": self._autolambda.compare(merge, whole=whole)}
        except Exception as error:  # raised here, it would end the engine's process
            return {"error": f"{type(error).__name__}: {error}"}

    def autolambda_digest(self) -> tuple[str, bool]:
        """Returns the digest and ``whole`` of the fingerprint of this rank's live weights."""
        found = self._autolambda.fingerprint()
        return found.digest, found.whole

    def autolambda_seed(self, seed: int) -> None:
        """Seeds the generator that draws the tokens of requests without a seed."""
        from vllm.utils.torch_utils import set_random_seed

        set_random_seed(seed)

    def _autolambda_load(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        """Loads tensors in checkpoint form through vLLM's own loader."""
        from vllm.config import set_current_vllm_config

        with set_current_vllm_config(self.vllm_config):
            self.model_runner.reload_weights(weights_iterator=weights)


@contextmanager
def _all_cores() -> Iterator[None]:
    """Computes on all cores of this process: from 0.28 on, vLLM leaves a GPU's worker one thread after its start."""
    if not torch.cuda.is_available():  # vLLM's CPU worker binds its threads itself
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(max(before, len(os.sched_getaffinity(0)) // torch.cuda.device_count()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


if runs_apart():  # here, because vLLM imports this module in each worker before it loads the model
    end_with_driver()
    log_errors()
