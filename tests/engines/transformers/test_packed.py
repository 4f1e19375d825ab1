"""Packed weights belong to one merge, and change no response."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import Linear

from autolambda.engines.base import Prompt, Sampling
from autolambda.engines.chat import load_tokenizer
from autolambda.engines.transformers import packed
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.engines.transformers.packed import PackedLinears, packed_bytes
from autolambda.merging.method import Method
from autolambda.merging.pair import open_pair
from autolambda.schedule import Schedule

pytestmark = pytest.mark.usefixtures("one_thread")

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0, stop=(), max_tokens=40)
PROMPTS = [Prompt("abcdefgh"[i % 5 : 5 + i % 4], i) for i in range(40)]


@pytest.fixture
def open_engine(parents: tuple[Path, Path]):
    pair = open_pair(*map(str, parents))
    return lambda: TransformersEngine(pair, tokenizer=load_tokenizer(parents[1]), device="cpu")


def num_packed(engine: TransformersEngine) -> int:
    return sum("forward" in vars(each) for each in engine._model.modules())


def test_small_weights_are_not_packed(open_engine):
    assert num_packed(open_engine()) == 0


def test_the_memory_of_the_copies_is_known_before_the_model_is_loaded(open_engine, parents, monkeypatch):
    pair = open_pair(*map(str, parents))
    assert packed_bytes(pair, dtype=torch.float32) == 0  # every weight is small
    monkeypatch.setattr(packed, "SMALLEST", 1)
    linears = [each for each in open_engine()._model.modules() if "forward" in vars(each)]
    assert packed_bytes(pair, dtype=torch.float32) == sum(each.weight.nbytes for each in linears) > 0
    assert packed_bytes(pair, dtype=torch.bfloat16) == 0
    monkeypatch.setattr(packed, "MOST_BYTES", 1000)
    assert packed_bytes(pair, dtype=torch.float32) == 0


def test_nothing_packed_survives_a_switch(open_engine, monkeypatch):
    plain = open_engine()
    monkeypatch.setattr(packed, "SMALLEST", 1)
    engine = open_engine()
    assert num_packed(engine) == sum(type(each) is Linear for each in engine._model.modules())
    answers = []
    for lam in (0.1, 0.9, 0.1):
        for each in (engine, plain):
            each.set_merge(Method.linear(Schedule.uniform(lam)))
        answers.append(engine.generate(PROMPTS, GREEDY))
        assert answers[-1] == plain.generate(PROMPTS, GREEDY)
        assert engine.fingerprint() == plain.fingerprint()
    assert answers[0] == answers[2] != answers[1]


def test_greedy_responses_do_not_depend_on_the_batch(open_engine, monkeypatch):
    monkeypatch.setattr(packed, "SMALLEST", 1)
    engine = open_engine()
    together = engine.generate(PROMPTS, GREEDY)
    assert [engine.generate([prompt], GREEDY)[0] for prompt in PROMPTS] == together


def test_copies_that_take_too_much_memory_are_not_made(open_engine, monkeypatch):
    monkeypatch.setattr(packed, "SMALLEST", 1)
    monkeypatch.setattr(packed, "MOST_BYTES", 1000)
    assert num_packed(open_engine()) == 0


@pytest.mark.parametrize("bias", [False, True])
def test_the_product_is_the_linear_layers(bias):
    linear, x = Linear(640, 512, bias=bias), torch.randn(3, 5, 640)
    with torch.inference_mode():
        expected = linear(x)
        PackedLinears(torch.nn.Sequential(linear)).renew()
        assert "forward" in vars(linear)
        torch.testing.assert_close(linear(x), expected)
