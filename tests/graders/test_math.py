"""Math: which box is read, what is decided quickly, and near misses of the full comparison as stated.

What is stated includes what math-verify 0.9 is lax about (units, percent, a base, a tuple for a list) and strict about
(words, rounding): a change of the library shows here.
"""

import random

import pytest

from autolambda.graders import latex
from autolambda.graders.grading import GRADERS
from autolambda.graders.math import Math, boxed

MATH = Math()

BOXES = {
    r"\boxed{7}": "7",
    r"so $\boxed{\frac{1}{2}}$.": r"\frac{1}{2}",
    r"\fbox{7}": "7",
    r"\boxed {7}": "7",
    "\\boxed\n{7}": "7",
    r"\boxed{\{1,2\}}": r"\{1,2\}",
    r"\boxed{a\}b}": r"a\}b",
    r"\boxed{7\\}": r"7\\",
    # two boxes: the last one
    r"\boxed{1} or rather \boxed{2}": "2",
    r"\boxed{x=\boxed{3}}": r"x=\boxed{3}",
    # braces that do not match
    r"\boxed{1} then \boxed{2": "1",
    r"\boxed{ 5 and \boxed{7}": "7",
    r"{{ \boxed{7}": "7",
    r"}} \boxed{7} }}": "7",
    r"\boxed{7": None,
    r"\boxed{\frac{1}{2}": None,
    r"\boxed{a\}": None,
    # without braces
    r"\boxed 5": "5",
    r"$\boxed 5$ holds": "5",
    r"\boxed5.": "5",
    r"\boxed -5,": "-5",
    # none
    "": None,
    "7": None,
    "boxed{7}": None,
    r"\boxedup{7}": None,
    r"\unboxed{7}": None,
    r"\boxed": None,
    r"\boxed{7}" + " " * 70_000: None,
}


@pytest.mark.parametrize("text", BOXES)
def test_the_box_that_is_read(text):
    assert boxed(text) == BOXES[text]


QUICK = [
    # no answer, or none that anybody would give
    ("7", "7", None, False),
    ("", "7", None, False),
    (r"\boxed{}", "7", None, False),
    (r"\boxed{ }", "7", None, False),
    (rf"\boxed{{{'1' * 1001}}}", "7", None, False),
    (r"\boxed{" + "{" * 21 + "7" + "}" * 22, "7", None, False),
    (rf"\boxed{{{'(' * 21}7{')' * 21}}}", "7", None, False),
    # whole numbers
    (r"\boxed{7}", "7", "7", True),
    (r"\boxed{8}", "7", "8", False),
    (r"\boxed{073}", "73", "073", True),
    (r"\boxed{73}", "073", "73", True),
    (r"\boxed{000}", "0", "000", True),
    (r"\boxed{+7}", "7", "+7", True),
    (r"\boxed{-7}", "7", "-7", False),
    ("\\boxed{\u22127}", "-7", "\u22127", True),
    (r"\boxed{-0}", "0", "-0", True),
    (r"\boxed{7.}", "7", "7.", True),
    (r"\boxed{$7$}", "7", "$7$", True),
    (r"\boxed{1,234}", "1234", "1,234", True),
    (r"\boxed{1{,}234}", "1234", "1{,}234", True),
    (r"\boxed{1\,234}", "1,234", r"1\,234", True),
    (r"\boxed{1,\!234}", "1234", r"1,\!234", True),
    ("\\boxed{1\u202f234}", "1234", "1\u202f234", True),
    (r"\boxed{1,234,567}", "1234567", "1,234,567", True),
    (rf"\boxed{{{'9' * 999}}}", "9" * 999, "9" * 999, True),
    (rf"\boxed{{{'9' * 999}}}", "9" * 998, "9" * 999, False),
    # two spellings of one expression
    (r"\boxed{\sqrt{2}}", r"\sqrt{2}", r"\sqrt{2}", True),
    (r"\boxed{ \text{east} }", r"\text{east}", r"\text{east}", True),
    (r"\boxed{\dfrac12\pi}", r"\frac{1}{2} \pi", r"\dfrac12\pi", True),
    (r"\boxed{\left( x,\; y \right]}", "(x, y]", r"\left( x,\; y \right]", True),
    (r"\boxed{2 \cdot x}", r"2\cdot x", r"2 \cdot x", True),
    (r"\boxed{\frac{1}{2}3}", r"\frac{1}{2} 3", r"\frac{1}{2}3", True),
    # plain decimals and fractions
    (r"\boxed{\frac{14}{2}}", "7", r"\frac{14}{2}", True),
    (r"\boxed{-\frac12}", r"\frac{-1}{2}", r"-\frac12", True),
    (r"\boxed{.50}", "1/2", ".50", True),
    (r"\boxed{2/3}", r"\frac{3}{2}", "2/3", False),
    (r"\boxed{0.33}", "1/3", "0.33", False),
]


@pytest.mark.parametrize(("text", "target", "answer", "correct"), QUICK)
def test_what_is_decided_quickly(text, target, answer, correct):
    for parsed in (MATH.quick(text, target), MATH.grade(text, target)):
        assert (parsed.answer, parsed.correct) == (answer, correct)


LEFT = [
    ("0.333333", "1/3"),
    ("1/0", "7"),
    ("50%", "0.5"),
    ("2x", "2 x"),
    (r"\pi x", r"\pix"),
    (r"\leftarrow", "arrow"),
    ("1, 234", "1,234"),
    ("12,34", "1234"),
    ("(1,234)", "1234"),
    ("1 234", "1234"),
    ("\u0667", "7"),
]


@pytest.mark.parametrize(("answer", "target"), LEFT)
def test_the_rest_is_left_to_the_parser(answer, target):
    assert MATH.quick(f"\\boxed{{{answer}}}", target) is None


CORRECT = [
    # fractions and decimals
    ("1/2", r"\frac{1}{2}"),
    ("0.5", r"\frac12"),
    (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    (r"\tfrac12", "1/2"),
    (r"\frac 1 2", "0.5"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"\frac{1}{-2}", "-0.5"),
    (r"3\frac{1}{2}", "3.5"),
    ("7.0", "7"),
    ("0.333333", "1/3"),
    (r"\frac{2}{4}", r"\frac{1}{2}"),
    # percent, degrees, money and units are left out; lax: any unit does
    (r"50\%", "0.5"),
    (r"50\%", "50"),
    ("50%", r"50\%"),
    (r"30^\circ", "30"),
    ("30", r"30^{\circ}"),
    (r"90\text{ degrees}", "90"),
    (r"\$18", "18"),
    (r"\$32{,}348", "32348"),
    (r"6.72 \text{ cm}", "6.72"),
    ("6.72", r"6.72 \text{ cm}"),
    (r"5 \text{ m}", r"5 \text{ cm}"),
    (r"14\text{ cm}^2", "14"),
    # an assignment
    ("x=5", "5"),
    ("5", "x=5"),
    # tuples, lists, sets; lax: a pair for a list of two
    (r"(3, \frac{\pi}{2})", r"\left( 3, \frac{\pi}{2} \right)"),
    ("(1{,}234, 5)", "(1234, 5)"),
    (r"\{1,2,3\}", r"\{3,2,1\}"),
    ("1,2,3", "3,2,1"),
    ("1,2,3", r"\{1,2,3\}"),
    (r"1 \text{ and } 2", r"\{1,2\}"),
    ("x=1, x=2", "1,2"),
    (r"\pm 3", "3,-3"),
    ("(2,3)", "2,3"),
    # intervals
    ("[0,1)", "[0, 1)"),
    (r"(-\infty,3]", r"x \le 3"),
    (r"(1,2)\cup(3,4)", r"(3,4)\cup(1,2)"),
    ("5 > x", "x < 5"),
    (r"\emptyset", r"\{\}"),
    # expressions
    (r"\sqrt{8}", r"2\sqrt2"),
    ("(x+1)^2", "x^2+2x+1"),
    ("a+b", "b+a"),
    (r"\frac{3}{4}\pi", r"\frac{3\pi}{4}"),
    (r"\log_2 8", "3"),
    (r"\binom{5}{2}", "10"),
    ("10!", "3628800"),
    ("2^{10}", "1024"),
    (r"1.5 \times 10^3", "1500"),
    ("1+2i", "2i+1"),
    ("2:3", "2/3"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1 & 2 \\ 3 & 4\end{bmatrix}"),
    # words, and a base that is dropped
    (r"\text{Evelyn}", "Evelyn"),
    ("evelyn", r"\text{Evelyn}"),
    (r"\text{(C)}", "C"),
    (r"\mathbf{12}", "12"),
    ("11_2", "11"),
    (r"\boxed{3}", "3"),
]
WRONG = [
    ("0.33", "1/3"),
    ("0.3333", "1/3"),
    ("3.14", r"\pi"),
    ("5", "0.5"),
    ("500%", "0.5"),
    ("y=5", "x=5"),
    ("3x", "3y"),
    ("(1,2)", "[1,2]"),
    ("(1,2)", "(2,1)"),
    ("[1,2]", "1,2"),
    ("1,2", "1,2,3"),
    (r"x\le 3", r"(-\infty,3]"),
    ("x^2=4", "x=2"),
    (r"\text{east}", "west"),
    (r"\text{A}", "B"),
    (r"\text{no solution}", r"\emptyset"),
    (r"\frac{5}{0}", "5"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}2&1\end{pmatrix}"),
    # strict: not read as the number that a person reads
    ("1.5e3", "1500"),
    ("18 dollars", "18"),
    (r"\text{12 apples}", "12"),
    ("3 1/2", "3.5"),
    ("1 000", "1000"),
    ("1,5", "1.5"),
    (r"0.\overline{3}", "1/3"),
    # no mathematics
    (r"\frac{}{}", "1"),
    ("...", "1"),
    ("\ud800", "1"),
    ("\0", "1"),
]


@pytest.mark.parametrize(("answer", "target"), CORRECT)
def test_equal_as_mathematics(answer, target):
    parsed = MATH.grade(f"thus \\boxed{{{answer}}}", target)
    assert (parsed.answer, parsed.correct) == (answer, True)


@pytest.mark.parametrize(("answer", "target"), WRONG)
def test_near_misses(answer, target):
    parsed = MATH.grade(f"thus \\boxed{{{answer}}}", target)
    assert (parsed.answer, parsed.correct) == (answer, False)


def test_the_two_stages_of_the_parser_read_alike():
    """Every answer of the tables, and pieces put together at random; the cache of the library is left out."""
    from latex2sympy2_extended import latex2sympy2

    latex.preload()
    converter = latex2sympy2._Latex2Sympy
    assert converter.__name__ == "TwoStage"
    (plain,) = converter.__bases__
    draw = random.Random(1)
    answers = [each for pair in CORRECT + WRONG for each in pair]
    answers += ["".join(draw.choices(PIECES, k=draw.choice((2, 3, 5, 7)))) for _ in range(150)]
    assert {answer: converted(converter, answer) for answer in answers} == {
        answer: converted(plain, answer) for answer in answers
    }


PIECES = [
    "1", "2", "x", "y", r"\frac{1}{2}",
    "+", "-", "(", ")", "[", "]", ",", r"\cup", r"\pi", r"\sqrt{3}", "^2", "_1", "=",
    "<", r"\le", r"\{", r"\}", r"\text{or}", "!", r"\sin", r"\infty", r"\cdot", "i", "e", r"\pm", r"\%", r"\log", "|",
]  # fmt: skip


def converted(converter, answer):
    try:
        return repr(converter(None, True, False).parse(answer))
    except Exception as error:
        return type(error)


@pytest.mark.parametrize(
    ("text", "target", "correct"),
    [
        (r"\boxed{7}", r"First $\boxed{3}$, so the answer is $\boxed{7}$.", True),
        (r"\boxed{3}", r"First $\boxed{3}$, so the answer is $\boxed{7}$.", False),
        (r"\boxed{7}", "x" * 2_000 + r" $\boxed{7}$", True),
    ],
)
def test_the_last_box_of_a_solution_is_the_target(text, target, correct):
    Math().check_target(target)
    assert Math().grade(text, target).correct is correct
    assert Math().grade(Math().canonical(target), target).correct


@pytest.mark.parametrize("grader", ["math", "exact", "contains"])
def test_a_solution_of_gsm8k_is_no_target(grader):
    with pytest.raises(ValueError, match="it is a solution that ends with #### and the answer"):
        GRADERS[grader].check_target("2 + 3 = 5\n#### 5")
    GRADERS[grader].check_target("#### A heading")
