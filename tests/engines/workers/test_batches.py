"""Pieces of a call: how rows are cut, what is kept of them, and that a watcher is asked what one engine would ask."""

from __future__ import annotations

import itertools
import random
from array import array
from dataclasses import dataclass

import pytest

from autolambda.engines.base import WATCH_STEPS, Progress, Prompt, Sampling
from autolambda.engines.workers.batches import AsTheyCome, Finished, InStep, News, Rows, cut
from autolambda.merging.method import Method
from autolambda.responses import Response
from autolambda.schedule import Schedule

SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0, stop=(), max_tokens=200)
HALF = Method.linear(Schedule.uniform(0.5))


@dataclass(frozen=True)
class Letters:
    """Decodes each id as a letter."""

    def response(self, tokens, finish):
        return Response("".join(chr(97 + token) for token in tokens), len(tokens), finish)


def rows_of(num, *, in_step=True):
    return Rows([Prompt("p", seed) for seed in range(num)], HALF, SAMPLING, in_step=in_step)


def tokens_of(row, length):
    return [(row + i) % 26 for i in range(length)]


def response_of(row, length):
    return Letters().response(tokens_of(row, length), "length" if length == SAMPLING.max_tokens else "stop")


def said(piece, lengths, *, step, known=0, aborted=False):
    """What a worker says of a piece whose rows are at ``step``, and how many finished rows it knows of then."""
    finished = [
        Finished(place, response_of(row, lengths[row]), array("i", tokens_of(row, lengths[row])))
        for place, row in sorted(enumerate(piece.rows), key=lambda each: lengths[each[1]])
        if lengths[row] <= step
    ]
    if aborted:
        finished += [
            Finished(place, Letters().response(tokens_of(row, step), "aborted"), array("i", tokens_of(row, step)))
            for place, row in enumerate(piece.rows)
            if lengths[row] > step
        ]
    state = "done" if aborted or step >= max(lengths[row] for row in piece.rows) else "running"
    return News([min(lengths[row], step) for row in piece.rows], finished[known:], state)


@pytest.mark.parametrize(
    ("num_rows", "num_workers", "most", "sizes"),
    [
        (128, 2, 256, [64, 64]),  # small rungs are shared too
        (384, 2, 256, [192, 192]),
        (1536, 2, 256, [256] * 6),
        (600, 2, 256, [160, 160, 160, 120]),  # as many for each, in steps of 16
        (100, 4, 256, [32, 32, 32, 4]),
        (5, 4, 256, [5]),  # rows are padded to 16 in any case
        (0, 4, 256, []),
        (10, 3, None, [4, 3, 3]),
        (2, 3, None, [1, 1]),
    ],
)
def test_rows_are_cut_evenly(num_rows, num_workers, most, sizes):
    parts = cut(range(num_rows), num_workers=num_workers, most=most)
    assert [len(part) for part in parts] == sizes
    assert sorted(row for part in parts for row in part) == list(range(num_rows))
    if most is None:
        assert all(part[0] == number for number, part in enumerate(parts))  # all begin at the front
    else:
        assert [row for part in parts for row in part] == list(range(num_rows))


def looks_of_one(lengths):
    """What an engine asks that runs all rows in step, one step after the other."""
    running, looks = len(lengths), []
    for step in itertools.count(1):
        before, running = running, sum(length > step for length in lengths)
        if running < before or step % WATCH_STEPS == 0:
            ended = [response_of(row, length) if length <= step else None for row, length in enumerate(lengths)]
            looks.append(Progress([min(length, step) for length in lengths], ended))
        if not running:
            return looks


@pytest.mark.parametrize("seed", range(20))
def test_a_watcher_is_asked_what_one_engine_would_ask(seed):
    """Whatever the order in which the workers' news arrive."""
    chance = random.Random(seed)
    lengths = [chance.choice([chance.randint(1, 200), 64, 128, 200]) for _ in range(20)]
    rows, looks = rows_of(20), []
    pieces = [rows.piece(number, part, SAMPLING) for number, part in enumerate(cut(range(20), num_workers=2, most=16))]
    watch = InStep(rows, range(20), lambda progress: looks.append(progress) is None)
    steps = [0, 0]
    while min(steps) < 200:
        number = chance.randrange(2)
        steps[number] = min(steps[number] + chance.randint(1, 90), 200)
        rows.take(pieces[number], said(pieces[number], lengths, step=steps[number]))
        assert watch.look() is None
    assert looks == looks_of_one(lengths)


@pytest.mark.parametrize("stop", [1, 63, 64, 100, 140])
def test_an_abort_leaves_what_one_engine_would_leave(stop):
    """Though the workers had come further, and one of them to its end."""
    lengths = [1, 63, 64, 65, 200, 150, 20, 99]
    rows = rows_of(8)
    pieces = [rows.piece(0, (0, 1, 2, 3), SAMPLING), rows.piece(1, (4, 5, 6, 7), SAMPLING)]
    step = next(max(look.num_tokens) for look in looks_of_one(lengths) if max(look.num_tokens) >= stop)
    watch = InStep(rows, range(8), lambda progress: max(progress.num_tokens) < stop)
    rows.take(pieces[0], said(pieces[0], lengths, step=200))
    assert watch.look() is None
    rows.take(pieces[1], said(pieces[1], lengths, step=199))
    assert watch.look() == step
    assert rows.missing_at(step, range(8)) == [4]
    rows.take(pieces[1], said(pieces[1], lengths, step=199, known=3, aborted=True))
    assert not rows.missing_at(step, range(8))
    expected = [
        response_of(row, length) if length <= step else Letters().response(tokens_of(row, step), "aborted")
        for row, length in enumerate(lengths)
    ]
    assert [rows.at(row, step, Letters()) for row in range(8)] == expected


def test_a_row_that_was_asked_for_up_to_a_step_alone_is_aborted_there():
    rows = rows_of(1)
    piece = rows.piece(0, (0,), SAMPLING)
    rows.take(piece, News([70], [Finished(0, Response("x", 70, "length"), array("i", tokens_of(0, 70)))], "done"))
    assert rows.at(0, 70, Letters()) == Letters().response(tokens_of(0, 70), "aborted")


def test_in_step_the_first_answer_counts_whoever_gives_it():
    rows = rows_of(2)
    first, second = rows.piece(0, (0, 1), SAMPLING), rows.piece(1, (0, 1), SAMPLING)
    rows.lose(first)
    rows.take(first, said(first, [5, 9], step=6))
    assert rows.responses == [response_of(0, 5), None] and rows.is_wanted(first) and rows.is_wanted(second)
    rows.take(second, said(second, [5, 9], step=9))
    assert rows.responses == [response_of(0, 5), response_of(1, 9)] and not rows.is_wanted(first)


def test_of_a_lost_piece_that_is_drawn_anew_the_first_rows_are_kept():
    """And not the short ones behind a long one, which would give that a second chance to be short."""
    rows = rows_of(8, in_step=False)
    first, other = rows.piece(0, (0, 2, 4, 6), SAMPLING), rows.piece(1, (1, 3, 5, 7), SAMPLING)
    lengths = [5, 9, 9, 9, 5, 9, 5, 9]
    rows.take(first, said(first, lengths, step=6))
    assert [bool(each) for each in rows.responses[::2]] == [True, False, True, True]
    rows.lose(first)
    assert [bool(each) for each in rows.responses[::2]] == [True, False, False, False]
    assert rows.num_tokens[::2] == [5, 0, 0, 0]
    rows.take(first, said(first, lengths, step=9))  # it answers again, too late
    assert rows.missing() == [1, 2, 3, 4, 5, 6, 7] and not rows.is_wanted(first) and rows.is_wanted(other)
    again = rows.piece(2, (2, 4, 6), SAMPLING)
    rows.take(again, said(again, [0, 0, 7, 0, 8, 0, 9, 0], step=9))
    assert [each.num_tokens for each in rows.responses[::2]] == [5, 7, 8, 9]


def test_rows_that_do_not_run_in_step_are_looked_at_as_they_stand():
    rows, looks = rows_of(4, in_step=False), []
    piece = rows.piece(0, (1, 3), SAMPLING)
    rows.take(piece, said(piece, [0, 5, 0, 9], step=6))
    watch = AsTheyCome(rows, range(1, 4), lambda progress: bool(looks.append(progress)))
    assert watch.look() == 0
    assert looks == [Progress([5, 0, 6], [response_of(1, 5), None, None])]
    assert rows.missing_at(0, range(1, 4)) == []
    assert [rows.at(row, 0, Letters()).finish_reason for row in (1, 2, 3)] == ["stop", "aborted", "aborted"]
    assert rows.at(3, 0, Letters()).num_tokens == 6
