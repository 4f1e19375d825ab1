"""The cut engine: what it asks after the cap, what it counts, and that draws stay those of the whole responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from checkpoints import tiny_tokenizer

from autolambda.engines.base import Engine, Fingerprint, Progress, Prompt, Sampling, Watch
from autolambda.engines.chat import ChatFormat
from autolambda.engines.closing import Closing
from autolambda.engines.wrappers import CutEngine
from autolambda.merging.method import Method
from autolambda.responses import Response
from autolambda.schedule import Schedule

CHAT = ChatFormat(tiny_tokenizer(), "")  # a token a byte, the tag is one
CLOSING = Closing("\n</think>\n\n", 4)
SAMPLING = Sampling(
    temperature=0.5, top_p=0.9, top_k=7, min_p=0.1, presence_penalty=0.2, stop=("STOP",), max_tokens=100
)


class ScriptedEngine:
    """Writes what its script says after a prompt that ends in the key, then an end token; remembers its calls."""

    streams = True
    in_words = "scripted"

    def __init__(self, script: Mapping[str, str]) -> None:
        self._script = script
        self.calls: list[tuple[list[Prompt], Sampling, Watch | None]] = []
        self.log: list[object] = []

    def set_merge(self, method: Method) -> None:
        self.log.append(method)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        self.calls.append((list(prompts), sampling, watch))
        return [self._response(prompt.text, sampling.max_tokens) for prompt in prompts]

    def _response(self, prompt: str, max_tokens: int) -> Response:
        (whole,) = (text for key, text in self._script.items() if prompt.endswith(key))
        ids = CHAT.tokenizer(whole, add_special_tokens=False).input_ids
        if len(ids) < max_tokens:
            return Response(whole, len(ids) + 1, "stop")
        return Response(str(CHAT.tokenizer.decode(ids[:max_tokens])), max_tokens, "length")

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("weights", whole=True)

    def close(self) -> None:
        self.log.append("closed")


def cut(script: Mapping[str, str], thought: str, *, cap: int, max_tokens: int = 100) -> Response:
    engine = CutEngine(ScriptedEngine(script), {Prompt("Q:", 1): thought}, cap=cap, closing=CLOSING)
    (response,) = engine.generate([Prompt("Q:", 1)], replace(SAMPLING, max_tokens=max_tokens))
    return response


@pytest.mark.parametrize(
    ("script", "thought", "cap", "max_tokens", "expected"),
    [
        pytest.param(
            {"Q:abcd" + CLOSING.text: "42"},
            "abcd",
            4,
            100,
            Response("abcd" + CLOSING.text + "42", 4 + 4 + 3, "stop"),
            id="the cap, the forced tokens and the answer count",
        ),
        pytest.param(
            {"Q:ab" + CLOSING.text: "x" * 99},
            "ab",
            2,
            20,
            Response("ab" + CLOSING.text + "x" * 14, 20, "length"),
            id="an answer without an end",
        ),
        pytest.param(
            {"Q:abab" + CLOSING.text: "x"},
            "abab",
            4,
            9,
            Response("abab" + CLOSING.text + "x", 9, "length"),
            id="one left",
        ),
        pytest.param({}, "abab", 4, 8, Response("abab", 4, "length"), id="no token left"),
    ],
)
def test_a_response_and_its_cap(
    script: dict[str, str], thought: str, cap: int, max_tokens: int, expected: Response
) -> None:
    assert cut(script, thought, cap=cap, max_tokens=max_tokens) == expected


def engine_of(script: Mapping[str, str], **thoughts: str) -> tuple[ScriptedEngine, CutEngine]:
    inside = ScriptedEngine(script)
    prompts = {Prompt(f"{name}:", seed): text for seed, (name, text) in enumerate(thoughts.items())}
    return inside, CutEngine(inside, prompts, cap=2, closing=CLOSING)


def test_responses_keep_their_order_and_are_asked_in_one_call() -> None:
    inside, engine = engine_of({"A:ab" + CLOSING.text: "1", "B:cd" + CLOSING.text: "2"}, A="ab", B="cd")
    texts = [response.text for response in engine.generate([Prompt("B:", 1), Prompt("A:", 0)], SAMPLING)]
    assert texts == ["cd" + CLOSING.text + "2", "ab" + CLOSING.text + "1"]
    ((asked, sampling, _),) = inside.calls
    assert [prompt.text for prompt in asked] == ["B:cd" + CLOSING.text, "A:ab" + CLOSING.text]
    assert sampling == replace(SAMPLING, max_tokens=100 - 2 - CLOSING.num_tokens)


def test_the_second_seed_follows_from_the_first() -> None:
    inside, engine = engine_of({CLOSING.text: "1"}, A="ab", B="cd")
    engine.generate([Prompt("A:", 0), Prompt("B:", 1)], SAMPLING)
    engine.generate([Prompt("A:", 0)], SAMPLING)
    (first, second), (again,) = ([prompt.seed for prompt in asked] for asked, _, _ in inside.calls)
    assert first == again != second and not {0, 1} & {first, second}


def test_a_watcher_sees_whole_responses_and_can_abort() -> None:
    inside, engine = engine_of({CLOSING.text: "1"}, A="ab", B="cd")
    engine.generate([Prompt("A:", 0), Prompt("B:", 1)], SAMPLING, watch=lambda progress: bool(seen.append(progress)))
    follow, seen = inside.calls[0][2], list[Progress]()
    assert follow is not None
    assert not follow(Progress([2, 1], [Response("1", 2, "stop"), None]))
    assert seen == [Progress([8, 7], [Response("ab" + CLOSING.text + "1", 8, "stop"), None])]


def test_the_engine_inside_is_reached() -> None:
    inside, found = engine_of({CLOSING.text: "1"}, A="ab")
    outside: Engine = found
    assert outside.streams and outside.in_words == "scripted, thinking cut at 2 tokens"
    outside.set_merge(Method.linear(Schedule.uniform(1.0)))
    assert outside.fingerprint() == Fingerprint("weights", whole=True)
    outside.close()
    assert inside.log == [Method.linear(Schedule.uniform(1.0)), "closed"]


@pytest.mark.parametrize("cap", [0, -1])
def test_a_cap_below_one_is_refused(cap: int) -> None:
    with pytest.raises(ValueError, match="above 0"):
        CutEngine(ScriptedEngine({}), {}, cap=cap, closing=CLOSING)
