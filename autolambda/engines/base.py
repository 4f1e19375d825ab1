"""The interface of an engine, which holds both parents, merges them in place, and generates.

README.md in this folder lists what every engine promises; tests/engines/test_contract.py checks it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from autolambda.merging.method import Method
from autolambda.responses import Response


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn: engines, exports, model cards and a study's identity all read it.

    ``temperature`` 0 is greedy; ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 are off. ``stop`` holds strings that end a
    response; they are not part of its text. ``max_tokens`` caps the generated tokens. ``end_ids`` are the tokens that
    end a response, in ascending order; ``None`` means the parents' (``decoder.end_ids_of``).

    ``presence_penalty`` is subtracted once from the logit of every token that was already generated, and
    ``frequency_penalty`` once for each time. ``repetition_penalty`` divides the positive logits of all tokens in the
    prompt and the response, and multiplies the negative ones; 1 is off.
    """

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    presence_penalty: float
    stop: tuple[str, ...]
    max_tokens: int
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    end_ids: tuple[int, ...] | None = None

    @property
    def in_words(self) -> str:
        """The sampling for people, such as ``temperature 0.6, top-p 0.95, top-k 20, at most 32768 tokens``."""
        words = [f"temperature {self.temperature:g}", f"top-p {self.top_p:g}", f"top-k {self.top_k}"]
        words += [f"min-p {self.min_p:g}"] if self.min_p else []
        words += [f"repetition penalty {self.repetition_penalty:g}"] if self.repetition_penalty != 1 else []
        words += [f"frequency penalty {self.frequency_penalty:g}"] if self.frequency_penalty else []
        words += [f"presence penalty {self.presence_penalty:g}"] if self.presence_penalty else []
        return ", ".join([*words, f"at most {self.max_tokens} tokens"])


@dataclass(frozen=True)
class Prompt:
    """A prompt after the chat template, and the seed of its response."""

    text: str
    seed: int


@dataclass(frozen=True)
class Progress:
    """The progress of one call of ``generate``, in the order of its prompts.

    ``num_tokens`` holds the tokens generated so far (an engine may be some tokens ahead). ``responses`` holds the
    finished responses, and ``None`` for the others.
    """

    num_tokens: Sequence[int]
    responses: Sequence[Response | None]


WATCH_STEPS = 64  # the most steps between two calls of a watcher

Watch = Callable[[Progress], bool]
"""Called during generation, at least whenever responses are finished. ``False`` aborts the unfinished responses."""


@dataclass(frozen=True)
class Fingerprint:
    """The SHA-256 (hex) of live weights.

    If ``whole`` is true, ``digest`` equals the SHA-256 of a checkpoint with these weights. Otherwise the engine shards,
    quantises or repacks tensors, and only engines with equal settings have comparable fingerprints.
    """

    digest: str
    whole: bool


class Engine(Protocol):
    """Holds the weights of both parents and of their current merge.

    If ``streams`` is true, responses may be stored while others of the call are still generated. Otherwise a response
    can depend on all prompts of the call, so its responses are stored together or not at all. ``in_words`` tells the
    user what runs on which device.
    """

    streams: bool
    in_words: str

    def set_merge(self, method: Method) -> None:
        """Merges in place; nothing that was cached under the former weights survives.

        Raises ``EngineError``, and ``InputError`` if a base model does not fit the parents.
        """

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        """Returns one response per prompt, in order. Equal lists of prompts get equal responses.

        If ``watch`` returns ``False``, unfinished responses end with the reason ``aborted``. Raises ``EngineError``;
        the engine must then be closed.
        """

    def fingerprint(self) -> Fingerprint:
        """Hashes the live weights in the checkpoint's dtype."""

    def close(self) -> None:
        """Frees the weights; the engine cannot be used afterwards."""


@runtime_checkable
class Foreseeing(Protocol):
    """An engine that can start on prompts before ``generate`` asks for them."""

    def expect(self, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        """Announces the prompts of the next calls of ``generate`` under the current merge, in order."""
