"""The opened models of a config: the checked pair, its chat formats and the sampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from autolambda.bundled import FOLDER
from autolambda.config import Config, ModelsConfig, SamplingConfig, parse_config
from autolambda.engines.base import Sampling
from autolambda.errors import CheckpointError, ConfigError, in_short, one_line
from autolambda.files import read_text
from autolambda.merging.pair import Pair, open_pair
from autolambda.merging.rounding import Rounding
from autolambda.merging.source import read_json_if_any
from autolambda.merging.tokenizer import template_in

if TYPE_CHECKING:  # it loads transformers, which a merge of files does not need
    from autolambda.engines.chat import ChatFormat

DEFAULT_MAX_TOKENS = 32_768
MOST_TEMPLATE_BYTES = 1 << 20


@dataclass(frozen=True)
class Models:
    """Both parents, their chat templates and the sampling.

    ``templates`` holds three chat templates: of the ``study``, of ``instruct`` and of ``thinking``.
    ``tokenizer_folder`` holds the tokenizer, which is loaded when a chat format is first used.
    """

    pair: Pair
    tokenizer_folder: Path
    templates: Mapping[str, str]
    settings: ModelsConfig
    sampling: Sampling

    @property
    def chat(self) -> ChatFormat:
        """The study's chat format. Raises ``CheckpointError`` if its tokenizer cannot be loaded."""
        return self._chats["study"]

    @property
    def own_chats(self) -> dict[str, ChatFormat]:
        """The chat formats of ``instruct`` and ``thinking``. Raises like ``chat``."""
        return {name: self._chats[name] for name in ("instruct", "thinking")}

    @property
    def context(self) -> int:
        """The most tokens of prompt and response together."""
        return _context(self.pair)

    @cached_property
    def _chats(self) -> dict[str, ChatFormat]:
        from autolambda.engines.chat import ChatFormat, load_tokenizer

        tokenizer = load_tokenizer(self.tokenizer_folder)
        kwargs, think_end = self.settings.chat_template_kwargs, self.settings.think_end
        return {name: ChatFormat(tokenizer, text, kwargs, think_end) for name, text in self.templates.items()}


def open_models(config: Config) -> Models:
    """Opens and checks the parents. Raises ``InputError`` if they or their settings are wrong."""
    rounding = Rounding(config.merge.rounding, config.merge.seed)
    pair = open_pair(*parent_folders(config.models), rounding=rounding)
    folders = {"instruct": pair.instruct.folder, "thinking": pair.thinking.folder}
    templates = _templates(config.models, folders)
    return Models(pair, folders[config.models.tokenizer], templates, config.models, _sampling(config.sampling, pair))


def parent_folders(models: ModelsConfig) -> tuple[str, str]:
    """Returns the folders or hub ids of Instruct and Thinking: the config's, or the bundled pair's."""
    if models.instruct is None or models.thinking is None:
        return str(FOLDER / "instruct"), str(FOLDER / "thinking")
    return models.instruct, models.thinking


def base_folder(models: ModelsConfig) -> str | None:
    """Returns the folder or hub id of the base model of both parents, or ``None``."""
    return str(FOLDER / "base") if models.bundled else models.base


def _templates(models: ModelsConfig, folders: Mapping[str, Path]) -> dict[str, str]:
    """Returns the study's chat template and each parent's own. A parent without a template gets the study's."""
    templates = {name: template_in(folder) for name, folder in folders.items()}
    chosen = models.chat_template
    study = templates[chosen] if chosen in templates else _read_template(chosen)
    if study is None:
        raise CheckpointError(f"'{folders[chosen]}' has no chat template; set models.chat_template to a file")
    return {"study": study, **{name: template or study for name, template in templates.items()}}


def _read_template(path: str) -> str:
    try:
        return read_text(Path(path), max_bytes=MOST_TEMPLATE_BYTES)
    except (OSError, ValueError) as error:
        seen = f"{in_short(path, limit=200)} ({one_line(error)})"
        raise ConfigError(f"models.chat_template: 'thinking', 'instruct' or a file, seen {seen}") from error


def _sampling(settings: SamplingConfig, pair: Pair) -> Sampling:
    """Returns the config's sampling, completed by the Thinking parent's generation config.

    ``do_sample: false`` is greedy at any temperature, as in transformers.
    """
    defaults = _generation_defaults(settings, pair.thinking.folder)
    context = _context(pair)
    max_tokens = settings.max_tokens or defaults.max_tokens or min(DEFAULT_MAX_TOKENS, context // 2)
    if max_tokens >= context:
        raise ConfigError(
            f"sampling.max_tokens: {max_tokens} does not fit the model's context of {context} tokens; lower it"
        )

    def pick(key: str, neutral: float) -> float:
        values = [value for source in (settings, defaults) if (value := getattr(source, key)) is not None]
        return float(values[0]) if values else neutral

    return Sampling(
        temperature=pick("temperature", 0.0),
        top_p=pick("top_p", 1.0),
        top_k=int(pick("top_k", 0)),
        min_p=pick("min_p", 0.0),
        presence_penalty=settings.presence_penalty,
        stop=settings.stop,
        max_tokens=max_tokens,
    )


def _generation_defaults(settings: SamplingConfig, folder: Path) -> SamplingConfig:
    """Returns the values of ``generation_config.json`` for omitted keys. Raises ``CheckpointError``."""
    plain = read_json_if_any(folder, "generation_config.json")
    if plain.get("do_sample", plain.get("temperature") is not None):
        plain = {"temperature": 1.0} | {key: value for key, value in plain.items() if value is not None}
    else:
        plain = plain | {"temperature": 0.0}
    names = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p"}
    names["max_tokens"] = "max_new_tokens"
    known = {key: plain.get(name) for key, name in names.items() if getattr(settings, key) is None}
    try:
        return parse_config({"sampling": known}).sampling
    except ConfigError as error:
        raise CheckpointError(f"'{folder}': generation_config.json: {error}; set that key yourself") from error


def _context(pair: Pair) -> int:
    length = pair.config.get("max_position_embeddings")
    if length is not None and (type(length) is not int or length < 1):
        raise CheckpointError(
            f"'{pair.thinking.source}': max_position_embeddings in config.json is {in_short(length)}; "
            "it must be a positive whole number"
        )
    return length or DEFAULT_MAX_TOKENS * 2
