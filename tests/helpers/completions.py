"""A real HTTP server that speaks OpenAI's completions in front of an engine of ours, as the tests of ``check`` need."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from local_server import Handler

from autolambda.engines.base import Engine, Prompt, Sampling
from autolambda.engines.chat import ChatFormat
from autolambda.responses import Response


@dataclass
class Completions:
    """What is served: ``engines`` by the names of their models, each with its merge set.

    ``takes`` are the forms of prompts that the server takes. It refuses the parameters ``refuses``, and after
    ``dies_after`` requests it answers 503. ``bodies`` keeps what it was asked.
    """

    engines: dict[str, Engine]
    chat: ChatFormat
    takes: Sequence[str] = ("tokens", "text", "messages")
    refuses: Sequence[str] = ()
    key: str | None = None
    dies_after: int | None = None
    counts_end: bool = True
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def text_of(self, body: dict[str, Any]) -> str | None:
        """The prompt as text, or ``None`` in a form that the server does not take."""
        prompt = body.get("prompt")
        if isinstance(prompt, list):
            return str(self.chat.tokenizer.decode(prompt)) if "tokens" in self.takes else None
        if isinstance(prompt, str):
            return prompt if "text" in self.takes else None
        text = self.chat.tokenizer.apply_chat_template(
            body["messages"], chat_template=self.chat.template, add_generation_prompt=True, tokenize=False
        )
        return str(text)

    def respond(self, body: dict[str, Any], text: str) -> Response:
        sampling = Sampling(
            temperature=body["temperature"],
            top_p=body["top_p"],
            top_k=body.get("top_k", 0),
            min_p=body.get("min_p", 0.0),
            presence_penalty=body["presence_penalty"],
            stop=(),
            max_tokens=body["max_tokens"],
        )
        with self.lock:  # an engine takes one call at a time
            return self.engines[body["model"]].generate([Prompt(text, body["seed"])], sampling)[0]


class CompletionsHandler(Handler):
    """Answers ``/v1/models``, ``/v1/completions`` and ``/v1/chat/completions``."""

    hub: Completions

    def answer(self, body: bytes) -> None:
        hub = self.hub
        if hub.key is not None and self.headers.get("Authorization") != f"Bearer {hub.key}":
            return self.send(401, {"error": {"message": f"bad key {self.headers.get('Authorization')}"}})
        if self.path == "/v1/models":
            return self.send(200, {"data": [{"id": name, "owned_by": "autolambda"} for name in hub.engines]})
        if self.path not in ("/v1/completions", "/v1/chat/completions"):
            return self.send(404, {"detail": "Not Found"})
        if self.path == "/v1/completions" and not {"tokens", "text"} & set(hub.takes):
            return self.send(404, {"detail": "Not Found"})
        return self._complete(json.loads(body))

    def _complete(self, asked: dict[str, Any]) -> None:
        hub = self.hub
        hub.bodies.append(asked)
        if hub.dies_after is not None and len(hub.bodies) > hub.dies_after:
            return self.send(503, {"error": "shutting down"})
        if refused := [name for name in hub.refuses if name in asked]:
            return self.send(400, {"error": {"message": f"Unrecognized request argument supplied: {refused[0]}"}})
        text = hub.text_of(asked)
        if text is None:
            return self.send(400, {"error": {"message": "prompt: this form is not supported"}})
        response = hub.respond(asked, text)
        num_tokens = response.num_tokens - (response.finish_reason == "stop" and not hub.counts_end)
        choice: dict[str, Any] = {"index": 0, "finish_reason": response.finish_reason}
        if "messages" in asked:
            thinking, found, content = response.text.rpartition(hub.chat.think_end)
            message = {"role": "assistant", "content": content, "reasoning_content": thinking if found else None}
            choice |= {"message": message}
        else:
            choice |= {"text": response.text}
        return self.send(200, {"choices": [choice], "usage": {"completion_tokens": num_tokens}})
