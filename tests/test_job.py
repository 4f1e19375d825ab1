"""A job: what can be checked before a weight is moved, and what a study's results depend on."""

import json

import pytest

from autolambda.config import Config, parse_config
from autolambda.errors import ConfigError, TaskError
from autolambda.job import open_job


@pytest.fixture
def path(tmp_path):
    rows = [{"question": f"{i}+1=", "answer": str(i + 1)} for i in range(8)]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def config(path, **sections) -> Config:
    task = {"path": path} | sections.pop("task", {})
    return parse_config({"tasks": [task], "sampling": {"max_tokens": 64}} | sections)


def test_a_job_needs_a_task():
    with pytest.raises(ConfigError, match="no task: give --task FILE"):
        open_job(parse_config({}))


def test_the_slices_follow_limits_and_repeats(path):
    job = open_job(config(path, task={"limit": 3, "repeats": 2}, confirm={"limit": 2, "repeats": 5}))
    (search,), (confirm,) = job.search, job.confirm
    assert (len(search.samples), search.repeats) == (3, 2)
    assert (len(confirm.samples), confirm.repeats) == (2, 5)
    assert not {sample.id for sample in search.samples} & {sample.id for sample in confirm.samples}


def test_the_bundled_task_and_files_go_together(path):
    job = open_job(parse_config({"tasks": [{"name": "arithmetic", "limit": 2}, {"path": path, "weight": 3}],
                                 "sampling": {"max_tokens": 64}}))  # fmt: skip
    assert [(part.task, part.weight) for part in job.search] == [("arithmetic", 1.0), ("mine", 3.0)]


def test_a_prompt_must_fit_with_its_response(path):
    context = open_job(config(path)).models.context
    with pytest.raises(TaskError, match=r"task 'mine', sample '\d+': its prompt of \d+ tokens and sampling.max_tokens"):
        open_job(config(path, sampling={"max_tokens": context - 5}))


def test_a_prompt_may_not_be_empty(path, tmp_path):
    template = tmp_path / "empty.jinja"
    template.write_text("{# nothing #}")
    with pytest.raises(TaskError, match="renders it to nothing"):
        open_job(config(path, models={"chat_template": str(template)}))


def test_the_identity_is_the_same_for_the_same_job(path):
    first, second = (open_job(config(path, budget=budget)).identity for budget in (None, 30))
    assert first == second == json.loads(json.dumps(first))


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"task": {"limit": 2}}, {"tasks"}),
        ({"task": {"grader": "exact"}}, {"tasks"}),
        ({"task": {"weight": 2}}, {"tasks"}),
        ({"confirm": {"limit": 2}}, {"tasks"}),
        ({"sampling": {"max_tokens": 64, "temperature": 0.1}}, {"sampling.temperature"}),
        ({"sampling": {"max_tokens": 65, "stop": ["x"]}}, {"sampling.max_tokens", "sampling.stop"}),
        ({"models": {"chat_template": "instruct"}}, {"models.chat_template"}),
        ({"models": {"chat_template_kwargs": {"a": 1}}}, {"models.chat_template"}),
        ({"models": {"think_end": "[/T]"}}, {"models.think_end"}),
        ({"models": {"tokenizer": "instruct"}}, {"models.tokenizer"}),
        ({"search": {"seed": 1}}, {"search.seed", "tasks"}),
        ({"search": {"knots": 4}}, {"search.knots"}),
        ({"engine": {"dtype": "bfloat16"}}, {"engine.dtype"}),
        ({"engine": {"batch_size": 7}}, {"engine.batch_size"}),
        ({"search": {"trials": 50, "spaces": ["uniform"], "sampler": "gp"}}, set()),
        ({"confirm": {"finalists": 2, "margin": 0.1}, "engine": {"threads": 1}}, set()),
    ],
)
def test_what_results_depend_on_changes_the_identity_by_name(path, change, keys):
    before, now = open_job(config(path)).identity, open_job(config(path, **change)).identity
    assert {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)} == keys


def test_the_models_count_by_content(path, tmp_path):
    import shutil

    from autolambda.tasks.arithmetic import FOLDER

    for name in ("instruct", "thinking"):
        shutil.copytree(FOLDER / name, tmp_path / name)
    models = {name: str(tmp_path / name) for name in ("instruct", "thinking")}
    before = open_job(config(path)).identity
    assert open_job(config(path, models=models)).identity == before
    (tmp_path / "instruct" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert open_job(config(path, models=models)).identity != before
