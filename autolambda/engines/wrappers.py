"""The cut engine: another engine whose thinking ends at a hard cap, the baseline "just cut the Thinking model".

A response whose thinking is still open at the cap gets the closing tag and goes on with its answer; an answer that is
under way at the cap goes on as it is. ``sampling.max_tokens`` caps both parts together. The closing text is forced, not
generated: it is part of the text, and of no count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autolambda.engines.base import Engine, Fingerprint, Prompt, Sampling, Watch
from autolambda.engines.chat import ChatFormat
from autolambda.merging.method import Method
from autolambda.responses import Response
from autolambda.tasks.requests import derive_seed


class CutEngine:
    """Implements ``engines.base.Engine`` around another engine, which it closes with itself.

    A response that reached the cap without ``think_end`` counts as one that is thinking, so this is for models that
    do. Each one that goes on is a second prompt: its tokens are made from text again, and a presence penalty or a stop
    string does not see across the cap.
    """

    streams = False  # no response is known before both calls

    def __init__(self, engine: Engine, chat: ChatFormat, *, cap: int) -> None:
        """``cap`` is in generated tokens; ``chat`` has the tokenizer and the tag that closes the thinking."""
        if cap < 1:
            raise ValueError(f"cap is a number of tokens above 0, seen {cap}")
        self._engine, self._cap = engine, cap
        self._think_end, self._closing = chat.think_end, f"\n{chat.think_end}\n\n"
        self._num_forced = len(chat.tokenizer(self._closing, add_special_tokens=False).input_ids)
        self.in_words = f"{engine.in_words}, thinking cut at {cap} tokens"

    def set_merge(self, method: Method) -> None:
        """Merges in place in the engine inside."""
        self._engine.set_merge(method)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        """One response a prompt, its ``num_tokens`` without the forced ones; ``watch`` is not asked.

        What goes on may generate what is left of ``max_tokens`` once the forced tokens have their room, so that prompt
        and response fit where the plain model's do. Where nothing is left, a response ends at the cap.
        """
        responses = self._engine.generate(prompts, replace(sampling, max_tokens=min(self._cap, sampling.max_tokens)))
        room = sampling.max_tokens - self._cap - self._num_forced
        cut = [i for i, response in enumerate(responses) if response.finish_reason == "length" and room > 0]
        texts = [self._opened(responses[i].text) for i in cut]
        seconds = [
            Prompt(prompts[i].text + text, derive_seed(prompts[i].seed, "after the cut"))
            for i, text in zip(cut, texts, strict=True)
        ]
        rests = self._engine.generate(seconds, replace(sampling, max_tokens=room)) if cut else []
        for i, text, rest in zip(cut, texts, rests, strict=True):
            num_tokens = responses[i].num_tokens + rest.num_tokens
            responses[i] = replace(rest, text=text + rest.text, num_tokens=num_tokens)
        return responses

    def fingerprint(self) -> Fingerprint:
        """That of the engine inside: a cut changes no weight."""
        return self._engine.fingerprint()

    def close(self) -> None:
        """Closes the engine inside."""
        self._engine.close()

    def _opened(self, text: str) -> str:
        """The text at the cap, ready for the answer: its thinking closed, on a line of its own."""
        text = text.rstrip("\N{REPLACEMENT CHARACTER}")  # of a character that the cap cut in two
        if self._think_end in text:
            return text
        return text + (self._closing[1:] if text.endswith("\n") else self._closing)
