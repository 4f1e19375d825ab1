"""An engine around another engine that ends thinking at a cap, in responses that were drawn whole before.

A cap changes only responses whose thinking is longer. Their first tokens are those of the whole response, so only what
follows the forced closing is generated. The draws are those of a capped model, at the cost of its answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from autolambda.engines.base import Engine, Fingerprint, Progress, Prompt, Sampling, Watch
from autolambda.engines.closing import Closing
from autolambda.merging.method import Method
from autolambda.responses import Response
from autolambda.tasks.requests import derive_seed


class CutEngine:
    """Implements ``engines.base.Engine`` around another engine, and closes both together.

    The answer is generated from a prompt that ends in the closing. That tokenizes the text before it again, and the
    presence penalty and stop strings do not see it.
    """

    def __init__(self, engine: Engine, thoughts: Mapping[Prompt, str], *, cap: int, closing: Closing) -> None:
        """``thoughts`` holds the text of the first ``cap`` tokens of each prompt's whole response."""
        if cap < 1:
            raise ValueError(f"cap is a number of tokens above 0, seen {cap}")
        self._engine, self._thoughts, self._cap, self._closing = engine, thoughts, cap, closing
        self.streams = engine.streams
        self.in_words = f"{engine.in_words}, thinking cut at {cap} tokens"

    def set_merge(self, method: Method) -> None:
        """Merges in place in the wrapped engine."""
        self._engine.set_merge(method)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        """Returns one response per prompt. ``num_tokens`` counts the cap, the forced tokens and the answer.

        ``max_tokens`` of the sampling caps all parts together, so that a response fits into the plain model's context.
        If nothing is left for an answer, the response ends at the cap.
        """
        num_before = self._cap + self._closing.num_tokens
        if num_before >= sampling.max_tokens:
            return [Response(self._thoughts[prompt], self._cap, "length") for prompt in prompts]
        heads = [self._thoughts[prompt] + self._closing.text for prompt in prompts]
        asked = [
            Prompt(prompt.text + head, derive_seed(prompt.seed, "after the cut"))
            for prompt, head in zip(prompts, heads, strict=True)
        ]

        def joined(head: str, answer: Response) -> Response:
            return replace(answer, text=head + answer.text, num_tokens=num_before + answer.num_tokens)

        def follow(progress: Progress) -> bool:
            answers = zip(heads, progress.responses, strict=True)
            whole = [answer and joined(head, answer) for head, answer in answers]
            return watch is None or watch(Progress([num_before + num for num in progress.num_tokens], whole))

        answers = self._engine.generate(
            asked, replace(sampling, max_tokens=sampling.max_tokens - num_before), watch=follow
        )
        return [joined(head, answer) for head, answer in zip(heads, answers, strict=True)]

    def fingerprint(self) -> Fingerprint:
        """Returns the wrapped engine's fingerprint: the cap changes no weight."""
        return self._engine.fingerprint()

    def close(self) -> None:
        """Closes the wrapped engine."""
        self._engine.close()
