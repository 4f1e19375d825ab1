"""A model behind a server as an engine: failures, and what counts as a whole response."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from local_server import Handler, served
from small_search import small_config

from autolambda.driver.models import open_models
from autolambda.engines.base import Progress, Prompt, Sampling
from autolambda.engines.chat import ChatFormat
from autolambda.engines.served import client
from autolambda.engines.served.client import Server
from autolambda.engines.served.engine import ServedEngine
from autolambda.errors import EngineError
from autolambda.responses import Response

WHOLE = {"choices": [{"text": "4", "finish_reason": "stop"}], "usage": {"completion_tokens": 2}}


@dataclass
class BySeed:
    """What the request of each seed is answered: seconds, a status and its content; others are answered at once."""

    answers: dict[int, tuple[float, int, object]] = field(default_factory=dict)
    only_chat: bool = False
    refuses: Sequence[str] = ()
    url: str = ""
    asked: list[int] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)


class BySeedHandler(Handler):
    hub: BySeed

    def answer(self, body: bytes) -> None:
        asked: dict[str, Any] = json.loads(body)
        if self.path == "/v1/completions" and self.hub.only_chat:
            return self.send(404, {})
        if refused := [name for name in self.hub.refuses if name in asked]:
            return self.send(400, {"error": {"message": f"{refused[0]}: not known"}})
        if asked["max_tokens"] == 1:
            return self.send(200, WHOLE)
        self.hub.asked.append(asked["seed"])
        self.hub.bodies.append(asked)
        seconds, status, content = self.hub.answers.get(asked["seed"], (0.0, 200, WHOLE))
        time.sleep(seconds)
        return self.send(status, content)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[BySeed]:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.001)
    monkeypatch.delenv(client.KEY, raising=False)
    with served(BySeed(), BySeedHandler) as found:
        yield found


@functools.cache
def chat() -> ChatFormat:
    return open_models(small_config()).chat


@dataclass
class Made:
    """What a call made: its responses, what was seen of them last, and the engine's notes."""

    responses: list[Response] = field(default_factory=list)
    seen: Sequence[Response | None] = ()
    notes: list[str] = field(default_factory=list)

    def generate(self, hub: BySeed, num_prompts: int = 1, **settings: Any) -> None:
        def watch(progress: Progress) -> bool:
            self.seen = list(progress.responses)
            return True

        prompts = [Prompt(f"{seed}", seed) for seed in range(num_prompts)]
        engine = ServedEngine(
            Server(f"{hub.url}/v1", "me", None),
            "m",
            settings.pop("chat", chat()),
            messages={prompt.text: [{"role": "user", "content": prompt.text}] for prompt in prompts},
            concurrency=2,
            timeout=settings.pop("timeout", 5.0),
            on_note=self.notes.append,
        )
        sampling = Sampling(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0, stop=(), max_tokens=8)
        self.responses = engine.generate(prompts, replace(sampling, **settings), watch=watch)


def test_after_a_failure_no_request_starts_and_those_that_run_are_taken(hub: BySeed) -> None:
    hub.answers = {0: (0.3, 200, WHOLE), 1: (0.0, 400, {"error": {"message": "too long"}})}
    made = Made()
    with pytest.raises(EngineError, match=r"refuses a request \(400: too long"):
        made.generate(hub, num_prompts=6)
    assert sorted(hub.asked) == [0, 1] and [each is not None for each in made.seen] == [True, *(5 * [False])]


def test_penalties_count_all_tokens_on_llama_cpp_too(hub: BySeed) -> None:
    """Its server counts the last 64 tokens unless it is told, and takes no -1."""
    Made().generate(hub, repetition_penalty=1.3, presence_penalty=0.5, max_tokens=100)
    [body] = hub.bodies
    assert (body["repeat_penalty"], body["presence_penalty"]) == (1.3, 0.5)
    assert body["repeat_last_n"] == len(body["prompt"]) + 100
