"""Decodes the token ids of a response into its text, identically for every engine.

Special tokens stay in the text, because ``</think>`` is one in some tokenizers. The end token or stop string that ended
a response is not part of its text, but its tokens are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from autolambda.engines.base import Prompt, Sampling
from autolambda.errors import CheckpointError, EngineError, in_short
from autolambda.merging.pair import Pair
from autolambda.merging.source import read_json_if_any
from autolambda.responses import FinishReason, Response


@dataclass(frozen=True)
class Decoder:
    """A tokenizer with the end-token ids and the stop strings that end a response."""

    tokenizer: PreTrainedTokenizerBase
    end_ids: frozenset[int]
    stop: tuple[str, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, sampling: Sampling, *, end_ids: frozenset[int]) -> Decoder:
        """Returns the decoder of a call; ``end_ids`` are the parents', for a sampling that names none."""
        named = end_ids if sampling.end_ids is None else frozenset(sampling.end_ids)
        return cls(tokenizer, named, sampling.stop)

    def text(self, tokens: Sequence[int]) -> str:
        """Decodes all token ids."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def stop_at(self, tokens: Sequence[int]) -> int | None:
        """Returns the index in the text at which the first stop string begins, or ``None``."""
        text = self.text(tokens)
        found = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        return min(found, default=None)

    def met_stop(self, tokens: Sequence[int]) -> bool:
        """Whether the newest token completes a stop string. Checks the last tokens first, which is fast."""
        if not self.stop:
            return False
        text = self.text(tokens[-self._tail :])
        return any(stop in text for stop in self.stop) and self.stop_at(tokens) is not None

    def response(self, tokens: Sequence[int], finish: FinishReason) -> Response:
        """Builds the response of all generated tokens. Its text ends before the end token or stop string, if any."""
        ended = finish == "stop" and tokens[-1] in self.end_ids
        text = self.text(tokens[:-1] if ended else tokens)
        if finish == "stop" and not ended and (stop_at := self.stop_at(tokens)) is not None:
            text = text[:stop_at]
        return Response(text=text, num_tokens=len(tokens), finish_reason=finish)

    @property
    def _tail(self) -> int:  # tokens that hold any stop string: each token is at least a byte
        return max(len(stop.encode()) for stop in self.stop) + 8


def encode(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], *, num_rows: int | None = None
) -> list[list[int]]:
    """Tokenizes each prompt without adding special tokens.

    Raises ``EngineError`` for an empty prompt, and for a token beyond the ``num_rows`` rows of the model's embedding.
    """
    ids: list[list[int]] = tokenizer([prompt.text for prompt in prompts], add_special_tokens=False).input_ids
    if empty := [str(i) for i, row in enumerate(ids) if not row]:
        raise EngineError(f"prompts without a token: number {', '.join(empty)}; a model needs at least one")
    last = max((token for row in ids for token in row), default=0)
    if num_rows is not None and last >= num_rows:
        raise EngineError(
            f"a prompt holds the token {last} ({in_short(tokenizer.decode([last]))}), but the model's embedding has "
            f"{num_rows} rows; use the tokenizer that belongs to the weights, or prompts and a template without it"
        )
    return ids


def end_ids_of(pair: Pair, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Returns the Thinking parent's end-of-sequence ids from its generation config, its config and the tokenizer.

    Raises ``CheckpointError`` for an id that is no whole number.
    """
    ids: set[int] = set()
    generation = read_json_if_any(pair.thinking.folder, "generation_config.json")
    configs = (each.get("eos_token_id") for each in (pair.thinking.config, pair.thinking.text_config, generation))
    for source in (tokenizer.eos_token_id, *configs):
        named = source if isinstance(source, list) else [] if source is None else [source]
        if wrong := [each for each in named if type(each) is not int or each < 0]:
            raise CheckpointError(
                f"'{pair.thinking.source}': eos_token_id holds {in_short(wrong[0])}; give numbers of tokens"
            )
        ids.update(named)
    return frozenset(ids)
