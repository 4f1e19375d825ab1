"""A task's part of the configuration: every source, and every combination of keys that has no meaning."""

import pytest

from autolambda.config import parse_config
from autolambda.errors import ConfigError
from autolambda.tasks.config import source_in_short


def task(**keys):
    return parse_config({"tasks": [keys]}).tasks[0]


@pytest.mark.parametrize(
    ("keys", "label", "grader"),
    [
        ({"name": "arithmetic"}, "arithmetic", "number"),
        ({"name": "gsm8k"}, "gsm8k", "math"),
        ({"name": "gsm8k", "path": "copies/my-gsm8k", "grader": "number"}, "gsm8k", "number"),
        ({"name": "ifeval", "revision": "abc"}, "ifeval", "ifeval"),
        ({"path": "folder/mine.tar.jsonl"}, "mine.tar", "number"),
        ({"path": "folder", "choices": "options"}, "folder", "choice"),
        ({"path": "a.csv", "choices": "options", "grader": "exact"}, "a", "exact"),
        ({"path": "a.csv", "grader": "my.module:grade"}, "a", "my.module:grade"),
        ({"path": "a.csv", "grader": "my.module.grade"}, "a", "my.module.grade"),
        ({"hub": "some/sums", "subset": "main", "split": "train", "revision": "abc"}, "sums", "number"),
        ({"hub": "squad"}, "squad", "number"),
        ({"lm_eval": "gsm8k_cot", "include_path": "tasks", "num_fewshot": 0}, "gsm8k_cot", "lm_eval"),
        ({"path": "a.csv", "label": "mine"}, "mine", "number"),
        ({"path": "a.csv", "confirm_on": "b/c.csv"}, "a/c", "number"),
        ({"name": "aime24", "confirm_on": "aime25"}, "aime24/aime25", "math"),
        ({"hub": "hiyouga/math12k", "grader": "math", "confirm_on": {"name": "math500"}}, "math12k/math500", "math"),
    ],
)
def test_the_label_and_the_grader_of_every_source(keys, label, grader):
    found = task(**keys)
    assert (found.label, found.grader_name) == (label, grader)
    config = parse_config({"tasks": [keys]})
    assert parse_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("math500", "name"),
        ("x.csv", "path"),
        ("a/b", "hub"),
        ("./b", "path"),
        ("a/b/c", "path"),
        ("a/b.txt", "path"),
        ("nowhere", "name"),
    ],
)
def test_a_set_to_confirm_on_in_short(text, key, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "math500").mkdir()  # a benchmark's name stays one, whatever lies here
    if text == "nowhere":
        with pytest.raises(ConfigError, match=r"tasks.0.confirm_on.name: unknown task 'nowhere'"):
            task(path="a.csv", confirm_on=text)
        (tmp_path / "nowhere").mkdir()
        key = "path"
    assert getattr(task(path="a.csv", confirm_on=text).confirm_on, key) == text


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, r"tasks.0: give either name or path, or else hub or lm_eval \(seen none\)"),
        ({"path": "x", "hub": "a/b"}, r"tasks.0: give either name or path, .*\(seen path, hub\)"),
        ({"name": "gsm8k", "hub": "a/b"}, r"\(seen name, hub\)"),
        ({"name": "gsm8"}, "tasks.0.name: unknown task 'gsm8'; did you mean 'gsm8k'. known: arithmetic, gsm8k, .*hub$"),
        ({"name": "MATH-500"}, "unknown task 'MATH-500'; did you mean 'math500'"),
        ({"name": "cais/mmlu"}, "unknown task 'cais/mmlu'; did you mean hub: cais/mmlu. known"),
        ({"path": "x", "max_unusable": 1}, "tasks.0.max_unusable: .* seen 1"),
        ({"name": "gsm8k", "id": "key"}, "id: not for a task by name 'gsm8k'"),
        ({"path": "x", "prompt": "{{question}}"}, "prompt must contain {question}"),
        ({"name": "x" * 500}, "tasks.0.name: unknown task 'x+'; known: arithmetic"),
        ({"name": "arithmetic", "path": "x"}, "tasks.0: path: not for a task by name 'arithmetic' and path; leave it"),
        ({"name": "arithmetic", "split": "train"}, "split: not for a task by name 'arithmetic'"),
        ({"name": "gsm8k", "question": "q", "answer": "a"}, "answer, question: not for a task by name 'gsm8k'"),
        ({"name": "gsm8k", "path": "x", "revision": "abc"}, "revision: not for a task by name 'gsm8k' and path"),
        ({"path": "x", "revision": "abc"}, "revision: not for a task by path"),
        ({"path": "x", "num_fewshot": 3}, "num_fewshot: not for a task by path"),
        ({"lm_eval": "x", "grader": "math"}, "grader: not for a task by lm_eval"),
        ({"lm_eval": "x", "confirm_split": "test"}, "confirm_split: not for a task by lm_eval"),
        ({"hub": "not a/name"}, "tasks.0.hub: .* seen 'not a/name'"),
        ({"path": "x", "messages": "m", "prompt": "{question}"}, "messages are a whole prompt; leave out choices and"),
        ({"path": "x", "prompt": "hello"}, "prompt must contain {question}, seen 'hello'"),
        ({"path": "x", "choices": "c", "prompt": "{question}"}, "prompt must contain {choices}"),
        ({"path": "x", "grader": "nu\nmber"}, "tasks.0.grader: unknown grader 'nu.*known: exact, number, contains"),
        ({"path": "x", "grader": "mth"}, "unknown grader 'mth'; did you mean 'math'. .*package.module:function"),
        ({"path": "x", "confirm_on": "b.csv", "confirm_split": "b"}, "give either confirm_split or confirm_on"),
        ({"name": "arithmetic", "confirm_on": "b.csv"}, "'arithmetic' has a confirmation slice of its own"),
        ({"path": "x", "confirm_on": "arithmetic"}, "'arithmetic' has a confirmation slice of its own"),
        ({"path": "x", "confirm_on": {"pth": "b"}}, "unknown key 'tasks.0.confirm_on.pth'; did you mean 'path'"),
        ({"path": "x", "confirm_on": {"path": "b", "limit": 3}}, "unknown key 'tasks.0.confirm_on.limit'"),
        ({"path": "x", "confirm_on": 3}, "tasks.0.confirm_on: expected keys and values, seen 3"),
        ({"path": "x", "guard": True}, "tasks.0.guard: true and false have no meaning here"),
        ({"path": "x", "guard": {"max_drop": 2}}, "tasks.0.guard.max_drop: .* seen 2"),
        ({"path": "x", "guard": {"max_drp": 0.1}}, "unknown key 'tasks.0.guard.max_drp'; did you mean 'max_drop'"),
        ({"path": "x", "guard": {}, "weight": 2}, "a guard weighs nothing in the average; leave out weight"),
        ({"path": "x", "guard": {}}, "every one is a guard; at least one must be searched for"),
        ({"path": "x", "on_grader_error": "go on"}, "tasks.0.on_grader_error: .* seen 'go on'"),
        ({"path": "x", "repeats": 0}, "tasks.0.repeats"),
    ],
)
def test_what_has_no_meaning_is_refused_in_one_line(keys, message):
    with pytest.raises(ConfigError, match=message) as caught:
        task(**keys)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 400


@pytest.mark.parametrize("hub", ["openai/gsm8k", "OpenAI/GSM8K"])
def test_a_benchmark_may_be_named_by_its_hub_id(hub):
    assert task(name=hub).name == "gsm8k"
    assert task(path="a.csv", confirm_on=hub).confirm_on.name == "gsm8k"


@pytest.mark.parametrize(
    ("text", "key"),
    [("openai/gsm8k", "name"), ("cais/mmlu", "hub"), ("mine/set-v1.5", "hub"), ("here/mmlu", "path"),
     ("a/b.jsonl", "path"), ("a/b.jsonl.gz", "path"), ("a.csv", "path"), ("../a", "path"), ("gsm8k", "name"),
     ("here", "path")],
)  # fmt: skip
def test_a_source_in_one_word(text, key, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert list(source_in_short(text)) == [key]


def test_a_task_stored_before_there_were_benchmarks_is_read():
    stored = {"name": "arithmetic", "path": None, "question": "question", "answer": "answer", "grader": "number",
              "limit": 1024, "repeats": 1, "weight": 1.0}  # fmt: skip
    assert task(**stored).label == "arithmetic"
    assert task(**stored | {"name": None, "path": "/a/b.csv"}).label == "b"
