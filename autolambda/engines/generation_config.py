"""The Thinking parent's ``generation_config.json``: read for the sampling of a study, and written for its export.

A key of the file is applied by both engines, has no effect on what is drawn, or is named to the user and left out of
the export. So a server never draws by a key that no measurement has seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autolambda.config import parse_config
from autolambda.config_models import SamplingConfig
from autolambda.engines.base import Sampling
from autolambda.errors import CheckpointError, ConfigError, shorten
from autolambda.merging.source import read_json_if_any

if TYPE_CHECKING:  # slow to import
    from transformers import PreTrainedTokenizerBase

FILE = "generation_config.json"
_DRAWN = ("temperature", "top_p", "top_k", "min_p")  # for sampling alone, not for greedy responses
_PENALTIES = ("repetition_penalty", "frequency_penalty", "presence_penalty")
_NAMES = {key: key for key in (*_DRAWN, *_PENALTIES)} | {"stop": "stop_strings", "max_tokens": "max_new_tokens"}
_HARMLESS = frozenset(
    {
        "bos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version", "_commit_hash",
        "use_cache", "cache_implementation", "cache_config", "max_cache_len", "prefill_chunk_size", "low_memory",
        "disable_compile", "compile_config", "output_attentions", "output_hidden_states", "output_scores",
        "output_logits", "return_dict_in_generate", "remove_invalid_values", "renormalize_logits",
    }
)  # fmt: skip
_READ = frozenset({*_NAMES.values(), "do_sample", "eos_token_id", "_from_model_config"})
_FOR_BEAMS = frozenset({"early_stopping", "length_penalty", "num_beam_groups", "diversity_penalty"})
_USUAL_LENGTH = 20  # max_length of prompt and response in files that transformers 4 completed
_OFF_AT_ONE = frozenset(
    {"num_beams", "typical_p", "encoder_repetition_penalty", "num_return_sequences", "top_h", "guidance_scale"}
)


def sampling_of(settings: SamplingConfig, folder: Path, *, max_tokens: int) -> Sampling:
    """Returns the config's sampling, completed by the generation config in ``folder``. End tokens are not read.

    ``do_sample: false`` is greedy at any temperature, as in transformers. ``max_tokens`` is the cap if neither names
    one. Raises ``CheckpointError`` for a value that cannot be used.
    """
    defaults = _defaults(settings, folder)

    def pick(key: str, neutral: Any) -> Any:
        values = [value for source in (settings, defaults) if (value := getattr(source, key)) is not None]
        return values[0] if values else neutral

    return Sampling(
        temperature=float(pick("temperature", 0.0)),
        top_p=float(pick("top_p", 1.0)),
        top_k=int(pick("top_k", 0)),
        min_p=float(pick("min_p", 0.0)),
        presence_penalty=float(pick("presence_penalty", 0.0)),
        stop=pick("stop", ()),
        max_tokens=pick("max_tokens", max_tokens),
        frequency_penalty=float(pick("frequency_penalty", 0.0)),
        repetition_penalty=float(pick("repetition_penalty", 1.0)),
    )


def _defaults(settings: SamplingConfig, folder: Path) -> SamplingConfig:
    """Returns the file's values for the keys that ``settings`` omits."""
    plain = read_json_if_any(folder, FILE)
    if plain.get("do_sample", plain.get("temperature") is not None):
        plain = {"temperature": 1.0} | {key: value for key, value in plain.items() if value is not None}
    else:
        plain = plain | {"temperature": 0.0}
    if isinstance(plain.get("stop_strings"), str):
        plain["stop_strings"] = [plain["stop_strings"]]
    known = {key: plain.get(name) for key, name in _NAMES.items() if getattr(settings, key) is None}
    try:
        return parse_config({"sampling": known}).sampling
    except ConfigError as error:
        raise CheckpointError(f"'{folder}': {FILE}: {error}; set that key yourself") from error


def keys_not_applied(folder: Path) -> str | None:
    """Returns a sentence on the keys of the file that would change responses and that no engine here applies."""
    named = [f"{key} {shorten(str(value), 40)}" for key, value in _not_applied(read_json_if_any(folder, FILE))]
    if not named:
        return None
    return (
        f"{FILE} of the Thinking parent has keys that autolambda does not apply, so responses are drawn without them, "
        f"and an export leaves them out: {', '.join(named)}"
    )


def _not_applied(plain: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    has_beams = plain.get("num_beams") not in (None, 1)
    has_cap = plain.get("max_new_tokens") is not None  # which goes before max_length
    for key, value in plain.items():
        is_off = value in (None, False, 0, "") or value == [] or value == {} or (value == 1 and key in _OFF_AT_ONE)
        is_idle = key in _HARMLESS or key in _READ or (key in _FOR_BEAMS and not has_beams)
        is_idle = is_idle or (key == "max_length" and (has_cap or value == _USUAL_LENGTH))
        if not is_off and not is_idle and "assistant" not in key and "lookup" not in key:
            yield key, value


def exported(sampling: Sampling, folder: Path, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Returns the generation config of an export: how ``sampling`` draws, and the harmless keys of the parent's file.

    ``sampling`` must name its end tokens. Stop strings that are added tokens become end tokens. Without a padding token
    in the parent's file and in the tokenizer, the first end token pads, as in transformers.
    """
    kept = {key: value for key, value in read_json_if_any(folder, FILE).items() if key in _HARMLESS}
    ends = list(sampling.end_ids or ())
    ends += [token for token in _stop_tokens(sampling, tokenizer).values() if token not in ends]
    pads = [id for id in (kept.get("pad_token_id"), tokenizer.pad_token_id, *ends) if id is not None]
    config = kept | {"do_sample": sampling.temperature > 0, "max_new_tokens": sampling.max_tokens}
    config |= {"pad_token_id": pads[0]} if pads else {}
    if ends:
        config["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    if sampling.repetition_penalty != 1:
        config["repetition_penalty"] = sampling.repetition_penalty
    if sampling.temperature == 0:
        return config
    # a top_k of 0 is written too, because transformers defaults to 50
    return config | {key: value for key in _DRAWN if (value := getattr(sampling, key)) or key == "top_k"}


def _stop_tokens(sampling: Sampling, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Returns the ids of the stop strings that are added tokens, such as ``<|eot_id|>``."""
    added: dict[str, int] = tokenizer.get_added_vocab() if sampling.stop else {}
    return {text: added[text] for text in sampling.stop if text in added}


def to_send(sampling: Sampling, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Returns the settings that a client must send with each request, because a generation config cannot hold them."""
    sent = []
    for key in ("frequency_penalty", "presence_penalty"):
        if value := getattr(sampling, key):
            sent.append(f"{key} {value:g}")
    held = _stop_tokens(sampling, tokenizer)
    strings = [repr(text) for text in sampling.stop if text not in held]
    return [*sent, *([f"stop {', '.join(strings)}"] if strings else [])]
