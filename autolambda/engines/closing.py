"""How thinking is closed at a cap: by the phrase of a model's makers, by a general phrase, or by the bare tag.

Qwen's makers publish theirs in the Qwen3 technical report, section 4.3 (arXiv 2505.09388).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autolambda.engines.chat import ChatFormat
from autolambda.engines.think_tag import USUAL
from autolambda.errors import ConfigError, in_short

AUTO, TAG = "auto", "tag"

_QWEN = (
    "Considering the limited time by the user, I have to give the solution based on the thinking directly now.\n"
    f"{USUAL}.\n\n"
)
MAKERS: Mapping[str, str] = dict.fromkeys(("qwen3", "qwen3_moe", "qwen3_next", "qwen3_vl", "qwen3_vl_moe"), _QWEN)
"""The phrases of models' makers by ``model_type``. Others train such models too, with templates of their own."""
_TURN = "<|im_start|>"  # in the templates of these makers


@dataclass(frozen=True)
class Closing:
    """A text that ends the thinking. It is forced on a response as ``num_tokens`` tokens."""

    text: str
    num_tokens: int


def closings_of(chat: ChatFormat, model_type: object, *, setting: str = AUTO) -> tuple[Closing, ...]:
    """Returns the closings to choose from, one or two, for a setting ``auto``, ``tag`` or the text itself.

    ``auto`` is the phrase of the model's makers, else a general phrase and the bare tag. A phrase whose words the
    tokenizer does not know is left out. Raises ``ConfigError`` for a text that it cannot write or that lacks the tag.
    """
    bare = f"\n{chat.think_end}\n\n"
    if setting == TAG:
        return (_closing(chat, bare),)
    if setting != AUTO:
        if chat.think_end not in setting:
            raise ConfigError(f"cap.closing: {in_short(setting)} does not hold {chat.think_end}, which ends thinking")
        if not _is_written(chat, setting):
            raise ConfigError(f"cap.closing: the tokenizer cannot write {in_short(setting)}; give another text, or tag")
        return (_closing(chat, setting),)
    phrase = MAKERS.get(str(model_type), "") if _TURN in chat.template else ""
    if chat.think_end in phrase and _is_known(chat, phrase):
        return (_closing(chat, phrase),)
    general = f"\n\nMy time is up, so I answer now by what I have thought so far.\n{chat.think_end}\n\n"
    return tuple(_closing(chat, text) for text in (general, bare) if text == bare or _is_known(chat, text))


def _closing(chat: ChatFormat, text: str) -> Closing:
    return Closing(text, len(chat.tokenizer(text, add_special_tokens=False).input_ids))


def _is_known(chat: ChatFormat, text: str) -> bool:
    """Returns whether the tokenizer writes the text in words. In characters, it costs too much and says nothing."""
    return _is_written(chat, text) and _closing(chat, text).num_tokens <= len(text) / 2


def _is_written(chat: ChatFormat, text: str) -> bool:
    """Returns whether the tokenizer gives the text back."""
    ids = chat.tokenizer(text, add_special_tokens=False).input_ids
    return bool(chat.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text)
