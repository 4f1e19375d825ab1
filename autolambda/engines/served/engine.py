"""A model behind an OpenAI-compatible server, as an engine whose weights are the server's own.

Prompts are rendered here by the study's template. They go to ``/completions`` as token ids, as text if the server takes
no ids, or to ``/chat/completions`` as messages if it has no completions; then the server's own template renders them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import httpx

from autolambda.engines.base import Fingerprint, Progress, Prompt, Sampling, Watch
from autolambda.engines.chat import ChatFormat
from autolambda.engines.decoder import Decoder
from autolambda.engines.served.choice import finish_of, text_of
from autolambda.engines.served.client import CONNECT_SECONDS, Refused, Server, headers, post
from autolambda.errors import AutolambdaError, EngineError
from autolambda.merging.method import Method
from autolambda.responses import Response

Form = Literal["tokens", "text", "messages"]
FORMS: tuple[Form, ...] = ("tokens", "text", "messages")
SEEDS = 1 << 31  # servers take seeds of 32 bits
TELL_SECONDS = 1.0
PROBE_SECONDS = 120.0  # of the first request, which asks for one token
_MISSING = (404, 405, 501)


@dataclass(frozen=True)
class Dialect:
    """How a server is asked: the ``form`` of prompts, and the parameters that it refuses, which are left out."""

    form: Form
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Counted:
    """Tokens of all responses of an engine: as the server counts them, and as the tokenizer does."""

    num_responses: int = 0
    server: int = 0
    tokenizer: int = 0


@dataclass
class _Sending:
    """The requests of one call: ``slots`` for those that run at a time, and the first failure, which sends no more."""

    slots: asyncio.Semaphore
    failure: AutolambdaError | None = None


class ServedEngine:
    """Implements ``base.Engine`` for one model of a server. ``found`` tells how it went."""

    streams = True

    def __init__(
        self,
        server: Server,
        model: str,
        chat: ChatFormat,
        *,
        messages: Mapping[str, Sequence[Mapping[str, str]]],
        concurrency: int,
        timeout: float,
        on_note: Callable[[str], None],
    ) -> None:
        """``messages`` are those of each rendered prompt. At most ``concurrency`` requests run at a time.

        A request may take ``timeout`` seconds. ``on_note`` is told what the server refuses.
        """
        self.in_words = f"{model} on {server.software}"
        self.counted, self.dialect = Counted(), Dialect("tokens")
        self._server, self._model, self._chat, self._messages = server, model, chat, messages
        self._concurrency, self._timeout, self._on_note = concurrency, timeout, on_note
        self._is_known = False

    def found(self) -> dict[str, Any]:
        """Returns how the server was asked, and the mean tokens of a response by both counts."""
        num = self.counted.num_responses
        counts = {name: getattr(self.counted, name) / num if num else None for name in ("server", "tokenizer")}
        tokens = {f"{name}_tokens": count for name, count in counts.items()}
        left_out = tuple(name for name in self.dialect.left_out if name in DRAWN)
        return {"form": self.dialect.form, "left_out": left_out, **tokens}

    def set_merge(self, method: Method) -> None:
        """Does nothing: the server holds its own weights."""

    def fingerprint(self) -> Fingerprint:
        """Returns no hash, because a server does not tell its weights."""
        return Fingerprint("", whole=False)

    def close(self) -> None:
        """Does nothing: the server is the user's."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        """Returns one response per prompt, in order. Raises ``ConfigError`` and ``EngineError``."""
        return asyncio.run(self._generate(prompts, sampling, watch))

    async def _generate(self, prompts: Sequence[Prompt], sampling: Sampling, watch: Watch | None) -> list[Response]:
        times = httpx.Timeout(self._timeout, connect=CONNECT_SECONDS, pool=None)
        limits = httpx.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency)
        async with httpx.AsyncClient(timeout=times, limits=limits, headers=headers()) as http:
            if not self._is_known:
                self.dialect, self._is_known = await self._agree(http, prompts[0], sampling), True
            sending = _Sending(asyncio.Semaphore(self._concurrency))
            tasks = [asyncio.create_task(self._respond(http, prompt, sampling, sending)) for prompt in prompts]
            running = {task: index for index, task in enumerate(tasks)}
            try:
                responses = await self._collect(running, watch)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
            if sending.failure is not None:
                raise sending.failure
            return responses

    async def _collect(
        self, running: Mapping[asyncio.Task[Response | None], int], watch: Watch | None
    ) -> list[Response]:
        responses: list[Response | None] = [None] * len(running)
        pending = set(running)
        while pending:
            done, pending = await asyncio.wait(pending, timeout=TELL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                responses[running[task]] = task.result()
            lengths = [each.num_tokens if each else 0 for each in responses]
            if watch is not None and not watch(Progress(lengths, responses)):
                break
        return [each or Response("", 0, "aborted") for each in responses]

    async def _agree(self, http: httpx.AsyncClient, prompt: Prompt, sampling: Sampling) -> Dialect:
        """Returns how the server is asked, found with one token. Raises ``EngineError`` if it takes no form."""
        problem = ""
        for form in FORMS:
            dialect = Dialect(form)
            while True:
                try:
                    probe = replace(sampling, max_tokens=1)
                    await self._ask(http, prompt, probe, dialect, timeout=min(self._timeout, PROBE_SECONDS))
                except Refused as error:
                    problem = str(error)
                    extras = [name for name in self._extras(sampling) if name not in dialect.left_out]
                    if error.status in _MISSING or not extras:
                        break
                    refused = [name for name in extras if name in error.message] or extras
                    dialect = Dialect(form, (*dialect.left_out, *refused))
                    continue
                self._tell(dialect)
                return dialect
        raise EngineError(f"the server at '{self._server.url}' takes no request for {self._model} ({problem})")

    def _tell(self, dialect: Dialect) -> None:
        drawn = [name for name in dialect.left_out if name in DRAWN]
        if drawn:
            self._on_note(f"the server refuses {', '.join(drawn)}: its responses are drawn without")
        if dialect.form == "messages":
            self._on_note("the server has no completions: its own chat template renders the prompts, not the study's")

    def _extras(self, sampling: Sampling, *, num_prompt_tokens: int = 0) -> dict[str, Any]:
        """The parameters beyond OpenAI's. llama.cpp names the repetition penalty, and limits penalties to 64 tokens."""
        penalty, window = sampling.repetition_penalty, num_prompt_tokens + sampling.max_tokens
        drawn = {"top_k": sampling.top_k, "min_p": sampling.min_p, "repetition_penalty": penalty}
        return {**drawn, "repeat_penalty": penalty, "repeat_last_n": window, **WHOLE}

    async def _ask(
        self,
        http: httpx.AsyncClient,
        prompt: Prompt,
        sampling: Sampling,
        dialect: Dialect,
        *,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        ids = self._ids(prompt.text)
        extras = self._extras(sampling, num_prompt_tokens=len(ids))
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "seed": prompt.seed % SEEDS,
            **({"stop": list(sampling.stop)} if sampling.stop else {}),
            **{name: value for name, value in extras.items() if name not in dialect.left_out},
        }
        if dialect.form == "messages":
            body["messages"] = [dict(each) for each in self._messages[prompt.text]]
            return await post(http, f"{self._server.url}/chat/completions", body, timeout=timeout)
        body["prompt"] = prompt.text if dialect.form == "text" else ids
        return await post(http, f"{self._server.url}/completions", body, timeout=timeout)

    async def _respond(
        self, http: httpx.AsyncClient, prompt: Prompt, sampling: Sampling, sending: _Sending
    ) -> Response | None:
        """Returns a response, or ``None`` after a failure, which is noted; requests that run then are awaited."""
        async with sending.slots:
            if sending.failure is not None:
                return None
            try:
                return self._read(await self._ask(http, prompt, sampling, self.dialect), sampling)
            except Refused as error:
                failure: AutolambdaError = EngineError(
                    f"the server at '{self._server.url}' refuses a request ({error})"
                )
            except AutolambdaError as error:
                failure = error
            sending.failure = sending.failure or failure
            return None

    def _read(self, answer: Mapping[str, Any], sampling: Sampling) -> Response:
        """Returns the response in a server's answer. Raises ``EngineError`` if it holds none."""
        try:
            choice = answer["choices"][0]
            usage = (answer.get("usage") or {}).get("completion_tokens")
            finish = finish_of(choice)
            text = text_of(choice, self._chat.think_end)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise EngineError(f"the server at '{self._server.url}' answers without a text") from error
        ids = choice.get("token_ids")
        if isinstance(ids, list) and ids:
            decoder = Decoder(self._chat.tokenizer, frozenset(sampling.end_ids or ()), sampling.stop)
            text = decoder.response(ids, finish).text
        for end in sampling.end_ids or ():
            text = text.removesuffix(str(self._chat.tokenizer.decode([end])))
        counted = len(ids) if isinstance(ids, list) and ids else len(self._ids(text)) + (finish == "stop")
        num_tokens = usage if type(usage) is int and usage > 0 else counted
        of = self.counted
        self.counted = Counted(of.num_responses + 1, of.server + num_tokens, of.tokenizer + counted)
        return Response(text, num_tokens, finish)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._chat.tokenizer(text, add_special_tokens=False).input_ids
        return ids


DRAWN = frozenset({"top_k", "min_p", "repetition_penalty"})
WHOLE = {"skip_special_tokens": False, "return_token_ids": True}
"""Asks vLLM for the whole response, because ``</think>`` is a special token of some tokenizers."""
