"""The token ids of prompts: made once, and not kept for ever."""

import pytest
from checkpoints import tiny_checkpoint

from autolambda.engines.base import Prompt
from autolambda.engines.chat import load_tokenizer
from autolambda.engines.vllm import requests
from autolambda.engines.vllm.requests import PromptIds


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(tiny_checkpoint(tmp_path_factory.mktemp("model") / "one"))


@pytest.fixture
def encoded(monkeypatch):
    """The texts that were tokenized, in order."""
    texts, encode = [], requests.encode

    def counted(tokenizer, prompts):
        texts.extend(prompt.text for prompt in prompts)
        return encode(tokenizer, prompts)

    monkeypatch.setattr(requests, "encode", counted)
    return texts


def prompts(*texts):
    return [Prompt(text, seed) for seed, text in enumerate(texts)]


def test_a_text_is_tokenized_once(tokenizer, encoded):
    ids = PromptIds(tokenizer)
    first = ids.of(prompts("abc", "de", "abc"))
    assert first[0] == first[2] != first[1] and len(first[1]) == 2
    assert ids.of(prompts("de", "abc")) == [first[1], first[0]]
    assert ids.of([]) == []
    assert encoded == ["abc", "de"]


def test_those_used_last_are_kept(tokenizer, encoded):
    """Continuations of a capped response come once; the study's prompts come again."""
    ids = PromptIds(tokenizer, most=10)
    ids.of(prompts("aaaa", "bbbb"))
    ids.of(prompts("aaaa"))
    ids.of(prompts("cccc"))
    encoded.clear()
    ids.of(prompts("aaaa", "cccc"))
    assert encoded == []
    ids.of(prompts("bbbb"))
    assert encoded == ["bbbb"]


def test_a_call_may_be_larger_than_what_is_kept(tokenizer):
    ids = PromptIds(tokenizer, most=3)
    assert [len(each) for each in ids.of(prompts("aaaa", "bbbb", "aaaa"))] == [4, 4, 4]
