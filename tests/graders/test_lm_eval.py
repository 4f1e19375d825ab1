"""The scorer of an lm-evaluation-harness task, with a real task of a few rows on disk."""

import json

import pytest

from autolambda.errors import TaskError
from autolambda.graders import lm_eval
from autolambda.graders.grading import find_grader, score
from autolambda.graders.lm_eval import load_task
from autolambda.responses import Grade, Response

pytest.importorskip("lm_eval")
LM_EVAL = lm_eval.LMEval()

SUMS = """
task: autolambda_sums
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/rows.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: ["Q:", "</s>"]
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
filter_list:
  - name: last-number
    filter:
      - function: regex
        regex_pattern: "the sum is (-?[0-9]+)"
      - function: take_first
  - name: other
    filter:
      - function: take_first
"""
LENGTHS = """
task: autolambda_lengths
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/rows.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: "."
process_results: !function lengths.score
metric_list:
  - metric: length
    aggregation: mean
    higher_is_better: true
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
CHOICES = """
task: autolambda_choices
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: 0
doc_to_choice: ["yes", "no"]
"""
BLANK = SUMS.replace("autolambda_sums", "autolambda_blank").replace('["Q:", "</s>"]', '["\\n\\n"]')
GROUP = "group: autolambda_group\ntask: [autolambda_sums, autolambda_lengths]\n"
ABSENT = CHOICES.replace("autolambda_choices", "autolambda_absent").replace("rows.jsonl", "nowhere.jsonl")
SCORE = """
import numpy
def score(doc, results):
    return {"length": len(results[0]), "acc": numpy.bool_(results[0] == doc["answer"]), "text": results[0]}
"""
DOC = {"question": "2 + 3", "answer": "5"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm_eval")
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
    (folder / "rows.jsonl").write_text(json.dumps(DOC) + "\n")
    (folder / "lengths.py").write_text(SCORE)
    for name, text in {
        "sums": SUMS,
        "lengths": LENGTHS,
        "choices": CHOICES,
        "absent": ABSENT,
        "group": GROUP,
        "blank": BLANK,
    }.items():
        (folder / f"{name}.yaml").write_text(text.format(folder=folder))
    yield str(folder)
    patch.undo()


def target(folder, task="autolambda_sums", metric=None):
    return json.dumps({"task": task, "include_path": folder, "doc": DOC, "metric": metric})


@pytest.mark.parametrize(
    ("text", "answer", "correct"),
    [
        ("the sum is 5", '{"exact_match":1.0}', True),
        ("first the sum is 5", '{"exact_match":1.0}', True),
        ("the sum is 6", '{"exact_match":0.0}', False),
        ("5", '{"exact_match":0.0}', False),  # the first filter does not find it
        ("the sum is 4 Q: the sum is 5", '{"exact_match":0.0}', False),  # behind a stop string
        ("the sum is 5</s> the sum is 6", '{"exact_match":1.0}', True),
        (" \n", None, False),
    ],
)
def test_the_tasks_own_filter_stop_strings_and_metric(folder, text, answer, correct):
    parsed = LM_EVAL.grade(text, target(folder))
    assert (parsed.answer, parsed.correct) == (answer, correct)


@pytest.mark.parametrize("text", ["%s", "<think>\nadd\n</think>%s", "<think>\n\nadd\n</think>\n\n%s", "\n\n%s"])
def test_a_blank_line_after_the_thought_is_not_a_stop_string(folder, text):
    response = Response(text % "the sum is 5\n\nthe sum is 6", 5, "stop")
    found = score(response, target(folder, "autolambda_blank"), grader=find_grader("lm_eval"), think_end="</think>")
    assert found.grade is Grade.CORRECT


@pytest.mark.parametrize(
    ("text", "metric", "correct"),
    [("5.", None, True), ("6", None, False), ("6", "length", True), ("5", "acc", True)],
)
def test_the_metric_that_counts(folder, text, metric, correct):
    parsed = LM_EVAL.grade(text, target(folder, "autolambda_lengths", metric))
    assert parsed.correct is correct
    assert json.loads(parsed.answer) == {"length": 1.0, "acc": float(text == "5" or text == "5.")}


def test_a_metric_that_is_not_there(folder):
    with pytest.raises(ValueError, match="no number 'text'; it gives length, acc"):
        LM_EVAL.grade("5", target(folder, "autolambda_lengths", "text"))


def test_the_customary_metric_comes_before_the_first(folder):
    assert lm_eval.choose_metric(load_task("autolambda_lengths", folder)) == "acc"
    assert lm_eval.stop_strings(load_task("autolambda_lengths", folder)) == (".",)


def test_a_task_is_loaded_once(folder):
    LM_EVAL.preload(target(folder))
    assert load_task("autolambda_sums", folder) is load_task("autolambda_sums", folder)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("autolambda_choices", "of type multiple_choice, which has no response to read"),
        ("autolambda_absent", "data of the lm-eval task 'autolambda_absent' cannot be loaded .*nowhere"),
        ("autolambda_sum", "unknown lm-eval task 'autolambda_sum'; did you mean autolambda_sums"),
        ("autolambda_group", "'autolambda_group' is a group of lm-eval tasks"),
    ],
)
def test_a_task_that_cannot_be_used(folder, monkeypatch, task, message):
    index = lm_eval._index  # without the library's own tasks, whose index takes 10 s
    monkeypatch.setattr("autolambda.graders.lm_eval._index", lambda path, include_defaults: index(path, False))
    with pytest.raises(TaskError, match=message) as caught:
        load_task(task, folder)
    assert "\n" not in str(caught.value)


def test_the_librarys_own_tasks_are_known_beside_those_of_a_folder(folder):
    with pytest.raises(TaskError, match="'mmlu' is a group of lm-eval tasks"):
        load_task("mmlu", folder)


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setattr("autolambda.graders.lm_eval.find_spec", lambda name: None)
    with pytest.raises(TaskError, match=r"pip install 'autolambda\[lm-eval\]'"):
        load_task("autolambda_other")


def test_only_an_empty_text_is_told_at_once():
    assert LM_EVAL.quick(" ", "{}").answer is None
    assert LM_EVAL.quick("a", "{}") is None
