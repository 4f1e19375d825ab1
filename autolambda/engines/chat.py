"""Chat formats: a tokenizer with one template, which turns messages into the prompt text.

The template decides what Instruct is: the Thinking template opens ``<think>`` in the prompt, so one template serves a
whole study, and each parent is measured under its own besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from autolambda.errors import CheckpointError, ConfigError, one_line
from autolambda.responses import Sample


@dataclass(frozen=True)
class ChatFormat:
    """How messages become a prompt. ``think_end`` is the tag whose presence in the output counts as thinking."""

    tokenizer: PreTrainedTokenizerBase
    template: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    think_end: str = "</think>"

    def render(self, sample: Sample) -> str:
        """The prompt text of a sample, ready for the assistant's turn. Raises ``ConfigError`` for a bad template."""
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in sample.messages],
                chat_template=self.template,
                add_generation_prompt=True,
                tokenize=False,
                **self.kwargs,
            )
        except Exception as error:  # whatever the template's author made of it: types, keys, divisions
            raise ConfigError(
                f"models.chat_template cannot render sample {sample.id[:60]!r}: {_first_line(error)}; "
                "correct it or models.chat_template_kwargs"
            ) from error
        return str(text)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder, without its remote code. Raises ``CheckpointError``."""
    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):  # transformers would make an empty one
        raise CheckpointError(f"'{folder}' has no tokenizer; give the folder of a complete checkpoint")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # damaged files raise KeyError, AttributeError, and bare Exceptions of the Rust library
        raise CheckpointError(
            f"'{folder}': no tokenizer can be loaded from it ({_first_line(error)}); download it again"
        ) from error
    return tokenizer


def _first_line(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it takes too much memory"
    return one_line(error) or type(error).__name__
