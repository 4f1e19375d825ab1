"""Finds every reason why two checkpoints do not fit together: errors that forbid a merge, and warnings.

It compares the config keys that change what a model computes, the tensors, and the tokenizers by content. For example,
parents with different rope_theta would silently give a merge that fails near one of them. Rope settings are read with
the key names of transformers 4 and 5. Every other difference of the configs is a warning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from autolambda.merging.arithmetic import MERGEABLE
from autolambda.merging.checkpoint import BOOKKEEPING, Checkpoint
from autolambda.merging.modules import is_uncomputed
from autolambda.merging.shards import TensorInfo

_EXACT = (
    "model_type", "architectures", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "rms_norm_eps", "layer_norm_eps", "attention_bias", "mlp_bias", "query_pre_attn_scalar",
    "attn_logit_softcapping", "final_logit_softcapping", "num_experts_per_tok", "norm_topk_prob",
    "moe_intermediate_size", "decoder_sparse_step", "mlp_only_layers", "embedding_multiplier", "residual_multiplier",
    "attention_multiplier", "logits_scaling",
)  # fmt: skip
_ROPE = ("rope_theta", "rope_parameters", "rope_scaling", "partial_rotary_factor")
_DERIVED = (
    "num_key_value_heads", "head_dim", "hidden_act", "hidden_activation", "num_experts", "num_local_experts",
    "sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "tie_word_embeddings",
)  # fmt: skip
_ONE_END = ("rms_norm_eps", "layer_norm_eps", "sliding_window", "max_window_layers", "layer_types")
_ABSENT = "not given"
_NUM_SHOWN = 5


@dataclass(frozen=True)
class Mismatch:
    """One difference. A ``fatal`` one forbids the merge.

    ``one_end`` marks a setting that does not affect the arithmetic on weights. A merge with the Thinking parent's
    setting is well defined, but at lambda 0 it no longer behaves like the first model.
    """

    text: str
    fatal: bool = True
    one_end: bool = False


def compare_configs(first: Checkpoint, *, thinking: Checkpoint, first_name: str = "instruct") -> Iterator[Mismatch]:
    """Yields the differences of two configs; of nested ones, of their language models.

    A key that one config leaves out has transformers' default.
    """
    configs = first.text_config, thinking.text_config
    differing = _differing(*map(_settings, configs))
    if any(_ABSENT in values for values in differing.values()):
        filled = [_with_defaults(each) for each in (first, thinking)]
        differing = _differing(*map(_settings, filled))
    for key, (one, other) in differing.items():
        one_end = key.startswith("rope settings") or key in _ONE_END
        yield Mismatch(f"config '{key}': {first_name} {one!r}, thinking {other!r}", one_end=one_end)
    for name, parent in ((first_name, first), ("thinking", thinking)):
        if "auto_map" in parent.config:
            yield Mismatch(f"{name} brings its own code (auto_map), which is never run", fatal=False)
    compared = {*_EXACT, *_ROPE, *_DERIVED, *BOOKKEEPING, "vocab_size"}
    pairs = [configs] if configs[0] is first.config else [(first.config, thinking.config), configs]
    for one_config, other_config in pairs:
        for key in sorted((one_config.keys() & other_config.keys()) - compared):
            one, other = one_config[key], other_config[key]
            if one != other and one is not configs[0]:
                yield Mismatch(f"config '{key}': {first_name} {one!r:.200}, thinking {other!r:.200}", fatal=False)


def _differing(one: Mapping[str, object], other: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """Returns the settings that differ by key. Keys that older files lack do not count there."""
    pairs = {key: (one.get(key, _ABSENT), other.get(key, _ABSENT)) for key in sorted(one.keys() | other.keys())}
    optional = ("layer_types", "architectures")  # transformers 4 does not write layer_types
    return {
        key: values
        for key, values in pairs.items()
        if values[0] != values[1] and not (key in optional and _ABSENT in values)
    }


def _with_defaults(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Returns the language model's config with transformers' defaults, or as it is if transformers refuses it."""
    from transformers import CONFIG_MAPPING

    try:
        config = CONFIG_MAPPING[checkpoint.config["model_type"]].from_dict(dict(checkpoint.config))
        filled: Mapping[str, Any] = config.get_text_config(decoder=True).to_dict()
    except Exception:  # an unknown or wrong config can raise anything; its keys are compared as they are
        return checkpoint.text_config
    return filled


def _settings(config: Mapping[str, Any]) -> dict[str, object]:
    """Returns the keys that change what the model computes, with defaults filled in and without empty values."""
    settings = {key: config.get(key) for key in _EXACT}
    settings["num_key_value_heads"] = config.get("num_key_value_heads") or config.get("num_attention_heads")
    settings["head_dim"] = config.get("head_dim")
    match config:
        case {"hidden_size": int(hidden), "num_attention_heads": int(heads)} if heads > 0:
            settings["head_dim"] = settings["head_dim"] or hidden // heads
    settings["hidden_act"] = config.get("hidden_activation") or config.get("hidden_act")
    settings["num_experts"] = config.get("num_experts") or config.get("num_local_experts")  # transformers 4 and 5
    if config.get("use_sliding_window") is not False and config.get("sliding_window"):
        settings |= {key: config.get(key) for key in ("sliding_window", "max_window_layers", "layer_types")}
    for key, value in _rope(config).items():
        settings[f"rope settings: {key}"] = value
    return {key: value for key, value in settings.items() if value}


def _rope(config: Mapping[str, Any]) -> dict[str, object]:
    """Returns rope settings in one form: transformers 5 has rope_parameters, 4 has rope_theta and rope_scaling."""
    given = config.get("rope_parameters") or config.get("rope_scaling")
    rope = dict(given) if isinstance(given, dict) else {}
    rope.setdefault("rope_theta", config.get("rope_theta"))
    rope["rope_type"] = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    rope.pop("type", None)
    factor = rope.setdefault("partial_rotary_factor", config.get("partial_rotary_factor"))
    if factor == 1:
        rope["partial_rotary_factor"] = None
    return rope


def compare_tensors(
    first: Mapping[str, TensorInfo],
    *,
    thinking: Mapping[str, TensorInfo],
    padded: frozenset[str] = frozenset(),
    first_name: str = "instruct",
) -> Iterator[Mismatch]:
    """Yields the differences of the tensors by name, and the dtypes that cannot be merged.

    Another dtype is a warning, because the merge converts to Thinking's. The names in ``padded`` may differ in their
    number of rows. ``first_name`` is the first model's role in the messages.
    """
    lacking, extra = sorted(first.keys() - thinking.keys()), sorted(thinking.keys() - first.keys())
    if renamed := _renamed({name: first[name] for name in lacking}, {name: thinking[name] for name in extra}):
        yield renamed
    else:
        yield from few(lacking, "tensors that thinking does not have")
        yield from few(extra, f"tensors that {first_name} does not have")
    shapes, dtypes, quantised = [], [], []
    for name in sorted(first.keys() | thinking.keys()):
        info = first.get(name) or thinking[name]
        other = thinking.get(name, info)
        start = 1 if name in padded else 0
        found = f"{first_name} {info}, thinking {other}"
        if any(each.dtype.is_floating_point and each.dtype not in MERGEABLE for each in (info, other)):
            quantised.append(f"{name}: {info if info.dtype == other.dtype else found}")
        elif info.shape[start:] != other.shape[start:] or not _convertible(info, other):
            shapes.append(f"{name}: {found}")
        elif info.dtype != other.dtype:
            dtypes.append((info.dtype, other.dtype))
    yield from few(shapes, "tensors that differ in shape or kind")
    yield from few(quantised, "tensors that are not bfloat16, float16 or float32")
    for one, target in dict.fromkeys(dtypes):
        number = dtypes.count((one, target))
        names = [str(dtype).removeprefix("torch.") for dtype in (one, target)]
        text = f"{number} tensors are {names[0]} in {first_name} and {names[1]} in thinking; the merge is {names[1]}"
        yield Mismatch(text, fatal=False)


def _renamed(lacking: Mapping[str, TensorInfo], extra: Mapping[str, TensorInfo]) -> Mismatch | None:
    """Returns one error if the tensors that one side lacks are the other's under other names, as by transformers 4."""
    kinds = [Counter((*name.split(".")[-2:], info.shape) for name, info in infos.items()) for infos in (lacking, extra)]
    if not lacking or kinds[0] != kinds[1]:
        return None
    some, others = next(iter(lacking)), next(iter(extra))
    return Mismatch(
        f"the names of {len(lacking)} tensors, such as '{some}' and '{others}'; load both models with transformers and "
        "save them again, so that their names agree"
    )


def without_lone_drafts(one: Checkpoint, other: Checkpoint, *, role: str) -> tuple[Checkpoint, list[Mismatch]]:
    """Returns a checkpoint without the tensors that no drawn token depends on, if the other lacks them; and says so.

    Fine-tunes saved by transformers lack multi-token prediction, and new files lack stored positions.
    """
    lone = sorted(one.tensors.keys() - other.tensors.keys())
    if not (lone := [name for name in lone if is_uncomputed(name, num_layers=one.num_layers)]):
        return one, []
    text = f"{len(lone)} tensors on which no token depends, such as '{lone[0]}', are in {role} only; the merge has none"
    kept = {name: info for name, info in one.tensors.items() if name not in lone}
    return replace(one, tensors=kept), [Mismatch(text, fatal=False)]


def _convertible(one: TensorInfo, other: TensorInfo) -> bool:
    return one.dtype == other.dtype or (one.dtype in MERGEABLE and other.dtype in MERGEABLE)


def few(lines: Iterable[str], kind: str) -> Iterator[Mismatch]:
    """Yields an error for each of the first lines, and one that counts the others."""
    lines = list(lines)
    for line in lines[:_NUM_SHOWN]:
        yield Mismatch(f"{kind}: {line}")
    if len(lines) > _NUM_SHOWN:
        yield Mismatch(f"{kind}: and {len(lines) - _NUM_SHOWN} more")
