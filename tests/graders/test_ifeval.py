"""IFEval: all 25 instructions followed and not, the four scores, and what is said where something is missing."""

import json
import subprocess
import sys

import pytest
from punkt import install_punkt

from autolambda.errors import TaskError
from autolambda.graders import ifeval

IFEVAL = ifeval.IFEval()

ENGLISH = "The river rose in the night and nobody in the village slept until the morning came."
GERMAN = "Der Fluss stieg in der Nacht und niemand im Dorf schlief, bis endlich der Morgen kam."
# instruction: arguments, a text that follows it, one that does not
INSTRUCTIONS = {
    "keywords:existence": ({"keywords": ["oak", "rope"]}, "An oak and a rope.", "An oak."),
    "keywords:frequency": ({"keyword": "oak", "frequency": 2, "relation": "at least"}, "Oak or oak.", "One oak."),
    "keywords:forbidden_words": ({"forbidden_words": ["oak"]}, "Oaken doors.", "An oak."),
    "keywords:letter_frequency": ({"letter": "z", "let_frequency": 2, "let_relation": "at least"}, "Zigzag.", "Zip."),
    "language:response_language": ({"language": "de"}, GERMAN, ENGLISH),
    "length_constraints:number_sentences": ({"num_sentences": 2, "relation": "less than"}, "It rose.", "So. It rose."),
    "length_constraints:number_paragraphs": ({"num_paragraphs": 2}, "One\n***\ntwo", "One\n\ntwo"),
    "length_constraints:number_words": ({"num_words": 4, "relation": "at least"}, "it rose and fell", "it rose"),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "It rose.\n\nThen it fell.",
        "It rose.\n\nAnd then it fell.",
    ),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, "Dear [name] of [town]", "Dear [name]"),
    "detectable_content:postscript": ({"postscript_marker": "P.S."}, "Yours\nP.S. Write.", "Yours\nWrite."),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, "* one\n* two", "* one\n* two\n* three"),
    "detectable_format:constrained_response": ({}, "My answer is yes.", "Yes."),
    "detectable_format:number_highlighted_sections": ({"num_highlights": 2}, "*one* and *two*", "*one* and two"),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Part", "num_sections": 2},
        "Part 1\nrise\nPart 2\nfall",
        "Part 1\nrise and fall",
    ),
    "detectable_format:json_format": ({}, '```json\n{"rose": true}\n```', "{rose: true}"),
    "detectable_format:title": ({}, "<<The river>>\nIt rose.", "<The river>\nIt rose."),
    "combination:two_responses": ({}, "It rose.\n******\nIt fell.", "It rose.\n******\nIt rose."),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Did it rise?"}, "did it rise? Yes.", "Yes. Did it rise?"),
    "startend:end_checker": ({"end_phrase": "The end."}, "It fell. the end.", "It fell. The end. Yes."),
    "startend:quotation": ({}, '"It rose."', 'He said: "It rose."'),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": "at least"},
        "It ROSE and it FELL.",
        "It ROSE and it fell.",
    ),
    "change_case:english_capital": ({}, ENGLISH.upper(), ENGLISH),
    "change_case:english_lowercase": ({}, ENGLISH.lower(), ENGLISH),
    "punctuation:no_comma": ({}, "It rose and fell.", "It rose, and fell."),
}


@pytest.fixture(scope="module", autouse=True)
def punkt(tmp_path_factory):
    pytest.importorskip("lm_eval")
    patch = pytest.MonkeyPatch()
    yield install_punkt(tmp_path_factory.mktemp("nltk"), patch=patch)
    patch.undo()


def target(*names):
    arguments = [INSTRUCTIONS[name][0] for name in names]
    return json.dumps({"key": 1, "prompt": "Go on.", "instruction_id_list": list(names), "kwargs": arguments})


def test_the_instructions_are_those_of_the_library():
    from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

    assert ifeval.INSTRUCTIONS == INSTRUCTION_DICT.keys() == INSTRUCTIONS.keys()


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_an_instruction_that_is_followed_and_one_that_is_not(name):
    IFEVAL.check_target(target(name))
    _, good, bad = INSTRUCTIONS[name]
    assert IFEVAL.grade(good, target(name)).correct
    assert not IFEVAL.grade(bad, target(name)).correct


def test_the_four_scores_of_a_response():
    both = target("punctuation:no_comma", "detectable_format:title")
    parsed = IFEVAL.grade("Sure, here it is:\n<<The river>>", both)
    assert not parsed.correct
    assert json.loads(parsed.answer) == {
        "prompt_level_strict_acc": False,
        "inst_level_strict_acc": [False, True],
        "prompt_level_loose_acc": True,  # without the first line
        "inst_level_loose_acc": [True, True],
    }
    assert " " not in parsed.answer


def test_scores_over_responses_weigh_each_instruction_alike():
    both = target("punctuation:no_comma", "detectable_format:title")
    answers = [
        IFEVAL.grade("Sure, here it is:\n<<The river>>", both).answer,
        IFEVAL.grade("a, b", target("punctuation:no_comma")).answer,
        IFEVAL.grade("a b", target("punctuation:no_comma")).answer,
    ]
    assert ifeval.scores(answers) == {
        "prompt_level_strict_acc": 1 / 3,
        "inst_level_strict_acc": 2 / 4,
        "prompt_level_loose_acc": 2 / 3,
        "inst_level_loose_acc": 3 / 4,
    }
    assert ifeval.scores([]) == {}


def test_an_empty_text_is_no_answer():
    assert IFEVAL.grade(" \n", target("punctuation:no_comma")).answer is None
    assert IFEVAL.quick(" \n", "{}").answer is None
    assert IFEVAL.quick("a", "{}") is None


def test_one_text_is_always_of_one_language():
    mixed = "haus house la casa es grande and the das kind is klein mais oui"
    target_ = target("language:response_language")
    assert len({IFEVAL.grade(mixed, target_).correct for _ in range(20)}) == 1


def test_the_random_numbers_of_others_are_left_alone():
    import random

    random.seed(3)
    expected = random.random()
    random.seed(3)
    row = {"key": 1, "prompt": "p", "instruction_id_list": ["keywords:existence"], "kwargs": [{}]}  # drawn by chance
    assert len({IFEVAL.grade("western sentence signal", json.dumps(row)).answer for _ in range(3)}) == 1
    assert random.random() == expected


def test_all_is_there(punkt):
    ifeval.check()


@pytest.mark.parametrize("call", ["check()", "IFEval().preload(None)", "IFEval().grade('a', '{}')"])
def test_a_missing_sentence_splitter_is_said_without_a_download(tmp_path, call):
    code = f"""
import nltk
nltk.data.path[:] = []
nltk.download = lambda *arguments: print("download")
from autolambda.graders import ifeval
from autolambda.errors import TaskError
try:
    ifeval.{call}
except TaskError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("IFEval needs nltk's sentence splitter punkt_tab")
    assert "python -m nltk.downloader punkt_tab" in done.stdout
    assert "download\n" not in done.stdout
    assert done.stdout.count("\n") == 1


def test_missing_packages_are_said(monkeypatch):
    monkeypatch.setattr(ifeval, "find_spec", lambda name: None if name in ("langdetect", "nltk") else object())
    with pytest.raises(TaskError, match=r"packages langdetect, nltk; run: pip install 'autolambda\[ifeval\]'"):
        ifeval.check()
