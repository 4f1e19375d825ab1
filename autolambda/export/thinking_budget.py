"""vLLM's own cap on thinking: the settings that give the responses which ``CutEngine`` measures.

vLLM counts from the opening tag on, so tokens of the prompt after the tag count too. The numbers of a study do not come
from it: its older model runner, the one on a CPU, looks for the forced text to see that thinking has ended. With a
phrase as that text, it also cuts responses that closed their thinking themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autolambda.engines.chat import ChatFormat
from autolambda.engines.think_tag import USUAL

OLDEST = "0.28"  # on a GPU: the first version whose new model runner has it
_OPENING, _PARSER = "<think>", "deepseek_r1"


@dataclass(frozen=True)
class ThinkingBudget:
    """``thinking_token_budget`` of each request, and the engine argument ``reasoning_config``."""

    num_tokens: int
    reasoning_config: Mapping[str, Any]


def thinking_budget(chat: ChatFormat, prompt: str, *, cap: int, closing: str) -> ThinkingBudget | None:
    """Returns vLLM's settings for a cap of ``cap`` generated tokens, for prompts that end as ``prompt`` does.

    ``None`` for a model with another tag than ``</think>``, because vLLM's parsers of these differ.
    """
    if chat.think_end != USUAL:
        return None
    _, opening, after = prompt.rpartition(_OPENING)
    given = chat.tokenizer(after if opening else _OPENING, add_special_tokens=False).input_ids
    counted = cap + len(given) if opening else max(cap - len(given), 0)
    config = {"reasoning_parser": _PARSER, "reasoning_start_str": _OPENING, "reasoning_end_str": closing}
    return ThinkingBudget(counted, config)
