"""Choice: which letter is read from what models write; small letters, brackets, boxes and near misses as stated."""

import pytest

from autolambda.graders.choice import Choice

CHOICE = Choice()

LETTERS = {
    "ANSWER: C": "C",
    "Answer: c": "C",
    "answer:C": "C",
    "Answer : C": "C",
    "ANSWER: $C$": "C",
    "**Answer:** (c)": "C",
    "**Answer: C**": "C",
    "**ANSWER**: C": "C",
    "Answer: [C]": "C",
    "Answer: {C}": "C",
    "Answer:\n\nC": "C",
    "Answer: option C": "C",
    "Answer: Option (c)": "C",
    "Answer: C) The blue one": "C",
    "Answer: c) the blue one": "C",
    "Answer: C. Because it is": "C",
    "Answer: C because it is": "C",
    "Answer: \\boxed{C}": "C",
    "Answer: \\boxed{\\text{C}}": "C",
    "Answer: $\\boxed{\\textbf{(C)}}$": "C",
    "Answer: \\(C\\)": "C",
    "so \\boxed{C}": "C",
    "\\boxed{\\text{(C)}}.": "C",
    "\\boxed{ c }": "C",
    "The answer is C.": "C",
    "The answer is (C)": "C",
    "the answer is: **C**": "C",
    "the correct answer is option C": "C",
    "ANSWER: J": "J",
    'ANSWER: "C"': "C",
    "Answer: 'c'": "C",
    "ANSWER: `C`": "C",
    "ANSWER: <C>": "C",
    "Answer\uff1a C": "C",
    '{"answer": "C"}': "C",
    "The answer is B, not C": "B",
    "ANSWER: B, C is wrong": "B",
    # the last one counts
    "Answer: A\nNo, wait.\nAnswer: B": "B",
    "\\boxed{A} and yet\nANSWER: D": "D",
    "ANSWER: $LETTER\nANSWER: D": "D",
    "It could be A or B, so ANSWER: B, not C": "B",
    # nothing but a letter
    "C": "C",
    " (c) ": "C",
    "C.": "C",
    "**C**": "C",
    "$C$\n": "C",
    # simple-evals reads these too
    "Answer: A good question": "A",
    # no letter is stated
    "": None,
    " \n": None,
    "ANSWER: $LETTER": None,
    "Answer: a good question": None,
    "Answer: Carbon": None,
    "Answer: 3": None,
    "Answer: C3": None,
    "The answer is A good one": None,
    "the answer is a matter of taste": None,
    "The answers: C": None,
    # two letters
    "Answer: A or B": None,
    "Answer: (A) and (B)": None,
    "ANSWER: A, B": None,
    "ANSWER: A/B": None,
    "I would pick C": None,
    "\\boxed{CD}": None,
    "\\boxed{C, D}": None,
    "\\boxed{12}": None,
    "AB": None,
    "\u0421": None,  # a Cyrillic letter
    "7": None,
    "...": None,
}


@pytest.mark.parametrize("text", LETTERS)
def test_the_letter_that_is_read(text):
    assert CHOICE.grade(text, "A").answer == LETTERS[text]


@pytest.mark.parametrize(
    ("text", "target", "correct"),
    [
        ("ANSWER: C", "C", True),
        ("ANSWER: c", "C", True),
        ("ANSWER: C", " c\n", True),
        ("ANSWER: B", "C", False),
        ("ANSWER: C", "", False),
    ],
)
def test_letters_are_compared_case_apart(text, target, correct):
    assert CHOICE.grade(text, target).correct is correct
