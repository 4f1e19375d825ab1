"""Graded responses from short codes."""

from __future__ import annotations

from autolambda.responses import Grade, Graded, Response

CODES = {"c": Grade.CORRECT, "w": Grade.WRONG, "u": Grade.UNPARSED, "t": Grade.TRUNCATED}


def respond(code, repeat, *, task="math", sample="1", tokens=10, answer=None, thought=False):
    grade = CODES[code]
    finish = "length" if grade is Grade.TRUNCATED else "stop"
    return Graded(task, sample, repeat, Response("", tokens, finish), grade, answer, thought)


def slice_of(*prompts, task="math", tokens=10):
    """A slice from one string of grade codes a prompt: ``"cw"`` is a right and a wrong repeat."""
    return [
        respond(code, repeat, task=task, sample=str(index), tokens=tokens, thought=code == "c")
        for index, codes in enumerate(prompts)
        for repeat, code in enumerate(codes)
    ]
