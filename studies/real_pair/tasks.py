"""Word problems with a number as the answer, made by a program: question, thought, answer and kind."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

Problem = tuple[str, list[str], int, str | None]
"""A question, the steps of its solution, the answer, and the answer as a formula."""


NAMES = [
    "Tom", "Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ida", "Jack", "Kate", "Leo",
    "Maria", "Nina", "Oscar", "Paul", "Rosa", "Sam", "Tina",
]  # fmt: skip
THINGS = [
    "pens", "apples", "books", "coins", "stamps", "marbles", "cards", "cookies", "shells", "balloons", "eggs",
    "buttons", "keys", "cups", "stickers",
]  # fmt: skip
BOXES = [
    "boxes", "bags", "baskets", "drawers", "shelves", "jars", "crates",
]  # fmt: skip
WORDS = [
    "banana", "letter", "summer", "yellow", "coffee", "window", "garden", "pepper", "kitten", "rabbit",
    "bottle", "silver", "mirror", "carrot", "tomato", "cheese", "needle", "button", "puzzle", "school",
    "apple", "orange", "butter", "dinner", "basket", "bottom", "cotton", "rubber", "ladder", "hammer",
    "paper", "pencil", "ruler", "teacher", "bicycle", "kitchen", "potato", "salad", "pillow", "blanket",
    "coconut", "papaya", "lesson", "soccer", "tennis", "balloon", "moon", "noodle", "cookie", "cherry",
    "berry", "hello", "weather", "thunder", "feather", "leather",
]  # fmt: skip
MONTHS = {"March": 31, "May": 31, "July": 31, "August": 31, "October": 31, "December": 31}
LESS = ["gives away {n}", "loses {n}", "sells {n}", "hands {n} to a friend", "throws {n} away"]
MORE = ["buys {n} more", "finds {n} more", "gets {n} from a friend", "is given {n}", "wins {n} more"]
ASK = [
    "How many {thing} does {name} have now?",
    "How many {thing} are left with {name}?",
    "What is the number of {thing} {name} has in the end?",
]
RANK = ["smallest", "second smallest", "largest", "second largest"]


def word(rng: random.Random) -> Problem:
    name, thing, box = rng.choice(NAMES), rng.choice(THINGS), rng.choice(BOXES)
    if rng.random() < 0.65:
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        start = rng.choice(
            [
                f"{name} has {a} {box} with {b} {thing} each.",
                f"{name} fills {a} {box} with {b} {thing} each.",
                f"There are {a} {box} at {name}'s house, and each holds {b} {thing}.",
            ]
        )
        total, steps, formula = a * b, [f"{a}*{b}={a * b}"], f"{a}*{b}"
    else:
        a, b = rng.randint(5, 40), rng.randint(5, 40)
        start = rng.choice(
            [
                f"{name} has {a} red {thing} and {b} blue {thing}.",
                f"{name} owns {a} {thing} and gets {b} for a birthday.",
            ]
        )
        total, steps, formula = a + b, [f"{a}+{b}={a + b}"], f"{a}+{b}"
    parts = []
    for _ in range(rng.choice([1, 2, 2, 3])):
        n = rng.randint(2, 20)
        if total > n and rng.random() < 0.5:
            parts.append(rng.choice(LESS).format(n=n))
            steps.append(f"{total}-{n}={total - n}")
            total -= n
            formula += f"-{n}"
        else:
            parts.append(rng.choice(MORE).format(n=n))
            steps.append(f"{total}+{n}={total + n}")
            total += n
            formula += f"+{n}"
    middle = " Then ".join(f"{name} {part}." for part in parts)
    question = f"{start} {middle} {rng.choice(ASK).format(name=name, thing=thing)}"
    return question, steps, total, formula


def compare(rng: random.Random) -> Problem:
    names, thing = rng.sample(NAMES, 3), rng.choice(THINGS)
    numbers = rng.sample(range(3, 60), 3)
    hold = ", ".join(f"{n} has {x} {thing}" for n, x in zip(names, numbers, strict=True))
    big, small = max(numbers), min(numbers)
    if rng.random() < 0.5:
        return (
            f"{hold}. How many more {thing} has the one with the most than the one with the fewest?",
            [f"Most: {big}", f"fewest: {small}", f"{big}-{small}={big - small}"],
            big - small,
            f"{big}-{small}",
        )
    total = sum(numbers)
    a, b, c = numbers
    return (
        f"{hold}. How many {thing} do they have together?",
        [f"{a}+{b}={a + b}", f"{a + b}+{c}={total}"],
        total,
        f"{a}+{b}+{c}",
    )


def sort(rng: random.Random) -> Problem:
    numbers = rng.sample(range(2, 99), rng.choice([4, 5]))
    rank = rng.choice(RANK)
    inorder = sorted(numbers, reverse="largest" in rank)
    answer = inorder[1 if "second" in rank else 0]
    shown = ", ".join(map(str, inorder))
    return (
        f"Which of the numbers {', '.join(map(str, numbers))} is the {rank}?",
        [f"In order: {shown}", f"the {rank} is {answer}"],
        answer,
        None,
    )


def date(rng: random.Random) -> Problem:
    month = rng.choice(list(MONTHS))
    day, wait, weeks = rng.randint(1, 8), rng.randint(2, 8), rng.choice([1, 2])
    name = rng.choice(NAMES)
    begin = day + wait
    return (
        f"Today is {month} {day}. In {wait} days {name} leaves for a trip of {weeks} week{'s' * (weeks > 1)}. "
        f"On which day of {month} does the trip end?",
        [
            f"{day}+{wait}={begin}",
            f"{weeks} week{'s' * (weeks > 1)}={7 * weeks} days",
            f"{begin}+{7 * weeks}={begin + 7 * weeks}",
        ],
        begin + 7 * weeks,
        f"{day}+{wait}+{7 * weeks}",
    )


def letters(rng: random.Random) -> Problem:
    text = rng.choice(WORDS)
    letter = rng.choice(sorted(set(text)) + [c for c in sorted(set(text)) if text.count(c) > 1] * 2)
    count, spelled = 0, []
    for c in text:
        count += c == letter
        spelled.append(f"{c} {count}" if c == letter else c)
    return f"How many times does the letter {letter} occur in the word {text}?", [f"{', '.join(spelled)}"], count, None


KINDS: dict[str, tuple[Callable[[random.Random], Problem], float]] = {
    "word": (word, 0.5),
    "compare": (compare, 0.18),
    "sort": (sort, 0.12),
    "date": (date, 0.12),
    "letters": (letters, 0.08),
}


def make(rng: random.Random) -> dict[str, Any]:
    kind = rng.choices(list(KINDS), [w for _, w in KINDS.values()])[0]
    question, steps, answer, formula = KINDS[kind][0](rng)
    first = rng.choice(["", "First, "])
    thought = (
        first + ". ".join(s if i == 0 else rng.choice(["Then ", "Next, ", ""]) + s for i, s in enumerate(steps)) + "."
    )
    if rng.random() < 0.5:  # re-checking
        thought += rng.choice([" Check: ", " Wait, again: ", " Let me check: "])
        thought += (f"{formula}={answer}." if formula else f"{steps[-1]}.") + rng.choice([" Yes.", " Good."])
    return {"kind": kind, "question": question, "thought": thought, "answer": answer}


def rows(seed: int, count: int, avoid: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Returns different problems, none of them with a question in ``avoid``."""
    rng, seen = random.Random(seed), set(avoid)
    found: list[dict[str, Any]] = []
    while len(found) < count:
        row = make(rng)
        if row["question"] not in seen:
            seen.add(row["question"])
            found.append(row)
    return found
