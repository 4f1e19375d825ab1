"""A look at two models for a project file: at all of them if they are here, else at the small files on the hub.

So a project can begin before tens of gigabytes are downloaded. What only the weights tell is left to ``validate``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autolambda.config import Config
from autolambda.driver.models import DEFAULT_MAX_TOKENS, Models, open_models
from autolambda.engines.base import Sampling
from autolambda.engines.generation_config import FILE as GENERATION_CONFIG
from autolambda.engines.generation_config import sampling_of
from autolambda.engines.think_tag import USUAL, find_think_end
from autolambda.errors import CheckpointError, reason
from autolambda.merging.checkpoint import TEXT_CONFIGS
from autolambda.merging.source import read_json, read_json_if_any
from autolambda.merging.tokenizer import template_in

_SMALL = ("*.json", "*.jinja")


@dataclass(frozen=True)
class FoundModels:
    """What a project file says of the models. ``models`` is ``None`` if their weights are not here yet."""

    instruct: str
    thinking: str
    models: Models | None
    about: str
    template: str
    think_end: str
    sampling: Sampling
    cap_from: str


def look_at_models(config: Config) -> FoundModels:
    """Returns what the models of a config hold. Raises ``InputError`` if they cannot be read or do not fit together."""
    instruct, thinking = config.models.instruct, config.models.thinking
    assert instruct is not None and thinking is not None
    folders = {source: _folder_without_weights(source) for source in (instruct, thinking)}
    if any(folders.values()):
        return _from_small_files(config, instruct, thinking, folders)
    models = open_models(config)
    pair = models.pair
    dtype = str(pair.dtype).removeprefix("torch.")
    return FoundModels(
        instruct,
        thinking,
        models,
        f"{pair.num_parameters:,} parameters, {pair.num_layers} layers, {dtype}",
        _about_templates(models.templates["instruct"], models.templates["thinking"], config.models.chat_template),
        models.chat.think_end,
        models.sampling,
        _cap_from(config, pair.thinking.folder, models.sampling, models.context),
    )


def _folder_without_weights(source: str) -> Path | None:
    """Returns the folder of a model whose weights are on the hub only; ``None`` if they are here."""
    if os.path.exists(source):
        return None
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(source, allow_patterns=[*_SMALL], ignore_patterns=["*/*"]))
    except Exception as error:  # the client raises the errors of several libraries, with no common base
        raise CheckpointError(f"'{source}' cannot be fetched from the hub ({reason(error)})") from error
    return None if any(folder.glob("*.safetensors")) else folder


def _from_small_files(config: Config, instruct: str, thinking: str, folders: Mapping[str, Path | None]) -> FoundModels:
    one, other = (folders[source] or Path(source) for source in (instruct, thinking))
    settings = read_json(other, "config.json")
    text = next((part for key in TEXT_CONFIGS if isinstance(part := settings.get(key), dict)), settings)
    context = int(text.get("max_position_embeddings") or 2 * DEFAULT_MAX_TOKENS)
    sampling = sampling_of(config.sampling, other, max_tokens=min(DEFAULT_MAX_TOKENS, context // 2))
    templates = template_in(one), template_in(other)
    tokens = [str(token.get("content")) for token in read_json_if_any(other, "tokenizer.json").get("added_tokens", ())]
    found = find_think_end(templates[1] or "", tokens)
    missing = [source for source, folder in folders.items() if folder is not None]
    return FoundModels(
        instruct,
        thinking,
        None,
        f"{text.get('num_hidden_layers', '?')} layers, {settings.get('model_type', 'an unknown type')}; the first "
        f"search downloads the weights of {' and '.join(missing)}",
        _about_templates(templates[0], templates[1], config.models.chat_template),
        config.models.think_end or (found[0] if found else USUAL),
        sampling,
        _cap_from(config, other, sampling, context),
    )


def _about_templates(instruct: str | None, thinking: str | None, chosen: str) -> str:
    if instruct == thinking:
        return "both have the same chat template"
    whose = f"{chosen.capitalize()}'s" if chosen in ("instruct", "thinking") else f"'{chosen}'"
    return f"the templates differ; {whose} is used for all"


def _cap_from(config: Config, folder: Path, sampling: Sampling, context: int) -> str:
    """Returns where the cap of a response comes from."""
    if config.sampling.max_tokens is not None:
        return "as you said; what is longer is cut off"
    if read_json_if_any(folder, GENERATION_CONFIG).get("max_new_tokens") == sampling.max_tokens:
        return f"from {GENERATION_CONFIG} of Thinking"
    return f"of a context of {context:,}; what is longer is cut off"
