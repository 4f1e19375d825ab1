"""Drawing tokens: the distribution against a plain reference, and the streams of random numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from autolambda.engines.base import Sampling
from autolambda.engines.transformers import sampling as sampling_module
from autolambda.engines.transformers.sampling import RandomRows, TokenCounts, draw

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = Sampling(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0, stop=(), max_tokens=1)
LOGITS = [0.3, 2.0, -1.0, 1.1, 1.4, -math.inf, 0.0, 1.9]


def penalised(logits: Sequence[float], sampling: Sampling, num_seen: Sequence[int], prompt: Sequence[int]):
    """The logits after the penalties: to tokens that were generated ``num_seen`` times, or are in the prompt."""
    for i, (value, num) in enumerate(zip(logits, num_seen, strict=True)):
        if num or i in prompt:
            factor = sampling.repetition_penalty
            value = value / factor if value > 0 else value * factor
        yield value - sampling.frequency_penalty * num - sampling.presence_penalty * bool(num)


def reference(
    logits: Sequence[float], sampling: Sampling, num_seen: Sequence[int] = (0,) * 8, prompt: Sequence[int] = ()
) -> list[float]:
    """The probability of each token, in plain Python."""
    values = list(penalised(logits, sampling, num_seen, prompt))
    weights = [math.exp(x / sampling.temperature) for x in values]
    kept = sorted(range(len(weights)), key=lambda i: (-weights[i], i))[: sampling.top_k or None]
    kept = [i for i in kept if weights[i] >= sampling.min_p * weights[kept[0]]]
    total, before, nucleus = sum(weights[i] for i in kept), 0.0, []
    for i in kept:
        if before < sampling.top_p * total:
            nucleus.append(i)
        before += weights[i]
    total = sum(weights[i] for i in nucleus)
    return [weights[i] / total if i in nucleus else 0.0 for i in range(len(weights))]


def drawn(logits: Sequence[float], uniform: torch.Tensor, sampling: Sampling, num_seen=(), prompt=()) -> torch.Tensor:
    num = len(uniform)
    counts = TokenCounts.needed_for(sampling, [prompt] * num, vocab_size=len(logits), device=torch.device("cpu"))
    if counts is not None:
        for token, times in enumerate(num_seen):
            for _ in range(times):
                counts.add(torch.full((num,), token))
    return draw(torch.tensor([logits]).expand(num, -1), uniform, sampling, counts)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"temperature": 0.6}, {"temperature": 2.0}, {"top_k": 1}, {"top_k": 3}, {"top_k": 8}, {"top_k": 50},
        {"top_p": 0.5}, {"top_p": 0.9}, {"top_p": 1e-6}, {"min_p": 0.3}, {"min_p": 1.0}, {"presence_penalty": 1.5},
        {"presence_penalty": -1.0}, {"temperature": 0.7, "top_k": 4, "top_p": 0.8, "min_p": 0.1},
        {"temperature": 1.5, "top_k": 5, "min_p": 0.4, "presence_penalty": 0.8}, {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.5}, {"frequency_penalty": 0.9}, {"frequency_penalty": -0.4},
        {"repetition_penalty": 1.2, "frequency_penalty": 0.3, "presence_penalty": 0.2, "top_p": 0.9},
    ],
    ids=str,
)  # fmt: skip
def test_the_distribution_is_the_reference(changes):
    sampling = replace(PLAIN, **changes)
    num_seen, prompt = [i % 3 for i in range(len(LOGITS))], (0, 3, 5)
    expected = np.array(reference(LOGITS, sampling, num_seen, prompt))
    num = 20_000
    uniform = torch.rand(num, generator=torch.Generator().manual_seed(3))
    counts = np.bincount(drawn(LOGITS, uniform, sampling, num_seen, prompt).numpy(), minlength=len(LOGITS))
    assert (counts[expected == 0] == 0).all()
    possible = expected > 0
    assert counts[possible].sum() == num
    if possible.sum() > 1:
        assert stats.chisquare(counts[possible], expected[possible] * num).pvalue > 1e-3


@pytest.mark.parametrize("sampling", [PLAIN, replace(PLAIN, top_k=5), replace(PLAIN, top_p=0.8)], ids=str)
def test_a_token_is_the_inverse_of_the_cumulative_distribution(sampling):
    """On a fine grid of u, the shares are the probabilities to the grid's width, most likely token first."""
    num = 10_000
    tokens = drawn(LOGITS, torch.arange(num) / num, sampling)
    expected = reference(LOGITS, sampling)
    assert np.bincount(tokens, minlength=8) / num == pytest.approx(expected, abs=2 / num)
    ranks = sorted(range(8), key=lambda i: -expected[i])
    assert [ranks.index(token) for token in tokens.unique_consecutive().tolist()] == list(
        range(sum(map(bool, expected)))
    )


@pytest.mark.parametrize("u", [1 - 2**-24, 1.0])
@pytest.mark.parametrize("sampling", [PLAIN, replace(PLAIN, top_k=7), replace(PLAIN, top_p=0.99)], ids=str)
def test_u_next_to_one_takes_a_possible_token(u, sampling):
    logits = torch.randn(64, 5000, generator=torch.Generator().manual_seed(0)) * 3
    logits[:, 100:] = -torch.inf
    tokens = draw(logits, torch.full((64,), u), sampling, None)
    assert (tokens < 100).all()


def test_ties_are_shared_fairly_and_greedy_takes_the_first():
    uniform = torch.arange(900) / 900
    assert np.bincount(drawn([1.0, 1.0, 1.0], uniform, PLAIN)).tolist() == pytest.approx([300] * 3, abs=1)
    assert set(drawn([0.0, 1.0, 1.0], uniform, replace(PLAIN, temperature=0.0)).tolist()) == {1}


def test_greedy_minds_the_presence_penalty_only():
    greedy = replace(PLAIN, temperature=0.0, top_k=1, presence_penalty=0.5)
    seen = [False] * 8
    assert drawn(LOGITS, torch.zeros(1), greedy, seen).tolist() == [1]
    seen[1] = True
    assert drawn(LOGITS, torch.zeros(1), greedy, seen).tolist() == [7]


@pytest.mark.parametrize("temperature", [1e-6, 1e-30])
def test_a_temperature_near_zero_is_greedy(temperature):
    sampling = replace(PLAIN, temperature=temperature)
    assert set(drawn([80.0, 90.0, -90.0], torch.arange(100) / 100, sampling).tolist()) == {1}


def test_low_precision_logits_are_drawn_in_float32():
    logits = torch.tensor([[0.0, 1.0, 0.5]], dtype=torch.bfloat16).expand(1000, -1)
    uniform = torch.arange(1000) / 1000
    assert torch.equal(draw(logits, uniform, PLAIN, None), draw(logits.float(), uniform, PLAIN, None))


def test_a_rows_token_does_not_depend_on_its_neighbours():
    logits = torch.randn(37, 300, generator=torch.Generator().manual_seed(1))
    uniform = torch.rand(37, generator=torch.Generator().manual_seed(2))
    for sampling in (PLAIN, replace(PLAIN, top_k=20, top_p=0.9, temperature=0.7), replace(PLAIN, min_p=0.05)):
        together = draw(logits, uniform, sampling, None)
        alone = [draw(logits[i : i + 1], uniform[i : i + 1], sampling, None) for i in range(37)]
        assert torch.equal(together, torch.cat(alone))


def stream(seed: int, num: int) -> np.ndarray:
    rows = RandomRows([seed])
    return np.array([rows.at(step, [0]).item() for step in range(num)])


def test_streams_depend_on_seed_and_step_alone():
    rows = RandomRows([5, 6, 7])
    places = [[0, 1, 2]] * 300 + [[2, 0]] * 300  # row 1 is dropped, the others swap
    seen = [rows.at(step, place) for step, place in enumerate(places)]
    third = [float(u[2]) for u in seen[:300]] + [float(u[0]) for u in seen[300:]]
    assert third == stream(7, 600).tolist()
    assert all(float(u.min()) >= 0 and float(u.max()) < 1 for u in seen)


def test_neighbouring_seeds_are_unrelated():
    streams = np.stack([stream(seed, 400) for seed in (0, 1, 2, 3, 2**62, 2**62 + 1)])
    correlations = np.corrcoef(streams)[np.triu_indices(len(streams), 1)]
    assert np.abs(correlations).max() < 0.2
    shifted = [np.corrcoef(streams[0][k:], streams[1][: 400 - k])[0, 1] for k in range(1, 20)]
    assert np.abs(shifted).max() < 0.25
    firsts = [stream(seed, 1)[0] for seed in range(500)]
    assert stats.kstest(firsts, "uniform").pvalue > 1e-3
    assert len(set(firsts)) == 500


@pytest.mark.parametrize("spread", [0.5, 3.0, 8.0], ids=["flat", "as in a model", "peaked"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"top_p": 0.95}, {"top_p": 0.3}, {"min_p": 0.02}, {"top_p": 0.95, "min_p": 0.02}, {"temperature": 0.01}],
    ids=str,
)
def test_a_large_vocabulary_is_sorted_only_where_the_draw_needs_it(
    spread: float, changes: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest logits alone give the tokens of the whole sort; a flat distribution is sorted whole."""
    generator = torch.Generator().manual_seed(1)
    logits, uniform = spread * torch.randn(256, 8192, generator=generator), torch.rand(256, generator=generator)
    sampling, num_sorted = replace(PLAIN, **changes), []
    sort = sampling_module._sorted
    monkeypatch.setattr(sampling_module, "_sorted", lambda rows: num_sorted.append(len(rows)) or sort(rows))
    few = draw(logits, uniform, sampling)
    if spread == 8.0:
        assert not num_sorted
    if spread == 0.5 and changes in ({}, {"top_p": 0.95}):
        assert sum(num_sorted) > 0
    monkeypatch.setattr(sampling_module, "_LARGEST", 8192)
    assert torch.equal(few, draw(logits, uniform, sampling))
    assert num_sorted[-1] == 256
