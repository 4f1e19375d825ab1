"""Chat formats: a tokenizer with a chat template, which turns messages into the text of a prompt.

The Thinking template opens ``<think>`` in the prompt, so Instruct behaves differently under it than under its own. One
template therefore serves a whole study, and each parent is also measured under its own template.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from autolambda.errors import CheckpointError, ConfigError, reason
from autolambda.responses import Sample


@dataclass(frozen=True)
class ChatFormat:
    """How messages become a prompt. A response that contains ``think_end`` counts as thinking."""

    tokenizer: PreTrainedTokenizerBase
    template: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    think_end: str = "</think>"

    def render(self, sample: Sample) -> str:
        """Returns the prompt up to the assistant's turn. Raises ``ConfigError`` for a bad template."""
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in sample.messages],
                chat_template=self.template,
                add_generation_prompt=True,
                tokenize=False,
                **self.kwargs,
            )
        except Exception as error:  # a template can raise anything: types, keys, divisions
            said = "it takes too much memory" if isinstance(error, MemoryError) else reason(error)
            raise ConfigError(
                f"models.chat_template cannot render sample {sample.id[:60]!r}: {said}; "
                "correct it or models.chat_template_kwargs"
            ) from error
        return str(text)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a checkpoint folder, without remote code. Raises ``CheckpointError``."""
    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):  # transformers would create an empty one
        raise CheckpointError(f"'{folder}' has no tokenizer; give the folder of a complete checkpoint")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # damaged files raise KeyError, AttributeError, or a bare Exception of the Rust library
        raise CheckpointError(
            f"'{folder}': no tokenizer can be loaded from it ({reason(error)}); download it again"
        ) from error
    return tokenizer
