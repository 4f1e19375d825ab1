"""How fast a merge in place is, against this machine's own memory copy measured in the same run.

Merges, dithered and rounded to nearest, and copies alternate; medians are compared. Bytes of a bfloat16 parameter: 6
for a merge (read 2 + 2, write 2), 8 with a scale (and 2 of the base), 4 for a copy. With the parents in host memory the
link counts instead: 4 or 6 bytes for a merge, 2 for each model's copy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autolambda.coefficients import Coefficients
from autolambda.merging.arithmetic import combine
from autolambda.merging.kernels.formula import roles_of
from autolambda.merging.method import ROUNDINGS, RoundingName
from autolambda.merging.pair import open_pair
from autolambda.merging.reading import read_tensor
from autolambda.merging.rounding import Draws, Rounding

LAM = 0.55


@dataclass(frozen=True)
class Shape:
    """A model's dimensions; ``num_experts`` 0 is a dense one. Experts are stacked, as engines hold them."""

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    tied: bool
    num_experts: int = 0
    head_dim: int = 128
    vocab: int = 151_936

    def tensors(self) -> list[tuple[int, ...]]:
        """The shapes of all tensors."""
        attention = [
            (self.heads * self.head_dim, self.hidden), (self.kv_heads * self.head_dim, self.hidden),
            (self.kv_heads * self.head_dim, self.hidden), (self.hidden, self.heads * self.head_dim),
            (self.head_dim,), (self.head_dim,), (self.hidden,), (self.hidden,),
        ]  # fmt: skip
        if self.num_experts:
            ffn = [(self.num_experts, self.hidden), (self.num_experts, 2 * self.ffn, self.hidden),
                   (self.num_experts, self.hidden, self.ffn)]  # fmt: skip
        else:
            ffn = [(self.ffn, self.hidden), (self.ffn, self.hidden), (self.hidden, self.ffn)]
        outside = [(self.vocab, self.hidden)] * (1 if self.tied else 2) + [(self.hidden,)]
        return (attention + ffn) * self.layers + outside


SIZES = {
    "0.6b": Shape(hidden=1024, ffn=3072, layers=28, heads=16, kv_heads=8, tied=True),
    "4b": Shape(hidden=2560, ffn=9728, layers=36, heads=32, kv_heads=8, tied=True),
    "30b-a3b": Shape(hidden=2048, ffn=768, layers=48, heads=32, kv_heads=4, tied=False, num_experts=128),
}


@dataclass(frozen=True)
class Weights:
    """The models by role and the live weights, tensor by tensor, and the coefficients of their merge."""

    models: dict[str, list[Tensor]]
    live: list[Tensor]
    at: Coefficients

    @property
    def num_parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.live)

    def draws(self, rounding: RoundingName) -> list[Draws | None]:
        """The draws of every tensor, where its live weights lie, as an engine keeps them."""
        kinds = [
            Rounding(rounding).draws(str(i), one.shape, one.dtype) for i, one in enumerate(self.models["instruct"])
        ]
        return [draws and draws.to(live.device) for draws, live in zip(kinds, self.live, strict=True)]

    def merge(self, draws: Sequence[Draws | None]) -> None:
        for tensors, live, drawn in zip(zip(*self.models.values(), strict=True), self.live, draws, strict=True):
            combine(dict(zip(self.models, tensors, strict=True)), self.at, out=live, draws=drawn)

    def copy(self) -> None:
        for instruct, live in zip(self.models["instruct"], self.live, strict=True):
            live.copy_(instruct, non_blocking=live.is_cuda)


def random_tensor(shape: tuple[int, ...], *, device: str, pinned: bool, seed: int) -> Tensor:
    """Bfloat16 values of a weight's size: a random block, repeated, so that filling is quick."""
    generator = torch.Generator(device).manual_seed(seed)
    tensor = torch.empty(shape, dtype=torch.bfloat16, device=device, pin_memory=pinned)
    block = (torch.randn(1 << 20, generator=generator, device=device) * 0.02).bfloat16()
    for part in torch.split(tensor.view(-1), len(block)):
        part.copy_(block[: len(part)])
    return tensor


def synthetic(shape: Shape, at: Coefficients, *, device: str, parents: str) -> Weights:
    place, pinned = ("cpu", True) if parents == "host" else (device, False)
    models = {
        role: [random_tensor(s, device=place, pinned=pinned, seed=seed) for s in shape.tensors()]
        for seed, role in enumerate(roles_of(at))
    }
    live = [torch.zeros(s, dtype=torch.bfloat16, device=device) for s in shape.tensors()]
    return Weights(models, live, at)


def seconds(function: Callable[[], None], *, device: str) -> float:
    """Of the clock; of one CPU thread its own time, so that other processes matter less."""
    clock = time.thread_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def bench_bandwidth(
    size: str, at: Coefficients, *, device: str, parents: str, repeats: int, roundings: Sequence[RoundingName]
) -> list[dict[str, object]]:
    weights = synthetic(SIZES[size], at, device=device, parents=parents)
    draws = {rounding: weights.draws(rounding) for rounding in roundings}
    merges: dict[RoundingName, list[float]] = {rounding: [] for rounding in roundings}
    copies = []
    for repeat in range(repeats + 1):
        copy = seconds(weights.copy, device=device)
        for rounding in roundings:
            merge = seconds(lambda: weights.merge(draws[rounding]), device=device)  # noqa: B023
            if repeat:  # the first touches the memory and warms up
                merges[rounding].append(merge)
        if repeat:
            copies.append(copy)
    read = 2 * len(weights.models)
    merge_bytes, copy_bytes = (read, 2) if parents == "host" else (read + 2, 4)
    copy_rate = copy_bytes * weights.num_parameters / statistics.median(copies) / 1e9
    rates = {name: merge_bytes * weights.num_parameters / statistics.median(merges[name]) / 1e9 for name in roundings}
    return [
        {
            "size": size, "parents": parents, "rounding": name, "scale": at.scale,
            "num_parameters": weights.num_parameters,
            "merge_seconds": round(statistics.median(merges[name]), 5), "merge_gb_per_s": round(rates[name], 2),
            "copy_gb_per_s": round(copy_rate, 2), "ratio": round(rates[name] / copy_rate, 3),
            "merge_seconds_all": [round(value, 5) for value in merges[name]],
        }
        for name in roundings
    ]  # fmt: skip


def bench_pair(
    instruct: str, thinking: str, *, device: str, repeats: int, roundings: Sequence[RoundingName]
) -> list[dict[str, object]]:
    """Merges into float32 live weights; the parents lie in memory in their own dtype."""
    pair = open_pair(instruct, thinking)
    one, other = (
        [read_tensor(model, name).clone().to(device) for name in pair.tensors]
        for model in (pair.instruct, pair.thinking)
    )
    live = [torch.zeros(tensor.shape, device=device) for tensor in one]
    weights = Weights({"instruct": one, "thinking": other}, live, Coefficients(LAM))
    results: list[dict[str, object]] = []
    for rounding in roundings:
        draws = weights.draws(rounding)
        times = [seconds(lambda: weights.merge(draws), device=device) for _ in range(repeats + 3)][3:]  # noqa: B023
        results.append({
            "rounding": rounding, "num_parameters": weights.num_parameters, "num_tensors": len(one),
            "merge_seconds": round(statistics.median(times), 6),
        })  # fmt: skip
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="0.6b")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--parents", choices=("gpu", "host"), default="gpu", help="with cuda: where the parents lie")
    parser.add_argument("--threads", type=int, default=None, help="torch threads; default all")
    parser.add_argument("--rounding", choices=(*ROUNDINGS, "both"), default="both")
    parser.add_argument("--scale", type=float, default=1.0, help="other than 1: around a base model, too")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--pair", nargs=2, metavar=("INSTRUCT", "THINKING"), help="time this pair's merge instead")
    arguments = parser.parse_args()
    device, repeats = arguments.device, arguments.repeats
    roundings: Sequence[RoundingName] = ROUNDINGS if arguments.rounding == "both" else (arguments.rounding,)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.parents == "host" and device != "cuda":
        parser.error("--parents host needs --device cuda")
    name = torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    if arguments.pair:
        results = bench_pair(*arguments.pair, device=device, repeats=repeats, roundings=roundings)
    else:
        parents = arguments.parents if device == "cuda" else "cpu"
        results = bench_bandwidth(
            arguments.size,
            Coefficients(LAM, arguments.scale),
            device=device,
            parents=parents,
            repeats=repeats,
            roundings=roundings,
        )
    for result in results:
        print(json.dumps({"device": name, "torch": torch.__version__, **result}))
    for result in results:
        line = f"{name}: {result['rounding']}, {result['num_parameters']:,} parameters in {result['merge_seconds']} s"
        if not arguments.pair:
            line += f", {result['merge_gb_per_s']} GB/s; copy {result['copy_gb_per_s']} GB/s, ratio {result['ratio']}"
        print(line)


if __name__ == "__main__":
    main()
