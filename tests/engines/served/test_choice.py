"""What a choice of a server says: its text with the thinking that a parser took out, and why it ended."""

from __future__ import annotations

import pytest

from autolambda.engines.served.choice import finish_of, text_of
from autolambda.errors import EngineError


@pytest.mark.parametrize(
    ("message", "reason", "text"),
    [
        ({"content": "7"}, "stop", "7"),
        ({"reasoning_content": "3+4", "content": "7"}, "stop", "3+4</think>7"),
        ({"reasoning": "3+4", "content": None}, "stop", "3+4</think>"),
        ({"reasoning": "3+", "content": None}, "length", "3+"),
    ],
)
def test_thinking_is_closed_only_where_the_model_closed_it(message: dict[str, str], reason: str, text: str) -> None:
    assert text_of({"message": message, "finish_reason": reason}, "</think>") == text


@pytest.mark.parametrize("reason", ["abort", "content_filter", "error", None])
def test_a_response_that_is_not_whole_is_not_taken(reason: str | None) -> None:
    with pytest.raises(EngineError, match="not whole, with the finish reason"):
        finish_of({"text": "7", "finish_reason": reason})
