"""An engine without a model, for every test whose subject is the loop around one.

Tests hand it to ``search(config, ..., engine=FakeEngine())``. A response follows from a SHA-256 of the merge, the
prompt and the seed, so two runs agree bit for bit. As lambda rises, answers are right more often and responses are
longer. Between 0.4 and 0.7 the Think ratio rises from nearly 0 to nearly 1, as it does for real pairs.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence

from autolambda.engines.base import Fingerprint, Progress, Prompt, Sampling, Watch
from autolambda.merging.method import Method
from autolambda.responses import Response

Respond = Callable[[Method, Prompt, Sampling], Response]

SUM = re.compile(r"(\d(?:[-+*]\d)+)=")
OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}


class FakeEngine:
    """Answers the bundled task's prompts, or any others, at once.

    Args:
        dies_at: The call of ``generate``, from 0, that raises ``error`` instead.
        error: What that call raises.
        streams: What the engine says of itself (engines/base.py).
        targets: The right answers by texts that prompts contain. The sums of the bundled task need none.
        respond: Gives a response in place of the one that is described above.

    ``merges``, ``batches`` and ``samplings`` keep what the engine was asked; ``num_closed`` counts calls of ``close``.
    """

    def __init__(
        self,
        *,
        dies_at: int | None = None,
        error: BaseException | None = None,
        streams: bool = False,
        in_words: str = "a fake engine",
        targets: Mapping[str, str] | None = None,
        respond: Respond | None = None,
    ) -> None:
        self.streams, self.in_words = streams, in_words
        self.merges: list[Method] = []
        self.batches: list[list[Prompt]] = []
        self.samplings: list[Sampling] = []
        self.num_closed = 0
        self._dies_at, self._error = dies_at, error or KeyboardInterrupt()
        self._targets, self._respond = targets or {}, respond or self._made_up

    def set_merge(self, method: Method) -> None:
        self.merges.append(method)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        if len(self.batches) == self._dies_at:
            raise self._error
        self.batches.append(list(prompts))
        self.samplings.append(sampling)
        responses = [self._respond(self.merges[-1], prompt, sampling) for prompt in prompts]
        return responses if watch is None else _watched(responses, watch)

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(hashlib.sha256(str(self.merges[-1]).encode()).hexdigest(), whole=False)

    def close(self) -> None:
        self.num_closed += 1

    def _made_up(self, method: Method, prompt: Prompt, sampling: Sampling) -> Response:
        digest = hashlib.sha256(f"{method}|{prompt.text}|{prompt.seed}".encode()).digest()
        chances = [byte / 256 for byte in digest]
        lam = lambda_of(method)
        thinks = chances[0] < 1 / (1 + math.exp((0.55 - lam) / 0.05))
        is_right = chances[1] < 0.35 + 0.55 * lam
        target = self._target(prompt.text)
        answer = target if is_right and target is not None else str(digest[2] % 10)
        num_tokens = 3 + digest[3] % 6 + round(4 * lam)
        if thinks:
            num_tokens += 16 + digest[4] % 24
        if num_tokens > sampling.max_tokens:
            return Response("2 and 2 are" if thinks else answer, sampling.max_tokens, "length")
        return Response(f"2 and 2 are 4</think>{answer}" if thinks else answer, num_tokens, "stop")

    def _target(self, text: str) -> str | None:
        for part, target in self._targets.items():
            if part in text:
                return target
        found = SUM.findall(text)
        return solve(found[-1]) if found else None


def no_engine() -> FakeEngine:
    """An engine that fails the test when anything is generated."""
    return FakeEngine(dies_at=0, error=AssertionError("an engine was used"))


def lambda_of(method: Method) -> float:
    """The mean lambda of a merge; 0.5 for the methods without one."""
    if method.schedule is None:
        return 0.5
    return (method.schedule.attention.mean() + method.schedule.ffn.mean()) / 2


def solve(expression: str) -> str:
    """The value of digits and operators from left to right, modulo 10, as the bundled task counts."""
    value = int(expression[0])
    for operator, digit in zip(expression[1::2], expression[2::2], strict=True):
        value = OPERATIONS[operator](value, int(digit)) % 10
    return str(value)


def _watched(responses: list[Response], watch: Watch) -> list[Response]:
    """Ends the responses token by token, and aborts those that still run when ``watch`` says so."""
    for step in range(1, max((each.num_tokens for each in responses), default=0) + 1):
        num_tokens = [min(step, each.num_tokens) for each in responses]
        finished = [each if each.num_tokens <= step else None for each in responses]
        if not watch(Progress(num_tokens, finished)):
            return [
                done or Response(each.text[:step], step, "aborted")
                for done, each in zip(finished, responses, strict=True)
            ]
    return responses
