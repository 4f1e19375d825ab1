"""Drafts: which responses a cap cuts and where, and the mean tokens to expect."""

from __future__ import annotations

import pytest
from checkpoints import tiny_tokenizer

from autolambda.driver.baselines.drafts import Drafts
from autolambda.engines.chat import ChatFormat
from autolambda.errors import InputError
from autolambda.responses import Grade, Graded, Response

CHAT = ChatFormat(tiny_tokenizer(), "")  # a token a byte, the tag is one


def response(thought: int, answer: int | None, *, id: str = "s", task: str = "t", letter: str = "x") -> Graded:
    """``thought`` tokens with the tag, ``answer`` with the end token; without an answer it never closes."""
    text = letter * thought if answer is None else letter * (thought - 1) + "</think>" + "y" * (answer - 1)
    whole = Response(text, thought + (answer or 0), "length" if answer is None else "stop")
    return Graded(task, id, 0, whole, Grade.WRONG, None, answer is not None)


def test_a_cap_cuts_what_thinks_longer_after_its_first_tokens() -> None:
    drafts = Drafts([response(10, 2, id="a"), response(4, 9, id="b"), response(30, None, id="c")], CHAT)
    assert drafts.longest == 30
    assert drafts.cut_by(9) == {("t", "a", 0): "x" * 9, ("t", "c", 0): "x" * 9}
    assert drafts.cut_by(10) == {("t", "c", 0): "x" * 10}, "the tag is the tenth token"
    assert drafts.cut_by(30) == {}


def test_a_response_without_the_tag_is_all_thinking() -> None:
    short = Graded("t", "s", 0, Response("xxx", 4, "stop"), Grade.WRONG, None, False)
    assert list(Drafts([short], CHAT).cut_by(3).values()) == ["xxx"]
    assert not Drafts([short], CHAT).cut_by(4) and not Drafts([short], CHAT).has_answers


def test_a_split_character_is_left_out() -> None:
    (text,) = Drafts([response(9, None, letter="é")], CHAT).cut_by(5).values()
    assert text == "éé"


def test_the_first_tag_ends_the_thinking() -> None:
    twice = Graded("t", "s", 0, Response("xxxx</think>yy</think>yy", 11, "stop"), Grade.WRONG, None, True)
    assert Drafts([twice], CHAT).cut_by(4) and not Drafts([twice], CHAT).cut_by(5)


def test_the_estimate_counts_forced_tokens_and_no_response_gets_longer() -> None:
    drafts = Drafts([response(10, 2), response(100, 2, id="b")], CHAT)
    assert drafts.answer_tokens == 2
    assert drafts.estimate(40, num_forced=0) == (12 + 42) / 2
    assert drafts.estimate(40, num_forced=5) == (12 + 47) / 2
    assert drafts.estimate(4, num_forced=5) == (11 + 11) / 2
    assert drafts.estimate(99, num_forced=5) == drafts.estimate(500, num_forced=5) == (12 + 102) / 2
    means = [drafts.estimate(cap, num_forced=3) for cap in range(1, 120)]
    assert means == sorted(means)


def test_the_estimate_weighs_tasks_as_the_budget_does() -> None:
    graded = [response(10, 2, task="short"), response(10, 2, id="b", task="short"), response(100, 2, task="long")]
    assert Drafts(graded, CHAT).estimate(46, num_forced=0) == (12 + 48) / 2
    weighed = Drafts(graded, CHAT, weights={"short": 0.8, "long": 0.2})
    assert weighed.estimate(46, num_forced=0) == pytest.approx(0.8 * 12 + 0.2 * 48)
    with pytest.raises(InputError, match="weights must name the tasks"):
        Drafts(graded, CHAT, weights={"short": 1.0})


def test_a_cap_on_the_tail_cuts_its_share() -> None:
    drafts = Drafts([response(thought, 1, id=str(thought)) for thought in range(1, 101)], CHAT)
    for share in (0.1, 0.05, 0.02):
        cap = drafts.tail_cap(share)
        assert len(drafts.cut_by(cap)) == round(100 * share) and len(drafts.cut_by(cap - 1)) > 100 * share
