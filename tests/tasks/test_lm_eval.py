"""Tasks of lm-evaluation-harness through the real library: its prompts, word for word, and documents it can score."""

import json

import pytest
from slices import slices_of

from autolambda.config import parse_config
from autolambda.errors import TaskError
from autolambda.graders.grading import GRADERS
from autolambda.tasks.lm_eval import read_items

pytest.importorskip("lm_eval")
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{train: {folder}/train.jsonl, {split}: {folder}/rows.jsonl}}}}
{kind}
{split_key}: {split}
training_split: train
fewshot_split: train
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_target: "{{{{answer}}}}"
description: "Add the numbers.\\n\\n"
num_fewshot: {shots}
generation_kwargs: {{until: ["Q:"]}}
filter_list:
  - name: first-number
    filter: [{{function: regex, regex_pattern: "(\\\\d+)"}}, {{function: take_first}}]
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for name, start in (("train", 100), ("rows", 0)):
        rows = [{"question": f"{start + i}+1", "answer": str(start + i + 1)} for i in range(6)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def define(folder, name, *, split="test", kind="output_type: generate_until", shots=0):
    """Names are the test's own: the library and we keep what was loaded under one."""
    key = "test_split" if split == "test" else "validation_split"
    text = TASK.format(name=name, folder=folder, split=split, split_key=key, kind=kind, shots=shots)
    (folder / f"{name}.yaml").write_text(text)
    return {"include_path": str(folder)}


def test_the_prompts_are_the_harness_s_own(folder):
    items = read_items("our_plain_sums", **define(folder, "our_plain_sums"))
    assert [[dict(each) for each in item.sample.messages] for item in items[:2]] == [
        [{"role": "system", "content": "Add the numbers.\n\n"}, {"role": "user", "content": f"Q: {i}+1\nA:"}]
        for i in (0, 1)
    ]
    assert [item.sample.id for item in items] == ["1", "2", "3", "4", "5", "6"]
    assert items[2].where == "lm-eval task 'our_plain_sums', document 3"


@pytest.mark.parametrize(("said", "num_examples"), [(None, 2), (0, 0), (3, 3)])
def test_few_shot_examples_are_turns_of_the_conversation(folder, said, num_examples):
    name = f"our_shot_sums_{num_examples}"
    keys = define(folder, name, shots=2)
    items = read_items(name, num_fewshot=said, **keys)
    roles = [[message["role"] for message in item.sample.messages] for item in items]
    assert roles == [["system", *["user", "assistant"] * num_examples, "user"]] * 6
    shots = {message["content"] for item in items for message in item.sample.messages[1:-1]}
    assert all("10" in text for text in shots) and bool(shots) == bool(num_examples)
    again = read_items(name, num_fewshot=said, **keys)
    assert [item.sample for item in again] == [item.sample for item in items]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_task_is_cut_in_two_and_scored_by_its_own_scorer(folder, split):
    name = f"our_cut_sums_{split}"
    keys = define(folder, name, split=split, shots=1)
    found = slices_of(parse_config({"tasks": [{"lm_eval": name, **keys}]}))
    (search,), (confirm,) = found.search, found.confirm
    assert (search.task, search.grader, search.repeats) == (name, "lm_eval", 8)
    assert {sample.id for sample in (*search.samples, *confirm.samples)} == {"1", "2", "3", "4", "5", "6"}
    for sample in search.samples:
        right = int(sample.id)
        grade = GRADERS["lm_eval"].grade
        assert grade(f"It is {right}. Q: 9", sample.target).correct
        assert not grade(f"It is {right + 1}", sample.target).correct


def test_a_task_that_does_not_generate_is_refused(folder):
    keys = define(folder, "our_ranked_sums", kind='output_type: multiple_choice\ndoc_to_choice: ["1", "2"]')
    with pytest.raises(TaskError, match="multiple_choice, which has no response to read"):
        read_items("our_ranked_sums", **keys)


def test_a_document_that_is_no_json_is_refused(folder):
    (folder / "made.py").write_text(
        "import datetime\n\n\ndef docs(dataset):\n"
        "    return dataset.map(lambda row: {'when': datetime.datetime(2020, 1, 1)})\n"
    )
    kind = "output_type: generate_until\nprocess_docs: !function made.docs"
    with pytest.raises(TaskError, match=r"'our_dated_sums', document 1 cannot be written as JSON .*take another task"):
        read_items("our_dated_sums", **define(folder, "our_dated_sums", kind=kind))


def test_a_prompt_that_opens_the_answer_is_refused(folder):
    kind = 'output_type: generate_until\ngen_prefix: "The sum is"'
    with pytest.raises(TaskError, match=r"opens the model's own turn .gen_prefix.; take a task without it"):
        read_items("our_opened_sums", **define(folder, "our_opened_sums", kind=kind))
