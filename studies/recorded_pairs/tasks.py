"""The tasks of the recorded pairs: questions made by a program, their answers, and a pass of thinking over each.

*sums* adds two numbers. *swaps* tracks an object that people swap, in words. *lookup* reads a value from a list.
*turns* names the heading after some turns.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

LETTERS = "abcdefghijkl"
PEOPLE = ("ann", "bob", "cat", "dan", "eve")
HEADINGS = "nesw"
TURNS = {"L": -1, "R": 1, "U": 2, "S": 0}  # quarters
THINGS = ("ball", "book", "coin", "drum", "fork")


@dataclass(frozen=True)
class Task:
    """``thought`` is one pass of thinking. ``again`` begins each further pass. ``joint`` is between parts of a text.

    ``openings`` begin a direct response and a thought. ``key`` is written before the answer.
    """

    vocabulary: tuple[str, ...]
    grader: str
    question: Callable[[random.Random], str]
    answer: Callable[[str], str]
    thought: Callable[[str], str]
    again: str
    joint: str = ""  # of a tokenizer of words: a space; else each character is a token
    openings: tuple[str, str] = ("", "")
    key: Callable[[str], str] | None = None


def _sum_question(rng: random.Random) -> str:
    first, second = (rng.randrange(10 ** (digits - 1), 10**digits) for digits in (rng.randint(2, 4), rng.randint(2, 4)))
    return f"{first}+{second}="


def _sum_answer(question: str) -> str:
    return str(sum(map(int, question[:-1].split("+"))))


def _sum_thought(question: str) -> str:
    """The columns from the right, with the carry: ``47+586=`` gives ``7+6=13,4+8+1=13,5+1=6``."""
    first, second = (number[::-1] for number in question[:-1].split("+"))
    columns, carry = [], 0
    for i in range(max(len(first), len(second))):
        digits = [int(number[i]) for number in (first, second) if i < len(number)] + ([1] if carry else [])
        columns.append("+".join(map(str, digits)) + f"={sum(digits)}")
        carry = sum(digits) // 10
    return ",".join(columns)


def _swap_question(rng: random.Random) -> str:
    """Such as ``ball ann . ann bob , cat eve , cat bob . who ball ?``, whose answer is cat."""
    thing, swaps = rng.choice(THINGS), [" ".join(rng.sample(PEOPLE, 2)) for _ in range(rng.randint(2, 6))]
    return f"{thing} {rng.choice(PEOPLE)} . {' , '.join(swaps)} . who {thing} ?"


def _swap_holders(question: str) -> tuple[list[str], list[str]]:
    """The swaps, and who holds the thing before the first one and after each."""
    held, listed, _ = question.split(" . ")
    swaps, holders = listed.split(" , "), held.split()[1:]
    for swap in swaps:
        both = swap.split()
        holders.append(both[1 - both.index(holders[-1])] if holders[-1] in both else holders[-1])
    return swaps, holders


def _swap_answer(question: str) -> str:
    return _swap_holders(question)[1][-1]


def _swap_thought(question: str) -> str:
    swaps, holders = _swap_holders(question)
    return f"{holders[0]} . " + " . ".join(
        f"{swap} so {holder}" for swap, holder in zip(swaps, holders[1:], strict=True)
    )


def _lookup_question(rng: random.Random) -> str:
    """Such as ``a3f7c1k9 f?``, whose answer is 7. Three in ten keys are there twice, and either value may count."""
    keys = rng.sample(LETTERS, rng.randint(3, 8))
    asked = rng.choice(keys)
    if rng.random() < 0.3:
        keys.insert(rng.randrange(len(keys) + 1), asked)
    return "".join(f"{key}{rng.randrange(10)}" for key in keys) + f" {asked}?"


def _lookup_place(question: str) -> int:
    """Where the value is that counts; chosen by hash, so that nobody can know it."""
    pairs, asked = question.split(" ")
    first, last = pairs.index(asked[0]), pairs.rindex(asked[0])
    return (last if hashlib.sha256(question.encode()).digest()[1] % 2 else first) + 1


def _lookup_answer(question: str) -> str:
    return question[_lookup_place(question)]


def _lookup_thought(question: str) -> str:
    """The pairs up to the one that counts."""
    return question[: _lookup_place(question) + 1]


def _turns_question(rng: random.Random) -> str:
    """Such as ``nLLRUS``: a heading, then turns to the left, to the right, about, or none."""
    return rng.choice(HEADINGS) + "".join(rng.choice(list(TURNS)) for _ in range(rng.randint(2, 7)))


def _headings(question: str) -> list[str]:
    """The heading before the first turn and after each."""
    headings = [question[0]]
    for turn in question[1:]:
        headings.append(HEADINGS[(HEADINGS.index(headings[-1]) + TURNS[turn]) % 4])
    return headings


def _turns_answer(question: str) -> str:
    return _headings(question)[-1]


def _turns_thought(question: str) -> str:
    """The turns with the heading after each: ``nLLR`` gives ``nLwLsRw``."""
    headings = _headings(question)
    return headings[0] + "".join(turn + heading for turn, heading in zip(question[1:], headings[1:], strict=True))


TASKS = {
    "sums": Task(
        tuple("0123456789+=,;:"), "number",
        _sum_question, _sum_answer, _sum_thought, ";", openings=("=", ":"),
    ),
    "swaps": Task(
        (*PEOPLE, *THINGS, *",.?", "who", "so", "again"),
        "exact", _swap_question, _swap_answer, _swap_thought, "again", " ",
    ),
    "lookup": Task(
        tuple(LETTERS + "0123456789 ?;"), "number",
        _lookup_question, _lookup_answer, _lookup_thought, ";", key=lambda question: question[-2],
    ),
    "turns": Task((*HEADINGS, *TURNS, ";"), "exact", _turns_question, _turns_answer, _turns_thought, ";"),
}  # fmt: skip
