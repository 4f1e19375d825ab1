"""Finds a checkpoint's tensors in the parameters and buffers of one vLLM worker: renamed, fused, sharded, padded.

vLLM's model classes say how they rename tensors (``hf_to_vllm_mapper``), and its layers say which shard they hold. So
live weights can be compared with the files, which shows at once if a place found here is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from autolambda.engines.vllm.layout import LiveParameter, Part, quantises
from autolambda.errors import EngineError

FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
_EXPERT = re.compile(r"(.+\.experts\.)(\d+)\.(gate_proj|up_proj|down_proj|w1|w3|w2)\.weight")
_HALF = {"gate_proj": 0, "w1": 0, "up_proj": 1, "w3": 1}


def live_parameters(
    model: nn.Module, shapes: Mapping[str, Sequence[int]], *, rank: int, size: int
) -> dict[str, LiveParameter]:
    """Returns every parameter of a worker's model, and every buffer that a checkpoint holds, with the tensors in it.

    ``shapes`` are the shapes of the checkpoint tensors; ``rank`` and ``size`` are tensor-parallel. Tensors of another
    pipeline stage or expert-parallel rank are left out. Raises ``EngineError`` for a parameter that no tensor fills, or
    that tensors fill in part.
    """
    parameters = dict(model.named_parameters())
    live: dict[str, Tensor] = {**dict(model.named_buffers()), **parameters}
    fused = FUSED | dict(getattr(model, "packed_modules_mapping", {}))
    owners = {member: (whole, i) for whole, members in fused.items() for i, member in enumerate(members)}
    parts: dict[str, list[Part]] = {name: [] for name in live}
    for tensor, shape in shapes.items():
        renamed = _renamed(model, tensor)
        if renamed is None:
            continue
        for name, part in _parts_of(renamed, shape, model, live, owners, (rank, size)):
            exp = tensor.endswith("A_log") and not name.endswith("A_log")
            parts[name].append(replace(part, tensor=tensor, negative_exp=exp))
    for name in parameters:
        if not _filled(parts[name], _layer(model, name)):
            raise EngineError(
                f"vLLM's {type(model).__name__} holds '{name}', for which the checkpoints have no tensor"
                f"{' of all its rows' if parts[name] else ''}; use engine.name: transformers for this architecture"
            )
    found = {
        name: LiveParameter(_layer(model, name), name.rpartition(".")[2], tuple(each))
        for name, each in parts.items()
        if each
    }
    return found | _tied_head(model, found)


def _filled(parts: Sequence[Part], layer: Any) -> bool:
    """Whether tensors fill a parameter. A quantised layer has scales of its own. Embeddings have rows of padding."""
    if not parts:
        return quantises(layer)
    members: list[int] = getattr(layer, "output_partition_sizes", None) or []
    if len(members) < 2 or quantises(layer):
        return True
    spans = [part.index[0] for part in parts if part.index]
    num_rows: int = sum(span.stop - span.start for span in spans if isinstance(span, slice))
    return num_rows == sum(members)


def _renamed(model: nn.Module, tensor: str) -> str | None:
    """Returns a tensor's name after the renamings of the model and of its submodules, as vLLM's loader applies them.

    Returns ``None`` if one of them leaves the tensor out.
    """
    module, prefix, rest = model, "", tensor
    while True:
        mapper = getattr(module, "hf_to_vllm_mapper", None)
        if mapper is not None:
            if hasattr(mapper, "orig_to_new_stacked"):  # fused below
                mapper = replace(mapper, orig_to_new_stacked={})
            mapped: str | None = mapper._map_name(rest)
            if mapped is None:
                return None
            rest = mapped
        head, _, tail = rest.partition(".")
        child = module._modules.get(head)
        if child is None or not tail:
            return prefix + rest
        module, prefix, rest = child, f"{prefix}{head}.", tail


def _parts_of(
    tensor: str,
    shape: Sequence[int],
    model: nn.Module,
    live: Mapping[str, Tensor],
    owners: Mapping[str, tuple[str, int]],
    rank_and_size: tuple[int, int],
) -> Iterator[tuple[str, Part]]:
    """Yields the parameter that holds a checkpoint tensor or a shard of it, if this worker has one."""
    if match := _EXPERT.fullmatch(tensor):
        yield from _expert_part(tensor, shape, match, model, live)
        return
    prefix, _, suffix = tensor.rpartition(".")
    stem, _, last = prefix.rpartition(".")
    whole, i = owners.get(last, (last, 0))
    name = tensor if tensor in live else f"{stem}.{whole}.{suffix}"
    if name not in live:
        return
    if not shape:
        yield name, Part(tensor, (), ())
        return
    layer = _layer(model, name)
    rows = list(getattr(layer, "output_partition_sizes", None) or live[name].shape[:1])
    columns: tuple[tuple[slice, slice], ...] = ()
    if len(shape) == 2:
        num_columns = next(
            (size for key in ("input_size_per_partition", "input_size") if (size := getattr(layer, key, None))),
            live[name].shape[-1],
        )
        columns = ((slice(0, num_columns), _shard(shape[1], num_columns, *rank_and_size)),)
    starts = [0, *accumulate(rows)]
    if name != tensor:
        fused = [(i, 0, shape[0])]
    else:  # fused in the files too, or not at all
        full = _full_sizes(layer, rows, shape[0])
        fused = [(i, start, size) for i, (start, size) in enumerate(zip([0, *accumulate(full)], full, strict=False))]
    for i, offset, size in fused:
        taken = _shard(size, rows[i], *rank_and_size)
        held = slice(starts[i], starts[i] + taken.stop - taken.start)
        source = slice(offset + taken.start, offset + taken.stop)
        yield name, Part(tensor, (held, *(to for to, _ in columns)), (source, *(of for _, of in columns)))


def _full_sizes(layer: Any, rows: Sequence[int], total: int) -> list[int]:
    """Returns the rows of each member of a tensor that is fused in the files, on all ranks together."""
    if len(rows) == 1:
        return [total]
    heads = [
        getattr(layer, key, 0) * getattr(layer, "head_size", 0) for key in ("total_num_heads", "total_num_kv_heads")
    ]
    for sizes in ([heads[0], heads[1], heads[1]], list(getattr(layer, "output_sizes", rows)), list(rows)):
        if sum(sizes) == total and len(sizes) == len(rows):
            return sizes
    return list(rows)


def _expert_part(
    tensor: str, shape: Sequence[int], match: re.Match[str], model: nn.Module, live: Mapping[str, Tensor]
) -> Iterator[tuple[str, Part]]:
    """Yields rows of w13 (gate, then up) or all of w2, at the expert's slot."""
    stem, expert, kind = match[1], int(match[2]), match[3]
    stacked = "w13_weight" if kind in _HALF else "w2_weight"
    name = next((name for name in live if name.startswith(stem) and name.endswith(stacked)), None)
    if name is None:
        return
    layer = _layer(model, name)
    slot = layer._map_global_expert_id_to_local_expert_id(expert)
    if slot < 0:
        return
    _, rows, columns = live[name].shape
    rows //= 2 if kind in _HALF else 1
    ranks = max(shape[0] // rows, shape[1] // columns)  # 1 with expert parallelism
    rank = layer.moe_config.moe_parallel_config.tp_rank % ranks
    start = rows * _HALF.get(kind, 0)
    source = (_shard(shape[0], rows, rank, ranks), _shard(shape[1], columns, rank, ranks))
    yield name, Part(tensor, (slot, slice(start, start + rows), slice(0, columns)), source)


def _shard(full: int, part: int, rank: int, size: int) -> slice:
    """Returns the slice of ``full`` rows on a rank with ``part`` rows. Ranks may share rows; the last may be padded."""
    replicas = max(1, part * size // full)
    start = min(rank // replicas * part, full)
    return slice(start, min(start + part, full))


def _layer(model: nn.Module, name: str) -> Any:
    return model.get_submodule(name.rpartition(".")[0])


def _tied_head(model: nn.Module, parameters: Mapping[str, LiveParameter]) -> dict[str, LiveParameter]:
    """Returns a head that shares the embedding's parameter but computes from a packed copy, if there is one."""
    at, head = next(((name, each) for name, each in model.named_modules() if name.endswith("lm_head")), ("", None))
    embedding = next((live for name, live in parameters.items() if name.endswith("embed_tokens.weight")), None)
    if head is None or embedding is None or getattr(head, "weight", None) is not embedding.live:
        return {}
    parameter = LiveParameter(head, "weight", embedding.parts, tied=True)
    return {f"{at}.weight": parameter} if parameter.packed else {}
