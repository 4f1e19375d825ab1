"""Finds the tag with which a model closes its thinking, in its chat template, its added tokens or its responses.

The families differ: ``</think>`` (Qwen, DeepSeek, GLM and most others), ``[/THINK]`` (Magistral), ``</seed:think>``
(Seed-OSS), ``</thought>`` (EXAONE Deep), ``<|END_THINKING|>`` (Cohere), ``<|end_of_thought|>`` (OpenThinker),
``◁/think▷`` (Kimi-VL), ``<channel|>`` (Gemma 4) and the final channel of gpt-oss.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

USUAL = "</think>"
_FINAL_CHANNEL = "<|channel|>final<|message|>"  # gpt-oss: what comes before it is analysis
_WORD = r"(?:think|thinking|thought|thoughts|reason|reasoning)"
_CLOSING = re.compile(
    rf"</(?:\w+[:_])?{_WORD}>"  # </think>, </seed:think>, </thought>
    rf"|\[/{_WORD}\]"  # [/THINK]
    rf"|<\|(?:/|end_of_|end_|close_){_WORD}\|>|<\|{_WORD}_end\|>"  # <|end_of_thought|>, <|END_THINKING|>
    rf"|[◁◀]/{_WORD}[▷▶]"  # ◁/think▷
    r"|<\|inner_suffix\|>|<channel\|>",
    flags=re.IGNORECASE,
)
_OPENING = re.compile(
    rf"<(?:\w+[:_])?{_WORD}>|\[{_WORD}\]|[◁◀]{_WORD}[▷▶]|<\|(?:begin_of|start)_{_WORD}\|>", flags=re.IGNORECASE
)


def tags_in(*texts: str) -> list[str]:
    """Returns the closing tags in the texts: the usual one first, then in the order of their first appearance.

    If there are none, returns the closing tags of the opening ones.
    """
    found = dict.fromkeys(match for text in texts for match in _CLOSING.findall(text))
    if any("<|channel|>" in text and "<|message|>" in text and "final" in text for text in texts):
        found[_FINAL_CHANNEL] = None
    if not found:
        found = dict.fromkeys(_closing(match) for text in texts for match in _OPENING.finditer(text))
    return sorted(found, key=lambda tag: tag != USUAL)


def _closing(opening: re.Match[str]) -> str:
    """Returns the tag that closes an opening one: ``</think>`` for ``<think>``."""
    text = opening[0]
    if text.startswith("<|"):
        words = re.sub("begin_of|start", lambda found: "end_of" if "of" in found[0] else "end", text.lower())
        return words.upper() if text == text.upper() else words
    return f"{text[0]}/{text[1:]}"


def find_think_end(template: str, tokens: Iterable[str]) -> tuple[str, str] | None:
    """Returns the closing tag of a template or of added tokens, and where it is, in words; ``None`` if there is none.

    The template goes first, because a vocabulary may hold tags that the model was never trained to write.
    """
    listed = list(tokens)
    special = "<|channel|><|message|>final" if {"<|channel|>", "<|message|>"} <= set(listed) else ""
    for where, texts in (("chat template", [template]), ("added tokens", [*listed, special])):
        if tags := tags_in(*texts):
            return tags[0], where
    return None
