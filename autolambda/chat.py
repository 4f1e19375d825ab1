"""Chat formats: a tokenizer with one template, which turns messages into the prompt text.

The template decides what Instruct is: the Thinking template opens ``<think>`` in the prompt, so one template serves a
whole study, and each parent is measured under its own besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from autolambda.errors import CheckpointError, ConfigError
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
        except TemplateError as error:
            raise ConfigError(f"models.chat_template cannot render sample '{sample.id}': {error}") from error
        return str(text)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder, without its remote code. Raises ``CheckpointError``."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: no tokenizer can be loaded from it: {str(error).splitlines()[0]}") from error
    return tokenizer


def template_of(tokenizer: PreTrainedTokenizerBase, folder: Path) -> str:
    """The chat template that came with a tokenizer; several named ones count as their ``default``."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        raise CheckpointError(f"{folder}: its tokenizer has no chat template; set models.chat_template to a file")
    return str(template)
