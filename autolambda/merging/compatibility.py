"""Finds every reason why two checkpoints do not fit together: errors that forbid a merge, and warnings.

It compares the config keys that change what a model computes, the tensors, and the tokenizers by content. For example,
parents with different rope_theta would silently give a merge that fails near one of them. Rope settings are read with
the key names of transformers 4 and 5. Every other difference of the configs is a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolambda.errors import CheckpointError, ScheduleError
from autolambda.merging.arithmetic import MERGEABLE
from autolambda.merging.checkpoint import BOOKKEEPING, Checkpoint, find_file, read_json
from autolambda.merging.shards import TensorInfo
from autolambda.merging.tokenizer import template_in, tokenizer_config
from autolambda.schedule import Schedule

_EXACT = (
    "model_type", "architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
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
_SPARE = re.compile(r"reserved|unused|placeholder")
_Token = Mapping[str, Any]
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


def compare_configs(instruct: Checkpoint, *, thinking: Checkpoint) -> Iterator[Mismatch]:
    """Yields the differences of the two configs."""
    configs = instruct.config, thinking.config
    settings, others = (_settings(config) for config in configs)
    for key in sorted(settings.keys() | others.keys()):
        one, other = settings.get(key, _ABSENT), others.get(key, _ABSENT)
        if one != other and not (key == "layer_types" and _ABSENT in (one, other)):  # transformers 4 does not write it
            one_end = key.startswith("rope settings") or key in _ONE_END
            yield Mismatch(f"config '{key}': instruct {one!r}, thinking {other!r}", one_end=one_end)
    for name, config in zip(("instruct", "thinking"), configs, strict=True):
        if config.get("quantization_config"):
            yield Mismatch(f"{name} is quantised (quantization_config); use the checkpoint from which it was made")
        if "auto_map" in config:
            yield Mismatch(f"{name} brings its own code (auto_map), which is never run", fatal=False)
    compared = {*_EXACT, *_ROPE, *_DERIVED, *BOOKKEEPING, "quantization_config"}
    for key in sorted((configs[0].keys() & configs[1].keys()) - compared):
        if configs[0][key] != configs[1][key]:
            yield Mismatch(f"config '{key}': instruct {configs[0][key]!r}, thinking {configs[1][key]!r}", fatal=False)


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
    num_layers: int,
    first_name: str = "instruct",
) -> Iterator[Mismatch]:
    """Yields the differences of the tensors by name, and the names and dtypes that cannot be merged.

    ``first_name`` is the first model's name in the messages: ``instruct`` or ``base``.
    """
    yield from _few(sorted(first.keys() - thinking.keys()), "tensors that thinking does not have")
    yield from _few(sorted(thinking.keys() - first.keys()), f"tensors that {first_name} does not have")
    differing, quantised, unknown = [], [], []
    for name in sorted(first.keys() | thinking.keys()):
        info = first.get(name) or thinking[name]
        other = thinking.get(name, info)
        if (info.dtype, info.shape) != (other.dtype, other.shape):
            differing.append(f"{name}: {first_name} {info}, thinking {other}")
        if info.dtype.is_floating_point and info.dtype not in MERGEABLE:
            quantised.append(f"{name}: {info}")
        try:
            Schedule.uniform(0.5).lam_of(name, num_layers=num_layers)
        except ScheduleError as error:
            unknown.append(str(error))
    yield from _few(differing, "tensors that differ in shape or dtype")
    yield from _few(quantised, "tensors that are not bfloat16, float16 or float32")
    yield from _few(unknown, "parameters that no schedule covers")


def _few(lines: list[str], kind: str) -> Iterator[Mismatch]:
    for line in lines[:_NUM_SHOWN]:
        yield Mismatch(f"{kind}: {line}")
    if len(lines) > _NUM_SHOWN:
        yield Mismatch(f"{kind}: and {len(lines) - _NUM_SHOWN} more")


def compare_tokenizers(first: Checkpoint, *, thinking: Checkpoint, first_name: str = "instruct") -> Iterator[Mismatch]:
    """Yields the differences of the vocabularies. Different special tokens or chat templates are warnings."""
    folders = first.folder, thinking.folder
    missing = [str(folder) for folder in folders if find_file(folder, "tokenizer.json") is None]
    if missing:
        yield Mismatch(f"no tokenizer.json in {' and '.join(missing)}: vocabularies were not compared", fatal=False)
    else:
        one, other = (read_json(folder, "tokenizer.json") for folder in folders)
        try:
            yield from _compare_vocabularies(_model(one), other=_model(other))
            yield from _compare_added(_added(one), other=_added(other), first_name=first_name)
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise CheckpointError(
                f"tokenizer.json in '{folders[0]}' or '{folders[1]}' is not a file of the tokenizers library "
                f"({error!r}); save it again with transformers"
            ) from error
    roles, others = (_roles(folder) for folder in folders)
    for key in sorted(roles.keys() | others.keys()):
        if roles.get(key) != others.get(key):
            shown = "" if key == "chat template" else f" {roles.get(key)!r} and {others.get(key)!r}"
            yield Mismatch(f"the tokenizers differ in their {key}{shown}", fatal=False)


def _model(tokenizer: Mapping[str, Any]) -> Mapping[str, Any]:
    model = tokenizer.get("model")
    return model if isinstance(model, dict) else {}


def _compare_vocabularies(one: Mapping[str, Any], *, other: Mapping[str, Any]) -> Iterator[Mismatch]:
    first, second = _by_token(one), _by_token(other)
    if differing := sorted(token for token in first.keys() | second.keys() if first.get(token) != second.get(token)):
        shown = [f"{token!r} is {first.get(token)} and {second.get(token)}" for token in differing]
        yield from _few(shown, "tokens with another id in the thinking tokenizer")
    elif _merges(one) != _merges(other):
        yield Mismatch(
            "the tokenizers have equal vocabularies but different merge rules, so they split text differently"
        )


def _by_token(model: Mapping[str, Any]) -> dict[str, int]:
    vocab = model.get("vocab") or {}
    if isinstance(vocab, dict):
        return vocab
    return {str(entry[0]): index for index, entry in enumerate(vocab)}  # unigram: a list of [token, score]


def _merges(model: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [tuple(rule.split(" ")) if isinstance(rule, str) else tuple(rule) for rule in model.get("merges") or []]


def _added(tokenizer: Mapping[str, Any]) -> dict[int, _Token]:
    return {token["id"]: token for token in tokenizer.get("added_tokens") or []}


def _compare_added(one: Mapping[int, _Token], *, other: Mapping[int, _Token], first_name: str) -> Iterator[Mismatch]:
    for index in sorted(one.keys() | other.keys()):
        first, second = one.get(index), other.get(index)
        if first is None or second is None:
            token, owner = (first or second or {}), "thinking" if first is None else first_name
            yield Mismatch(f"added token {token['content']!r} ({index}) is known to {owner} only", fatal=False)
        elif first["content"] != second["content"]:
            harmless = _is_spare(first) or _is_spare(second) or (first.get("special") and second.get("special"))
            text = f"added token {index} is {first['content']!r} for {first_name}, {second['content']!r} for thinking"
            yield Mismatch(text, fatal=not harmless)


def _is_spare(token: _Token) -> bool:
    """Returns whether a model reserves the token, so that the other model may have renamed it."""
    return bool(token.get("special")) and bool(_SPARE.search(str(token["content"])))


def _roles(folder: Path) -> dict[str, object]:
    """Returns the special tokens by role and the chat template."""
    config = tokenizer_config(folder)
    roles = {key: _content(config.get(key)) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    return roles | {"chat template": template_in(folder)}


def _content(token: object) -> object:
    return token.get("content") if isinstance(token, dict) else token
