"""The opened models of a config: the checked pair, its chat formats and the sampling.

A chat template may ask for the date. All prompts of a study are rendered for one moment, that of its creation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from autolambda.bundled import FOLDER
from autolambda.config import Config
from autolambda.config_models import ModelsConfig, SamplingConfig
from autolambda.engines.base import Sampling
from autolambda.engines.generation_config import keys_not_applied, sampling_of
from autolambda.engines.think_tag import USUAL, find_think_end, tags_in
from autolambda.errors import CheckpointError, ConfigError, PairError, in_short, one_line
from autolambda.files import read_text
from autolambda.merging.difference.measure import hold_one_model
from autolambda.merging.pair import Pair, open_pair
from autolambda.merging.rounding import Rounding
from autolambda.merging.tokenizer import template_in

if TYPE_CHECKING:  # it loads transformers, which errors in the config do not need
    from transformers import PreTrainedTokenizerBase

    from autolambda.engines.chat import ChatFormat

DEFAULT_MAX_TOKENS = 32_768
MOST_TEMPLATE_BYTES = 1 << 20


@dataclass(frozen=True)
class Models:
    """Both parents, their chat templates and the sampling.

    ``templates`` holds three chat templates: of the ``study``, of ``instruct`` and of ``thinking``.
    ``tokenizer_folder`` holds the tokenizer, which is loaded when a chat format is first used. ``drawn`` is the
    sampling before the tokenizer is known. ``moment`` is the local time that prompts are rendered for.
    """

    pair: Pair
    tokenizer_folder: Path
    templates: Mapping[str, str]
    settings: ModelsConfig
    drawn: Sampling
    moment: datetime

    @cached_property
    def sampling(self) -> Sampling:
        """How responses are drawn, with the tokens that end them. Raises like ``chat``."""
        from autolambda.engines.decoder import end_ids_of

        ends = end_ids_of(self.pair, self.chat.tokenizer)
        return replace(self.drawn, end_ids=tuple(sorted(ends)))

    @property
    def reads_clock(self) -> bool:
        """Whether a chat template asks for the date or the time."""
        return any("strftime_now" in template for template in self.templates.values())

    def at(self, moment: datetime) -> Models:
        """Returns the models with prompts that are rendered for another moment."""
        return replace(self, moment=moment)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on the pair, on the tag that closes thinking, and on what is not applied. Raises like ``chat``."""
        vision = (
            f"{len(self.pair.outside)} tensors outside the language model, such as a vision tower's, are those of "
            f"{self.pair.vision} in every merge (models.vision)"
        )
        names = (
            f"going by their names, the models may be swapped: INSTRUCT is '{self.settings.instruct}', THINKING is "
            f"'{self.settings.thinking}'; the search stops if their responses say so too"
        )
        own = (
            names if self.settings.swapped_names else None,
            vision if self.pair.outside else None,
            self._think_end[1],
            keys_not_applied(self.pair.thinking.folder),
        )
        template = (
            f"the chat templates of the two models differ; that of {self.settings.chat_template} is used for all "
            "(models.chat_template)"
        )
        of_pair = [
            template if said == "the tokenizers differ in their chat template" else said for said in self.pair.warnings
        ]
        return (*of_pair, *(sentence for sentence in own if sentence))

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
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from autolambda.engines.chat import load_tokenizer

        return load_tokenizer(self.tokenizer_folder)

    @cached_property
    def _chats(self) -> dict[str, ChatFormat]:
        from autolambda.engines.chat import ChatFormat

        kwargs, think_end = self.settings.chat_template_kwargs, self._think_end[0]
        return {
            name: ChatFormat(self._tokenizer, text, kwargs, think_end, self.moment)
            for name, text in self.templates.items()
        }

    @cached_property
    def _think_end(self) -> tuple[str, str | None]:
        """The tag that closes thinking, and a sentence about it unless it is the usual one and known."""
        chosen, tokens = self.settings.think_end, list(self._tokenizer.get_added_vocab())
        templates = [self.templates["thinking"], self.templates["study"]]
        finds = [found for text in templates if (found := find_think_end(text, tokens))]
        if chosen is None and finds:
            tag, where = finds[0]
            said = f"models.think_end is {tag}, from the {where} of the Thinking parent"
            return tag, None if tag == USUAL else said
        if chosen is None:
            return USUAL, (
                "neither the chat template nor the added tokens of the Thinking parent have a tag that closes "
                f"thinking; models.think_end is {USUAL}, so set it if the model writes another one"
            )
        if any(chosen in text for text in (*templates, *tokens)) or chosen in [tag for tag, _ in finds]:
            return chosen, None
        there = f", which have {', '.join(tags)}" if (tags := tags_in(*templates, *tokens)) else ""
        return chosen, (
            f"models.think_end: {chosen} is in neither the chat template nor the added tokens of the Thinking "
            f"parent{there}"
        )


def open_models(config: Config, *, further: Collection[str] = ()) -> Models:
    """Opens and checks the parents, the further models that the search's spaces read, and those of ``further`` roles.

    Raises ``InputError`` if they or their settings are wrong.
    """
    rounding = Rounding(config.merge.rounding, config.merge.seed)
    read = {*config.further, *further}
    instruct, thinking = parent_folders(config.models)
    pair = open_pair(
        instruct,
        thinking,
        base=base_folder(config.models) if "base" in read else None,
        third=config.models.third if "third" in read else None,
        rounding=rounding,
        vision=config.models.vision,
    )
    folders = {"instruct": pair.instruct.folder, "thinking": pair.thinking.folder}
    if hold_one_model(pair):
        raise PairError(
            f"models.instruct '{pair.instruct.source}' and models.thinking '{pair.thinking.source}' hold the same "
            "weights, so every merge of them is that model; give two different models"
        )
    templates = _templates(config.models, folders)
    drawn, now = _drawn(config.sampling, pair), datetime.now().replace(microsecond=0)
    return Models(pair, folders[config.models.tokenizer], templates, config.models, drawn, now)


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


def _drawn(settings: SamplingConfig, pair: Pair) -> Sampling:
    """Returns the sampling of the config and the generation config. Raises ``ConfigError`` for too many tokens."""
    context = _context(pair)
    drawn = sampling_of(settings, pair.thinking.folder, max_tokens=min(DEFAULT_MAX_TOKENS, context // 2))
    if drawn.max_tokens >= context:
        raise ConfigError(
            f"sampling.max_tokens: {drawn.max_tokens} does not fit the model's context of {context} tokens; lower it"
        )
    return drawn


def _context(pair: Pair) -> int:
    length = pair.thinking.text_config.get("max_position_embeddings")
    if length is not None and (type(length) is not int or length < 1):
        raise CheckpointError(
            f"'{pair.thinking.source}': max_position_embeddings in config.json is {in_short(length)}; "
            "it must be a positive whole number"
        )
    return length or DEFAULT_MAX_TOKENS * 2
