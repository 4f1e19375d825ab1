"""Thousands of hostile responses through every grader: each gets a score, in time and within bounded memory.

The many kinds that are cheap make up the number; those that hang a parser are few, since each costs its time limit.
"""

import json
import random
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from punkt import install_punkt

from autolambda.graders.service import GradingService
from autolambda.responses import Grade, Response
from tests.graders.test_lm_eval import DOC, SUMS

SECONDS = 1.0
NUM_BYTES = 2 << 30
MOST_RSS = 700 << 20  # of a worker, with lm-eval and datasets loaded
PARTS = [
    r"\boxed{", r"\fbox{", r"\frac{", r"\sqrt{", r"\left(", r"\right)", r"\text{",
    r"\begin{pmatrix}", r"\end{pmatrix}",
    "{", "}", "}}", "(", ")", "[", "]", "$", "\\", "\\\\", "&",
    "^", "^{", "_", "_{", "9", "999999999", "1e999", "-", "\u2212",
    ",", ";", ".", "=", "!", "%", r"\%", r"^\circ", r"\infty", r"\cup", r"\pm",
    "x", "i", "e", "C", "*", "<think>", "</think>",
    "Answer:", "ANSWER: $", "answer is ", "\n", "\r", "\t", "\0", "\x1b[2J", "\x7f",
    "\ud800", "\udfff", "\u202e", "\u0663",
]  # fmt: skip
# They hang the parser or eat memory; a box around each makes math look at it.
EXPENSIVE = [r"9^{9^{9^{9}}}", r"10000000!", "x^" * 300 + "2", r"\frac{" * 15 + "1" + "}{2}" * 15]
MEGABYTES = [
    part * (1_000_000 // len(part)) for part in ("a", "{", "\\boxed{", "9", "answer: ", "\0", "\n", "\ud800", "1,")
]
EVERYTHING_IN = [r"\boxed{%s}", "%s", r"ANSWER: $%s$", r"so $$\boxed{%s}$$ </think> \boxed{%s"]


def hostile_texts(num_texts):
    """Seeded, so a failure comes back; one in fifty holds a box that reaches the parser."""
    draw = random.Random(5)
    yield from (rf"\boxed{{{text}}}" for text in EXPENSIVE)
    yield from MEGABYTES
    for number in range(num_texts - len(EXPENSIVE) - len(MEGABYTES)):
        text = "".join(draw.choices(PARTS, k=draw.choice((1, 5, 20, 100))))
        if number % 50 == 0:
            text = r"\boxed{" + "".join(draw.choices(PARTS[2:-12], k=draw.choice((1, 3, 9)))) + "}"
        yield text


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    """A target for each grader; those of extras that are not installed are left out."""
    targets = {
        "exact": "7", "number": "7", "contains": "7", "choice": "C", "math": r"\frac{1}{2}", "regex": r"(\w+\s?)+=",
    }  # fmt: skip
    patch = pytest.MonkeyPatch()
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        yield targets
        return
    folder = tmp_path_factory.mktemp("hostile")
    install_punkt(folder / "nltk", patch=patch)
    patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    (folder / "rows.jsonl").write_text(json.dumps(DOC) + "\n")
    (folder / "sums.yaml").write_text(SUMS.format(folder=folder))
    targets["lm_eval"] = json.dumps({"task": "autolambda_sums", "include_path": str(folder), "doc": DOC})
    ids = ["punctuation:no_comma", "length_constraints:number_words", "detectable_format:title"]
    arguments = [{}, {"num_words": 3, "relation": "at least"}, {}]
    row = {"key": 1, "prompt": "p", "instruction_id_list": ids, "kwargs": arguments}
    targets["ifeval"] = json.dumps(row)
    yield targets
    patch.undo()


def score(service, text, target, grader):
    return service.score(Response(text, 1, "stop"), target, grader=grader, think_end="</think>")


@pytest.mark.parametrize("grader", ["exact", "number", "contains", "choice", "math", "regex", "ifeval", "lm_eval"])
@pytest.mark.parametrize("num_texts", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_of_hostile_texts(targets, grader, num_texts):
    if grader not in targets:
        pytest.skip("its extra is not installed")
    with closing(GradingService(num_workers=2, seconds=SECONDS, num_bytes=NUM_BYTES)) as service:
        service.start([grader])
        futures = [score(service, text, targets[grader], grader) for text in hostile_texts(num_texts)]
        grades, most = Counter(), 0
        for number, future in enumerate(futures):
            grades[future.result(timeout=120).grade] += 1
            if number % 100 == 0:
                most = max(most, most_rss(service))
    assert grades.total() == num_texts
    assert grades[Grade.UNPARSED] > 0
    assert grades[Grade.WRONG] + grades[Grade.CORRECT] > 0
    assert most < MOST_RSS


def most_rss(service):
    """The memory of the largest worker in bytes; 0 where the platform does not tell."""
    sizes = [0]
    for keeper in service._pool._keepers if service._pool else []:
        status = Path(f"/proc/{keeper._process.pid}/status") if keeper._process else None
        if status and status.exists():
            lines = dict(line.partition(":")[::2] for line in status.read_text().splitlines())
            sizes.append(int(lines.get("VmRSS", "0 kB").split()[0]) * 1024)
    return max(sizes)


@pytest.fixture(scope="module")
def service(targets):
    with closing(GradingService(num_workers=2, seconds=SECONDS, num_bytes=NUM_BYTES)) as service:
        service.start(targets)
        yield service


texts = st.lists(st.sampled_from(PARTS) | st.text(st.characters(), max_size=5), max_size=40).map("".join)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_text_gets_a_score(service, targets, data):
    grader = data.draw(st.sampled_from(sorted(targets)))
    text = data.draw(st.sampled_from(EVERYTHING_IN)).replace("%s", data.draw(texts))
    found = score(service, text, targets[grader], grader).result(timeout=60)
    assert (found.answer is None) == (found.grade is Grade.UNPARSED)
    if "</think>" in text and grader == "exact":
        assert found.answer is None or "</think>" not in found.answer
