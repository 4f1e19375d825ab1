"""What vLLM's reasoning parsers make of a text without the closing tag, as every model card states it."""

from __future__ import annotations

import pytest
from checkpoints import tiny_tokenizer
from vllm_engines import needs_vllm


@needs_vllm
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of vLLM's own imports
@pytest.mark.parametrize(
    ("text", "by_deepseek", "by_qwen"),
    [
        ("plan</think>The answer is 4", ("plan", "The answer is 4"), ("plan", "The answer is 4")),
        ("The answer is 4", ("The answer is 4", None), ("The answer is 4", None)),
        ("plan <tool_call>4", ("plan <tool_call>4", None), ("plan ", "<tool_call>4")),
    ],
)
def test_a_text_without_the_tag_is_all_reasoning(
    text: str, by_deepseek: tuple[str, str | None], by_qwen: tuple[str, str | None]
) -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.reasoning import ReasoningParserManager

    request = ChatCompletionRequest(messages=[{"role": "user", "content": "2+2"}], model="m")
    for name, expected in (("deepseek_r1", by_deepseek), ("qwen3", by_qwen)):
        parser = ReasoningParserManager.get_reasoning_parser(name)(tiny_tokenizer())
        assert parser.extract_reasoning(text, request) == expected, name
