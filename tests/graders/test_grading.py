"""Graders: the quick ones by tables, the four grades, and how graders are found and targets checked."""

import subprocess
import sys
import time

import pytest

from autolambda.errors import TaskError
from autolambda.graders.base import any_of, right_answers
from autolambda.graders.grading import GRADERS, answer_part, find_grader, is_custom, score
from autolambda.responses import Grade, Response

NUMBERS = {
    "7": "7",
    "the answer is 7.": "7",
    "first 3, then 7": "7",
    "9-2=7": "7",
    "2-9=-7": "-7",
    "9 - 2": "2",
    "f(3)-2": "2",
    "x-2": "2",
    "-5": "-5",
    "(-5)": "-5",
    "$-3": "-3",
    "\u22125": "\u22125",
    "+5": "5",
    "\\boxed{-7}": "-7",
    "**7**": "7",
    "50%": "50",
    "$1,234.50": "1,234.50",
    "1,234,567": "1,234,567",
    "7.0": "7.0",
    "1.5.": "1.5",
    ".5": ".5",
    "-.5": "-.5",
    "it is...42": "42",
    "see.42": "42",
    "1e5": "1e5",
    "2.5E-3": "2.5E-3",
    "1, 2": "2",
    "a7b": "7",
    "-$18": "-18",
    "-\\$1,234.50": "-1,234.50",
    "\u2212\u20ac5": "\u22125",
    "\u20135 degrees": "\u20135",
    "$3-$18": "18",
    "3\u20135": "5",
    "$\\sqrt{2}$ 5": "5",
    "\u0661\u066c\u0662\u0663\u0664\u066b\u0665": "\u0661\u066c\u0662\u0663\u0664\u066b\u0665",
    "\uff11\uff0e\uff15": "\uff11\uff0e\uff15",
    # thousands that are not set apart by plain commas
    r"\boxed{1{,}234}": "1{,}234",
    r"so $-1\,234.5$": r"-1\,234.5",
    r"1\!234\!567": r"1\!234\!567",
    r"1,\!234": r"1,\!234",
    r"1\;234": r"1\;234",
    r"1\ 234": r"1\ 234",
    "1\u202f234 \u20ac": "1\u202f234",
    "1\u00a0234\u00a0567": "1\u00a0234\u00a0567",
    "12\u2009345": "12\u2009345",
    "1'234": "1'234",
    "1\u2019234.50": "1\u2019234.50",
    # two numbers
    "in 2023 500 people": "500",
    "2023\u00a0500": "500",
    "12\u00a034": "34",
    "10 100 1000": "1000",
    "1, 234": "234",
    "7\n100": "100",
    # no one meaning
    "1 234 euros": None,
    "100 200 300": None,
    "-5 100": None,
    "1_234": None,
    "5~100": None,
    "1\uff0c234": None,
    "3.141 592": None,
    r"3.141\,592": None,
    r"5\,10": None,
    "5'10": None,
    "1'234,567": None,
    "1\u202f234,5": None,
    "3,5": None,
    "1,00": None,
    "12345,678": None,
    "3.14.15": None,
    "1e400": None,
    "7 or " + "1" * 200: None,
    # a part of a fraction, a power or a root
    "1/2": None,
    "3 / 4 cup": None,
    "5 1/2": None,
    "5\u00bd": None,
    r"\boxed{\frac{1}{2}}": None,
    r"\frac12": None,
    "10^5": None,
    r"1.5 \times 10^{-3}": None,
    "5\u00b2": None,
    r"\sqrt{2}": None,
    "1/2 = 0.5": "0.5",
    # no number
    "": None,
    " \n": None,
    "none": None,
    "-": None,
    "...": None,
}
EQUAL = [
    ("1,000", "1000"),
    ("1{,}000", "1000"),
    (r"1\,000.50", "1000.5"),
    ("1\u202f000", "1\u00a0000"),
    ("1'000", "1,000"),
    ("\u0661\u066c\u0662\u0663\u0664", "1234"),
    ("\uff11\uff0e\uff15", "1.5"),
    ("\u20135", "-5"),
    ("7.0", "7"),
    ("7", "7.00"),
    ("-0", "0"),
    ("\u22125", "-5"),
    ("+5", "+5"),
    (".5", "0.5"),
    ("1e3", "1,000"),
    ("0.1", "0.10"),
    ("12345678901234567890.1", "12345678901234567890.10"),
    (" 7 ", " 7\n"),
]
UNEQUAL = [
    ("7", "8"),
    ("5", "-5"),
    ("7", "seven"),
    ("7", ""),
    ("7", "-"),
    ("7", "sNaN"),
    ("7", "Infinity"),
    ("10", "1_0"),
    ("12345678901234567890.1", "12345678901234567890.2"),
]


@pytest.mark.parametrize("text", NUMBERS)
def test_the_number_that_is_read(text):
    assert GRADERS["number"].grade(text, "1").answer == NUMBERS[text]


@pytest.mark.parametrize(("text", "target"), EQUAL)
def test_equal_as_numbers(text, target):
    assert GRADERS["number"].grade(text, target).correct


@pytest.mark.parametrize(("text", "target"), UNEQUAL)
def test_unequal_numbers_and_targets_that_are_none(text, target):
    assert not GRADERS["number"].grade(text, target).correct


@pytest.mark.parametrize(
    ("grader", "text", "target", "answer", "correct"),
    [
        ("exact", " Paris\n", "Paris", "Paris", True),
        ("exact", "paris", "Paris", "paris", False),
        ("exact", "cafe\u0301", "caf\u00e9", "cafe\u0301", True),
        ("contains", "a CAFE\u0301.", "caf\u00e9", "a CAFE\u0301.", True),
        ("exact", "Paris.", "Paris", "Paris.", False),
        ("exact", " ", "Paris", None, False),
        ("exact", "", "", None, False),
        ("contains", "It is PARIS.", "paris", "It is PARIS.", True),
        ("contains", "straße", "STRASSE", "straße", True),
        ("contains", "It is Rome.", "Paris", "It is Rome.", False),
        ("contains", "\n", "Paris", None, False),
        ("contains", "", "", None, False),
    ],
)
def test_texts(grader, text, target, answer, correct):
    parsed = GRADERS[grader].grade(text, target)
    assert (parsed.answer, parsed.correct) == (answer, correct)


@pytest.mark.parametrize(
    ("text", "finish", "expected", "answer"),
    [
        ("so 3</think>7", "stop", Grade.CORRECT, "7"),
        ("so 7</think>3", "stop", Grade.WRONG, "3"),
        ("7</think>", "stop", Grade.UNPARSED, None),
        ("7</think>none", "stop", Grade.UNPARSED, None),
        ("3</think>\n\n7", "stop", Grade.CORRECT, "7"),
        ("1</think>2</think>7", "stop", Grade.CORRECT, "7"),
        ("7</think>1</think>2", "stop", Grade.WRONG, "2"),
        ("it is 7", "stop", Grade.CORRECT, "7"),
        ("", "stop", Grade.UNPARSED, None),
        ("so 3</think>7", "length", Grade.TRUNCATED, "7"),
        ("so", "length", Grade.TRUNCATED, None),
    ],
)
def test_the_four_grades(text, finish, expected, answer):
    scored = score(Response(text, 5, finish), "7", grader=GRADERS["number"], think_end="</think>")
    assert (scored.grade, scored.answer) == (expected, answer)


def test_white_space_after_the_thought_reaches_no_grader():
    for text in ("2", "<think>\nadd\n</think>2", "<think>\nadd\n</think>\n\n \t2\n", "\n\n2"):
        assert answer_part(Response(text, 5, "stop"), think_end="</think>").removesuffix("\n") == "2"


@pytest.mark.parametrize(
    ("grader", "text", "targets", "answer", "correct"),
    [
        ("exact", "two", ["2", "two"], "two", True),
        ("exact", "three", ["2", "two"], "three", False),
        ("contains", "It is TWO.", ["2", "two"], "It is TWO.", True),
        ("number", "so 1,000", ["7", "1000"], "1,000", True),
        ("number", "so 8", ["7", "1000"], "8", False),
        ("number", "none", ["7", "1000"], None, False),
        ("math", r"\boxed{x + 1}", ["7", "1 + x"], "x + 1", True),
        ("math", r"\boxed{0.5}", ["7", r"\frac12"], "0.5", True),
        ("math", r"\boxed{x + 2}", ["7", "1 + x"], "x + 2", False),
        ("choice", "ANSWER: C", ["A", "C"], "C", True),
        ("regex", "abc", ["^x", "c$"], "c", True),
    ],
)
def test_any_of_several_right_answers(grader, text, targets, answer, correct):
    parsed = find_grader(grader).grade(text, any_of(targets))
    assert (parsed.answer, parsed.correct) == (answer, correct)
    quick = find_grader(grader).quick(text, any_of(targets))
    assert quick in (None, parsed) and not (quick is None and find_grader(grader).is_quick)


def test_a_target_of_several_needs_one_that_can_be_met():
    find_grader("number").check_target(any_of(["two", "2"]))
    with pytest.raises(ValueError, match="not a number"):
        find_grader("number").check_target(any_of(["two", "deux"]))
    assert any_of(["2", "2"]) == "2" and right_answers("2") == ["2"]
    assert right_answers(any_of(["\u00e9", '"'])) == ["\u00e9", '"'] and right_answers('any of ["') == ['any of ["']
    assert find_grader("math").canonical(any_of(["2", "3"])) == "\\boxed{2}"


def test_the_closing_tag_is_the_configs():
    response = Response("1[/T]7</think>3", 5, "stop")
    assert score(response, "3", grader=GRADERS["number"], think_end="[/T]").grade is Grade.CORRECT
    assert score(Response("3[/T]7</think>x", 5, "stop"), "7", grader=GRADERS["number"], think_end="[/T]").answer == "7"


HOSTILE = ["1", "1,", "1,111", "-", "1.", "111,", ",111", "a", "(-", " ", "\u0660", "1e", "1e1", "-.", ".1", "</think>"]
HOSTILE += [
    "answer",
    "answer: ",
    "Answer: ((",
    "answer is ",
    "\\boxed{",
    "\\boxed",
    "{",
    "}",
    "{}",
    "\\",
    "\ud800",
    "\0",
]


@pytest.mark.parametrize("part", HOSTILE)
@pytest.mark.parametrize("name", GRADERS)
def test_quick_is_quick_on_a_hostile_megabyte(name, part):
    text = part * (1_000_000 // len(part))
    start = time.process_time()
    GRADERS[name].quick(text.rpartition("</think>")[2], "7")
    GRADERS[name].quick(text, text)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [
        ("number", "1,000", None),
        ("number", "about 7", "not a number"),
        ("number", "", "not a number"),
        ("exact", "Paris", None),
        ("exact", " ", "empty"),
        ("contains", "\n", "empty"),
        ("math", "\\frac{1}{2}", None),
        ("math", " ", "empty"),
        ("math", "\\frac{1}{2", "not balanced"),
        ("math", "1}", "not balanced"),
        ("math", "1" * 1001, "longer than 1000"),
        ("math", "(" * 21 + ")" * 21, "deeper than 20"),
        ("choice", "c", None),
        ("choice", "CD", "not a letter"),
        ("choice", "3", "not a letter"),
        ("choice", "\u00c4", "not a letter"),
        ("regex", "^a+$", None),
        ("regex", "(a", "not a regular expression: missing \\)"),
        ("regex", "", "empty"),
        ("lm_eval", '{"task": "t", "doc": {}}', None),
        ("lm_eval", "t", "not JSON"),
        ("lm_eval", '{"task": "t"}', "lacks the task's name or the doc"),
        ("ifeval", "7", "lacks one of key"),
        ("ifeval", "[", "not JSON"),
        ("ifeval", '{"key": 1, "prompt": "p", "instruction_id_list": ["startend:quotation"], "kwargs": [{}]}', None),
        ("ifeval", '{"key": 1, "prompt": "p", "instruction_id_list": [], "kwargs": []}', "at least 1"),
        ("ifeval", '{"key": 1, "prompt": "p", "instruction_id_list": ["a:b"], "kwargs": [{}]}', "unknown .*: a:b"),
        ("ifeval", '{"key": 1, "prompt": "p", "instruction_id_list": ["startend:quotation"], "kwargs": []}', "length"),
        (
            "ifeval",
            '{"key": 1, "prompt": "p", "instruction_id_list": ["startend:quotation"], "kwargs": [1]}',
            "mapping",
        ),
    ],
)
def test_a_target_that_could_never_be_met_is_told_at_once(name, target, reason):
    if reason is None:
        find_grader(name).check_target(target)
        return
    with pytest.raises(ValueError, match=reason):
        find_grader(name).check_target(target)


@pytest.mark.parametrize(
    ("name", "target"),
    [("exact", " Paris"), ("number", "1,000"), ("contains", "Paris"), ("math", "(1, \\infty)"), ("choice", "c")],
)
def test_the_answer_that_a_target_makes_is_correct(name, target):
    assert find_grader(name).grade(find_grader(name).canonical(target), target).correct


@pytest.mark.parametrize("name", ["regex", "ifeval", "lm_eval"])
def test_no_answer_can_be_made_up_for_some(name):
    assert find_grader(name).canonical("a") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mth", "unknown grader 'mth'; did you mean math?"),
        ("zzzz", "unknown grader 'zzzz'; known: exact, number, .* 'package.module:function'"),
        ("no_such_module_at_all:f", "'no_such_module_at_all' cannot be imported .ModuleNotFoundError"),
        ("json:lods", "the module 'json' has no function 'lods'; it has loads"),
        ("json.decoder:NaN", "has a float, not a function, called 'NaN'"),
        ("json:", "is not a dotted path"),
        (":f", "is not a dotted path"),
        ("./json.py:f", "is not a dotted path"),
    ],
)
def test_a_grader_that_is_not_there(name, message):
    with pytest.raises(TaskError, match=message) as caught:
        find_grader(name)
    assert "\n" not in str(caught.value)


def test_a_grader_of_ones_own_is_told_by_its_name():
    assert [name for name in (*GRADERS, "mine:f", "mine.f", "f") if is_custom(name)] == ["mine:f", "mine.f"]


def test_naming_the_graders_loads_none_of_their_packages():
    code = "import sys, autolambda.graders.service; print(*sorted(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"math_verify", "sympy", "lm_eval", "nltk", "datasets", "regex", "numpy"}
