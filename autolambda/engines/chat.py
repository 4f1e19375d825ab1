"""Chat formats: a tokenizer with a chat template, which turns messages into the text of a prompt.

The Thinking template opens ``<think>`` in the prompt, so Instruct behaves differently under it than under its own. One
template therefore serves a whole study, and each parent is also measured under its own template.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from autolambda.engines.think_tag import USUAL
from autolambda.errors import CheckpointError, ConfigError, reason
from autolambda.responses import Sample

_CONFIG = "tokenizer_config.json"  # names roles, and has no vocabulary
_VOCABULARIES = ("tokenizer*", "vocab*", "*.tiktoken", "spiece.model", "tekken.json")


@dataclass(frozen=True)
class ChatFormat:
    """How messages become a prompt. A response that contains ``think_end`` counts as thinking.

    ``moment`` is the local time that a template sees if it asks for the date; ``None`` is the present.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    think_end: str = USUAL
    moment: datetime | None = None

    def render(self, sample: Sample) -> str:
        """Returns the prompt up to the assistant's turn. Raises ``ConfigError`` for a bad template."""
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in sample.messages],
                chat_template=self.template,
                add_generation_prompt=True,
                tokenize=False,
                **self._clock(),
                **self.kwargs,
            )
        except Exception as error:  # a template can raise anything: types, keys, divisions
            said = "it takes too much memory" if isinstance(error, MemoryError) else reason(error)
            raise ConfigError(
                f"models.chat_template cannot render sample {sample.id[:60]!r}: {said}; "
                "correct it or models.chat_template_kwargs"
            ) from error
        return str(text)

    def _clock(self) -> dict[str, Any]:
        """Returns the clock as a variable of the template, which goes before the function that transformers gives."""
        return {} if self.moment is None else {"strftime_now": self.moment.strftime}


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a checkpoint folder, without remote code. Raises ``CheckpointError``."""
    names = {path.name for pattern in _VOCABULARIES for path in folder.glob(pattern)} - {_CONFIG}
    if not names:  # transformers would create an empty one
        raise CheckpointError(
            f"'{folder}' has no tokenizer with a vocabulary; give the folder of a complete checkpoint"
        )
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # damaged files raise KeyError, AttributeError, or a bare Exception of the Rust library
        raise CheckpointError(
            f"'{folder}': no tokenizer can be loaded from it ({reason(error)}); download it again"
        ) from error
    if not tokenizer.get_vocab():
        raise CheckpointError(f"'{folder}': its tokenizer has an empty vocabulary; give a complete checkpoint")
    return tokenizer
