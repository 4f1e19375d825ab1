"""The tag that closes thinking, in templates, tokens and responses of many families."""

from __future__ import annotations

import pytest

from autolambda.engines.think_tag import find_think_end, tags_in

FAMILIES = [
    "</think>", "[/THINK]", "</seed:think>", "</thought>", "</thinking>", "</reasoning>", "<|END_THINKING|>",
    "<|end_of_thought|>", "<|/think|>", "<|think_end|>", "◁/think▷", "<|inner_suffix|>", "<channel|>",
    "<|channel|>final<|message|>",
]  # fmt: skip


@pytest.mark.parametrize("tag", FAMILIES)
def test_the_tag_of_a_family_is_found_in_its_template_and_its_responses(tag):
    template = "{% if x %}{{ message.content.split('" + tag + "')[-1] }}{% endif %}"
    assert find_think_end(template, []) == (tag, "chat template")
    assert tags_in(f"I wonder{tag}7") == [tag]


@pytest.mark.parametrize("tag", FAMILIES[:-1])
def test_the_tag_of_a_family_is_found_among_its_tokens(tag):
    assert find_think_end("{{ messages }}", ["<s>", tag, "<tool_call>"]) == (tag, "added tokens")


def test_the_channels_of_gpt_oss_are_two_tokens():
    tokens = ["<|channel|>", "<|message|>", "<|end|>"]
    assert find_think_end("{{ messages }}", tokens) == ("<|channel|>final<|message|>", "added tokens")


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"), ("◁think▷", "◁/think▷"),
        ("<|START_THINKING|>", "<|END_THINKING|>"), ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ],
)  # fmt: skip
def test_a_template_that_only_opens_thinking_tells_the_closing_tag(opening, closing):
    assert find_think_end(f"assistant{opening}", []) == (closing, "chat template")


def test_the_template_goes_before_the_tokens_and_the_usual_tag_before_others():
    assert find_think_end("[/THINK]", ["</think>"]) == ("[/THINK]", "chat template")
    assert find_think_end("", ["[/THINK]", "</think>"]) == ("</think>", "added tokens")
    assert tags_in("a</thought>b", "c</think>d</thought>") == ["</think>", "</thought>"]


@pytest.mark.parametrize("text", ["", "{{ messages }}", "</answer>", "<tool_call>", "1 < 2 > 0 </b>", "thinking"])
def test_nothing_else_is_a_tag(text):
    assert find_think_end(text, [text]) is None and tags_in(text) == []
