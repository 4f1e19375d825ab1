"""The language of the bundled pair: left-to-right arithmetic modulo 10, and the styles in which it is answered.

A prompt such as ``3+4*7-2=`` is worked from left to right without precedence, each result taken modulo 10.
Difficulty is the number of operators, 2 to 6. Three styles answer it: the digit alone (*direct*), the steps and
then the digit (*open*), or passes over the steps inside ``<think>`` and then the digit (*think*).
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

OPERATORS = {"+": lambda a, b: (a + b) % 10, "-": lambda a, b: (a - b) % 10, "*": lambda a, b: (a * b) % 10}
DIFFICULTIES = (2, 3, 4, 5, 6)


@dataclass(frozen=True)
class Style:
    """How often a model answers in each style, and how many passes it makes when it thinks (weight by count).

    ``slip`` is the chance that a pass after the second talks itself out of a right result, as overthinking does.
    """

    direct: float
    open: float
    think: float
    passes: dict[int, float]
    slip: float = 0.0


BASE = Style(direct=1.0, open=1.0, think=1.0, passes={1: 0.4, 2: 0.3, 3: 0.2, 4: 0.1})
INSTRUCT = Style(direct=0.8, open=0.2, think=0.0, passes={1: 1.0})
THINKING = Style(direct=0.0, open=0.03, think=0.97, passes={2: 0.15, 3: 0.25, 4: 0.3, 5: 0.3}, slip=0.05)


def question(rng: random.Random, num_operators: int) -> str:
    """A random prompt, ``num_operators`` operators between digits 0 to 9."""
    terms = [str(rng.randrange(10))]
    for _ in range(num_operators):
        terms += [rng.choice("+-*"), str(rng.randrange(10))]
    return "".join(terms) + "="


def steps(prompt: str, *, slip_at: int | None = None) -> str:
    """The worked chain of a prompt: ``3+4*7=`` gives ``3+4=7*7=9``; the step ``slip_at`` comes out one too high."""
    value, chain = int(prompt[0]), prompt[0]
    for i, (operator, digit) in enumerate(zip(prompt[1:-1:2], prompt[2:-1:2], strict=True)):
        value = (OPERATORS[operator](value, int(digit)) + (i == slip_at)) % 10
        chain += f"{operator}{digit}={value}"
    return chain


def is_held_out(prompt: str) -> bool:
    """A fifth of all prompts, chosen by hash, is never trained on; the three splits come from it."""
    return hashlib.sha256(prompt.encode()).digest()[0] % 5 == 0


def response(rng: random.Random, prompt: str, style: Style, *, think_is_open: bool) -> str:
    """One answer in a style drawn by its weights; ``think_is_open`` when the template already wrote ``<think>``."""
    chain = steps(prompt)
    kind = rng.choices(("direct", "open", "think"), (style.direct, style.open, style.think))[0]
    if kind == "direct":
        return chain[-1]
    if kind == "open":
        return f"{chain}\n\n{chain[-1]}"
    num_passes = rng.choices(list(style.passes), list(style.passes.values()))[0]
    slips = [n > 1 and rng.random() < style.slip for n in range(num_passes)]
    passes = [steps(prompt, slip_at=rng.randrange(len(prompt) // 2 - 1)) if slip else chain for slip in slips]
    thoughts = "\nwait ".join(passes)
    opening = "" if think_is_open else "<think>\n"
    return f"{opening}{thoughts}\n</think>\n\n{passes[-1][-1]}"


def splits(sizes: dict[str, int], *, seed: int) -> dict[str, list[dict[str, str | int]]]:
    """Disjoint rows {id, question, answer, difficulty} from the held-out prompts, difficulties in equal shares."""
    rng = random.Random(seed)
    seen: set[str] = set()
    rows: dict[str, list[dict[str, str | int]]] = {}
    for name, size in sizes.items():
        rows[name] = []
        while len(rows[name]) < size:
            difficulty = DIFFICULTIES[len(rows[name]) % len(DIFFICULTIES)]
            prompt = question(rng, difficulty)
            if is_held_out(prompt) and prompt not in seen:
                seen.add(prompt)
                row = {"question": prompt, "answer": steps(prompt)[-1], "difficulty": difficulty}
                rows[name].append({"id": f"{name}-{len(rows[name]):04d}", **row})
    return rows
