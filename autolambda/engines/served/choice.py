"""A choice in a server's answer: its text, and why it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autolambda.errors import EngineError, in_short
from autolambda.responses import FinishReason


def finish_of(choice: Mapping[str, Any]) -> FinishReason:
    """Returns why a choice ended. Raises ``EngineError`` if it is not whole: an error, an abort, a filter."""
    reason = choice.get("finish_reason")
    if reason not in ("stop", "length"):
        raise EngineError(f"the server gave a response that is not whole, with the finish reason {in_short(reason)}")
    return "stop" if reason == "stop" else "length"


def text_of(choice: Mapping[str, Any], think_end: str) -> str:
    """Returns the text of a choice; thinking that a reasoning parser took out is put back before its closing tag."""
    if "message" not in choice:
        return str(choice["text"])
    message = choice["message"]
    thinking = message.get("reasoning_content") or message.get("reasoning")
    content = message.get("content") or ""
    is_cut = choice.get("finish_reason") == "length" and not content
    return f"{thinking}{'' if is_cut else think_end}{content}" if thinking else str(content)
