"""An engine around another engine that caps the thinking: the baseline "just cut the Thinking model".

If the thinking is still open at the cap, the closing tag is appended and the answer is generated after it. An answer
that has begun before the cap goes on. ``sampling.max_tokens`` caps both parts together. The appended text is part of
the response's text, but its tokens are not counted, because they are not generated.
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
    """Implements ``engines.base.Engine`` around another engine, and closes both together.

    A response that reaches the cap without ``think_end`` counts as thinking, so this is for models that think. The text
    after the cap is generated from a second prompt. That tokenizes the text again, and presence penalty and stop
    strings do not see the tokens before the cap.
    """

    streams = False  # no response is final before both calls end

    def __init__(self, engine: Engine, chat: ChatFormat, *, cap: int) -> None:
        """``cap`` is a number of generated tokens; ``chat`` has the tokenizer and the tag that closes the thinking."""
        if cap < 1:
            raise ValueError(f"cap is a number of tokens above 0, seen {cap}")
        self._engine, self._cap = engine, cap
        self._think_end, self._closing = chat.think_end, f"\n{chat.think_end}\n\n"
        self._num_appended = len(chat.tokenizer(self._closing, add_special_tokens=False).input_ids)
        self.in_words = f"{engine.in_words}, thinking cut at {cap} tokens"

    def set_merge(self, method: Method) -> None:
        """Merges in place in the wrapped engine."""
        self._engine.set_merge(method)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        """Returns one response per prompt; ``num_tokens`` leaves out the appended tokens. ``watch`` is not called.

        After the cap, a response may use what is left of ``max_tokens`` minus the appended tokens. So it fits into the
        plain model's context. If nothing is left, it ends at the cap.
        """
        responses = self._engine.generate(prompts, replace(sampling, max_tokens=min(self._cap, sampling.max_tokens)))
        num_left = sampling.max_tokens - self._cap - self._num_appended
        cut = [i for i, response in enumerate(responses) if response.finish_reason == "length" and num_left > 0]
        texts = [self._close_thinking(responses[i].text) for i in cut]
        seconds = [
            Prompt(prompts[i].text + text, derive_seed(prompts[i].seed, "after the cut"))
            for i, text in zip(cut, texts, strict=True)
        ]
        rests = self._engine.generate(seconds, replace(sampling, max_tokens=num_left)) if cut else []
        for i, text, rest in zip(cut, texts, rests, strict=True):
            num_tokens = responses[i].num_tokens + rest.num_tokens
            responses[i] = replace(rest, text=text + rest.text, num_tokens=num_tokens)
        return responses

    def fingerprint(self) -> Fingerprint:
        """Returns the wrapped engine's fingerprint: the cap changes no weight."""
        return self._engine.fingerprint()

    def close(self) -> None:
        """Closes the wrapped engine."""
        self._engine.close()

    def _close_thinking(self, text: str) -> str:
        """Returns the text at the cap with its thinking closed, on a separate line, ready for the answer."""
        text = text.rstrip("\N{REPLACEMENT CHARACTER}")  # the cap can split a character
        if self._think_end in text:
            return text
        return text + (self._closing[1:] if text.endswith("\n") else self._closing)
