"""What the vLLM engine asks of each of its workers: a class mixed into vLLM's own (``worker_extension_cls``).

Every method is called on all ranks through ``collective_rpc`` and takes and returns plain values. It says what it found
wrong instead of raising: an exception would end the engine without a reason in the calling process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from autolambda.engines.vllm.layout import lay_out
from autolambda.engines.vllm.parents import Home, LiveParents, MergePath
from autolambda.merging.merge import open_merge
from autolambda.merging.method import Method
from autolambda.merging.pair import open_pair


class MergingWorker:
    """Holds the parents of one rank. The names are long because they share a namespace with vLLM's worker."""

    model_runner: Any
    vllm_config: Any

    def autolambda_open(self, instruct: str, thinking: str, path: str, home: str) -> dict[str, Any]:
        """Makes both parents resident. ``path`` auto takes direct where every parameter is plain.

        Returns ``path``, ``unplaced`` (checkpoint tensors that are not on this rank), ``num_quantised`` ones,
        ``seconds``, or ``error``.
        """
        from vllm.distributed import get_tp_group

        start = time.perf_counter()
        try:
            pair = open_pair(instruct, thinking)
            model = self.model_runner.get_model()
            group = get_tp_group()
            shapes = {name: info.shape for name, info in pair.tensors.items()}
            places = lay_out(model, shapes, rank=group.rank_in_group, size=group.world_size)
            bent = [name for name, place in places.items() if not place.plain]
            if path == "direct" and bent:
                return {"error": f"'{bent[0]}' is repacked or quantised; set engine.merge to stream"}
            chosen: MergePath = "stream" if path == "stream" or (path == "auto" and bent) else "direct"
            where: Home = home  # type: ignore[assignment]  # from the config, where it is a Literal
            self._autolambda = LiveParents(pair, places, load=self._autolambda_load, path=chosen, home=where)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        seconds = time.perf_counter() - start
        live = self._autolambda
        return {
            "path": chosen, "unplaced": live.unplaced(), "num_quantised": live.num_quantised(), "seconds": seconds
        }  # fmt: skip

    def autolambda_merge(self, method: Mapping[str, object], base: str | None, whole: bool) -> dict[str, Any]:
        """Merges in place and compares all live weights (``whole``), or a sample of them, with the files.

        Returns ``seconds`` of the merge and the names of the ``differing`` tensors, or ``error``.
        """
        try:
            merge = open_merge(self._autolambda.pair, Method.from_dict(method, base=base))
            start = time.perf_counter()
            self._autolambda.merge(merge)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
            return {"seconds": seconds, "differing": self._autolambda.compare(merge, whole=whole)}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def autolambda_digest(self) -> tuple[str, bool]:
        """The fingerprint of this rank's live weights: its digest, and whether they are whole."""
        found = self._autolambda.fingerprint()
        return found.digest, found.whole

    def autolambda_seed(self, seed: int) -> None:
        """Seeds what draws the tokens of requests without a seed of their own."""
        from vllm.utils.torch_utils import set_random_seed

        set_random_seed(seed)

    def _autolambda_load(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        """Loads tensors in checkpoint form through vLLM's own loader."""
        from vllm.config import set_current_vllm_config

        with set_current_vllm_config(self.vllm_config):
            self.model_runner.reload_weights(weights_iterator=weights)
