"""The model card's section on caps on thinking: the rival of the merge, and a cap to use with it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from autolambda.driver.models import Models
from autolambda.export.provenance import Provenance
from autolambda.export.thinking_budget import OLDEST, thinking_budget
from autolambda.responses import Sample
from autolambda.statistics.words import lead, percent, percent_of, tokens_of

_ANY = Sample("", ({"role": "user", "content": "?"},), "")


def cap_section(models: Models, measurement: Provenance | None) -> Iterator[str]:
    """Yields the lines of the section; none if no cap was measured for this merge."""
    if measurement is None or not (measurement.rival or measurement.cap):
        return
    yield "## A cap on thinking"
    yield ""
    if rival := measurement.rival:
        measured = rival.result.measured
        yield (
            f"Thinking, unmerged, with its thinking cut at {rival.capped.tokens:,} tokens, answers "
            f"{percent_of(measured.accuracy)} right with {tokens_of(measured.mean_tokens)}, forced tokens included. "
            f"The merge is {lead(-rival.difference.value, rival.difference.turned)}."
        )
        yield ""
    if cap := measurement.cap:
        measured = cap.result.measured
        yield (
            f"Use this merge with a cap of {cap.capped.tokens:,} tokens on its thinking, which cuts "
            f"{percent(cap.cut_ratio)} of its responses. It then answers {percent_of(measured.accuracy)} right with "
            f"{tokens_of(measured.mean_tokens)}. Against the pick without a cap it is "
            f"{lead(cap.difference.value, cap.difference)}."
        )
        yield ""
        yield from _how(models, cap.capped.tokens, cap.capped.closing)


def _how(models: Models, cap: int, closing: str) -> Iterator[str]:
    """Yields how a server is told the cap."""
    yield f"Thinking is ended by the text `{json.dumps(closing)}`."
    found = thinking_budget(models.chat, models.chat.render(_ANY), cap=cap, closing=closing)
    if found is None:
        return
    yield f"In vLLM {OLDEST} or newer, on a GPU, start the server with"
    yield ""
    yield "```bash"
    yield f"vllm serve FOLDER --reasoning-config {shlex.quote(json.dumps(dict(found.reasoning_config)))}"
    yield "```"
    yield ""
    yield f'and send `"thinking_token_budget": {found.num_tokens}` with each request: vLLM counts from the opening tag.'
    yield ""
