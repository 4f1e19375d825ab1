"""The requests of one call of the vLLM engine: sent at once, followed while they generate, aborted if asked."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from transformers import PreTrainedTokenizerBase

from autolambda.engines.base import WATCH_STEPS, Progress, Prompt, Sampling, Watch
from autolambda.engines.decoder import Decoder, encode
from autolambda.engines.vllm.process import held
from autolambda.errors import EngineError
from autolambda.responses import Response

MOST_KEPT = 4_000_000  # tokens, about 150 MB


class PromptIds:
    """The token ids of prompts. Every schedule answers the same ones, so those used last are kept."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, most: int = MOST_KEPT) -> None:
        """Keeps at most about ``most`` tokens."""
        self._tokenizer, self._most = tokenizer, most
        self._kept: OrderedDict[str, list[int]] = OrderedDict()
        self._num_tokens = 0

    def of(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Returns the token ids of each prompt."""
        new = list({prompt.text: prompt for prompt in prompts if prompt.text not in self._kept}.values())
        for prompt, ids in zip(new, encode(self._tokenizer, new) if new else [], strict=True):
            self._kept[prompt.text] = ids
            self._num_tokens += len(ids)
        found = [self._kept[prompt.text] for prompt in prompts]
        for prompt in prompts:
            self._kept.move_to_end(prompt.text)
        while self._num_tokens > self._most:
            self._num_tokens -= len(self._kept.popitem(last=False)[1])
        return found


class Call:
    """The tokens of each request so far, and the finished responses."""

    def __init__(
        self, engine: Any, decoder: Decoder, number: int, errors: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        """``errors`` translates the errors of vLLM in a block, given what it does."""
        self._engine, self._decoder, self._number, self._errors = engine, decoder, number, errors
        self._tokens: list[list[int]] = []
        self._num_tokens: list[int] = []
        self._responses: list[Response | None] = []

    def add(self, ids: Sequence[list[int]], params: Sequence[Any]) -> None:
        """Sends all prompts to vLLM, in order, each with its ``SamplingParams``."""
        with self._errors("taking the prompts"), held(self._engine.engine_core):
            for i, (prompt, each) in enumerate(zip(ids, params, strict=True)):
                self._engine.add_request(f"{self._number}-{i}", _token_prompt(prompt), each)
        self._tokens = [[] for _ in ids]
        self._num_tokens = [0] * len(ids)
        self._responses = [None] * len(ids)

    def run(self, watch: Watch | None) -> None:
        """Generates until all responses are finished, or until ``watch`` aborts."""
        progress = Progress(self._num_tokens, self._responses)
        for step in itertools.count(1):
            with self._errors("generating"):
                if not self._engine.has_unfinished_requests():
                    return
                outputs = self._engine.step()
            finished = [self._take(output) for output in outputs]
            if watch and (any(finished) or step % WATCH_STEPS == 0) and not watch(progress):
                self._abort()
                return

    def responses(self) -> list[Response]:
        """Returns the responses in the order of the prompts; unfinished ones were aborted."""
        return [
            response or self._decoder.response(tokens, "aborted")
            for response, tokens in zip(self._responses, self._tokens, strict=True)
        ]

    def _take(self, output: Any) -> bool:
        """Adds a request's new tokens; returns whether it is finished."""
        i, completion = int(output.request_id.rpartition("-")[2]), output.outputs[0]
        self._tokens[i] += completion.token_ids
        self._num_tokens[i] = len(self._tokens[i])
        if output.finished:
            if completion.finish_reason not in ("stop", "length"):
                raise EngineError(f"vLLM ended a response with the reason {completion.finish_reason!r}")
            self._responses[i] = self._decoder.response(self._tokens[i], completion.finish_reason)
        return bool(output.finished)

    def _abort(self) -> None:
        running = [f"{self._number}-{i}" for i, response in enumerate(self._responses) if response is None]
        with self._errors("aborting"):
            self._engine.abort_request(running)
            while self._engine.has_unfinished_requests():
                self._engine.step()


def _token_prompt(ids: list[int]) -> dict[str, Any]:
    """Returns a prompt as vLLM's renderer would make it. Prompts without a type are deprecated."""
    return {"type": "token", "prompt_token_ids": ids}


def sampling_params(sampling: Sampling, end_ids: frozenset[int], seed: int | None = None) -> Any:
    """Returns vLLM's ``SamplingParams``. They name all end tokens, so the model's own config has no effect.

    With a ``seed``, a request draws its tokens from its own stream of random numbers.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        stop=list(sampling.stop),
        max_tokens=sampling.max_tokens,
        stop_token_ids=sorted(end_ids),
        ignore_eos=True,
        seed=seed,
        detokenize=bool(sampling.stop),
        skip_special_tokens=False,
        output_kind=RequestOutputKind.DELTA,
    )
