"""A call shared among workers: how prompts are cut into batches, and which responses of a batch are kept."""

from __future__ import annotations

import pytest

from autolambda.engines.base import Progress, Prompt, Sampling
from autolambda.engines.workers.batches import CallState, Update, cut
from autolambda.merging.method import Method
from autolambda.responses import Response
from autolambda.schedule import Schedule

SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0, stop=(), max_tokens=200)
HALF = Method.linear(Schedule.uniform(0.5))


def call_of(num: int) -> CallState:
    return CallState([Prompt(f"p{i}", i) for i in range(num)], HALF, SAMPLING)


def done(num_tokens: int) -> Response:
    return Response("x", num_tokens, "stop")


@pytest.mark.parametrize(
    ("num_prompts", "num_workers", "batch_size", "sizes"),
    [
        (128, 2, 256, [64, 64]),  # small rungs are shared too
        (384, 2, 256, [192, 192]),
        (1536, 2, 256, [256] * 6),
        (600, 2, 256, [160, 160, 160, 120]),  # as many batches for each worker, in steps of 16
        (100, 4, 256, [32, 32, 32, 4]),
        (5, 4, 256, [5]),  # a batch is padded to 16 in any case
        (0, 4, 256, []),
        (10, 3, None, [4, 3, 3]),
        (2, 3, None, [1, 1]),
    ],
)
def test_prompts_are_cut_evenly(num_prompts, num_workers, batch_size, sizes):
    batches = cut(range(num_prompts), num_workers=num_workers, batch_size=batch_size)
    assert [len(batch) for batch in batches] == sizes
    assert sorted(place for batch in batches for place in batch) == list(range(num_prompts))
    if batch_size is None:
        assert all(batch[0] == number for number, batch in enumerate(batches))  # all begin at the front
    else:
        assert [place for batch in batches for place in batch] == list(range(num_prompts))


def test_a_call_knows_how_far_each_prompt_is():
    call = call_of(4)
    batch = call.batch(1, (1, 3))
    assert (batch.prompts, batch.method, batch.sampling) == ((Prompt("p1", 1), Prompt("p3", 3)), HALF, SAMPLING)
    call.take(batch, Update())  # nothing yet
    call.take(batch, Update([5, 6], {0: done(5)}))
    assert call.progress(range(1, 4)) == Progress([5, 0, 6], [done(5), None, None])
    assert call.unfinished(batch) == [3]
    call.take(batch, Update([5, 9], {1: done(9)}, is_last=True))
    assert call.unfinished(batch) == [] and call.release(batch) == []
    assert call.progress(range(4)) == Progress([0, 5, 0, 9], [None, done(5), None, done(9)])


def test_of_a_lost_batch_the_first_responses_are_kept():
    """Not the short ones behind a long one: that would give the long one a second chance to be short."""
    call = call_of(8)
    batch, other = call.batch(1, (0, 2, 4, 6)), call.batch(2, (1, 3, 5, 7))
    call.take(batch, Update([5, 6, 5, 5], {0: done(5), 2: done(5), 3: done(5)}))
    assert call.release(batch) == [2, 4, 6]
    assert call.responses[::2] == [done(5), None, None, None] and call.num_tokens[::2] == [5, 0, 0, 0]
    call.take(batch, Update([5, 9, 5, 5], {1: done(9)}, is_last=True))  # it answers again, too late
    assert call.responses[2] is None and not call.unfinished(batch) and call.unfinished(other) == [1, 3, 5, 7]
    again = call.batch(3, (2, 4, 6))
    call.take(again, Update([7, 8, 9], {0: done(7), 1: done(8), 2: done(9)}, is_last=True))
    assert call.num_tokens[::2] == [5, 7, 8, 9]


def test_deaths_are_counted_by_prompt():
    call = call_of(3)
    first = call.batch(1, (0, 1))
    call.take(first, Update([5, 6], {0: done(5)}))
    assert call.count_death(first) == 1
    assert call.release(first) == [1]
    assert call.count_death(first) == 0  # no longer its prompts
    second = call.batch(2, (1, 2))
    assert call.count_death(second) == 2
