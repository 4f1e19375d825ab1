"""The models of a config, opened: the checked pair, its chat formats, and how tokens are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autolambda.chat import ChatFormat, load_tokenizer, template_of
from autolambda.checkpoint import read_json
from autolambda.config import Config, ModelsConfig, SamplingConfig
from autolambda.engines.base import Sampling
from autolambda.errors import ConfigError
from autolambda.pair import Pair, open_pair
from autolambda.tasks.arithmetic import FOLDER

DEFAULT_MAX_TOKENS = 32_768


@dataclass(frozen=True)
class Models:
    """Both parents, the study's chat format, each parent's own (by ``instruct`` and ``thinking``), the sampling."""

    pair: Pair
    chat: ChatFormat
    own_chats: Mapping[str, ChatFormat]
    sampling: Sampling

    @property
    def context(self) -> int:
        """Tokens that prompt and response may have together."""
        return _context(self.pair)


def open_models(config: Config) -> Models:
    """Opens and checks the parents. Raises ``InputError`` for whatever is wrong with them or their settings."""
    pair = open_pair(*parent_folders(config.models))
    chat, own_chats = _chats(config.models, pair)
    return Models(pair, chat, own_chats, _sampling(config.sampling, pair))


def parent_folders(models: ModelsConfig) -> tuple[str, str]:
    """Where the Instruct and the Thinking parent are: the config's, or the bundled ones."""
    if models.instruct is None or models.thinking is None:
        return str(FOLDER / "instruct"), str(FOLDER / "thinking")
    return models.instruct, models.thinking


def _chats(models: ModelsConfig, pair: Pair) -> tuple[ChatFormat, dict[str, ChatFormat]]:
    """The study's chat format, and each parent's own."""
    folders = {"instruct": pair.instruct.folder, "thinking": pair.thinking.folder}
    tokenizer = load_tokenizer(folders[models.tokenizer])
    templates = {name: template_of(load_tokenizer(folder), folder) for name, folder in folders.items()}
    own = {
        name: ChatFormat(tokenizer, template, models.chat_template_kwargs, models.think_end)
        for name, template in templates.items()
    }
    if models.chat_template in own:
        return own[models.chat_template], own
    try:
        template = Path(models.chat_template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"models.chat_template: 'thinking', 'instruct' or a file, seen '{models.chat_template}' ({error})"
        ) from error
    return ChatFormat(tokenizer, template, models.chat_template_kwargs, models.think_end), own


def _sampling(said: SamplingConfig, pair: Pair) -> Sampling:
    """The config's sampling, with the Thinking parent's generation config where it says nothing."""
    has_defaults = (pair.thinking.folder / "generation_config.json").exists()
    defaults = read_json(pair.thinking.folder, "generation_config.json") if has_defaults else {}
    greedy = not defaults.get("do_sample", False)
    context = _context(pair)
    max_tokens = said.max_tokens or defaults.get("max_new_tokens") or min(DEFAULT_MAX_TOKENS, context // 2)
    if max_tokens >= context:
        raise ConfigError(
            f"sampling.max_tokens: {max_tokens} does not fit the model's context of {context} tokens; lower it"
        )

    def pick(value: float | None, key: str, neutral: float) -> float:
        return value if value is not None else float(defaults.get(key) or neutral)

    return Sampling(
        temperature=pick(said.temperature, "temperature", 0.0 if greedy else 1.0),
        top_p=pick(said.top_p, "top_p", 1.0),
        top_k=int(pick(said.top_k, "top_k", 0)),
        min_p=pick(said.min_p, "min_p", 0.0),
        presence_penalty=said.presence_penalty,
        stop=said.stop,
        max_tokens=max_tokens,
    )


def _context(pair: Pair) -> int:
    return int(pair.config.get("max_position_embeddings") or DEFAULT_MAX_TOKENS * 2)
