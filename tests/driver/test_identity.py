"""What a study's results depend on: which change of a config changes which key, and which changes none."""

import json
import shutil

import pytest
import torch

from autolambda.bundled import FOLDER
from autolambda.config import Config, parse_config
from autolambda.driver.identity import MACHINE_ARGUMENTS
from autolambda.driver.job import open_job


@pytest.fixture
def path(tmp_path):
    rows = [{"question": f"{i}+1=", "answer": str(i + 1)} for i in range(8)]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def config(path, **sections) -> Config:
    task = {"path": path} | sections.pop("task", {})
    engine = {"device": "cpu"} | sections.pop("engine", {})
    return parse_config({"tasks": [task], "sampling": {"max_tokens": 64}, "engine": engine} | sections)


def test_the_identity_is_the_same_for_the_same_job(path):
    first, second = (open_job(config(path, budget=budget)).identity for budget in (None, 30))
    assert first == second == json.loads(json.dumps(first))


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"task": {"limit": 2}}, {"tasks", "search.rungs"}),
        ({"search": {"rungs": [2]}}, {"search.rungs"}),
        ({"search": {"rungs": [200]}}, set()),  # above the slice: no rung
        ({"task": {"grader": "exact"}}, {"tasks"}),
        ({"task": {"weight": 2}}, {"tasks"}),
        ({"confirm": {"limit": 2}}, {"tasks", "confirm.responses", "confirm.prompts"}),
        ({"confirm": {"repeats": 2}}, {"tasks", "confirm.responses"}),
        ({"sampling": {"max_tokens": 64, "temperature": 0.1}}, {"sampling.temperature"}),
        ({"sampling": {"max_tokens": 65, "stop": ["x"]}}, {"sampling.max_tokens", "sampling.stop"}),
        ({"models": {"chat_template": "instruct"}}, {"models.chat_template", "models.prompt"}),
        ({"models": {"chat_template_kwargs": {"a": 1}}}, {"models.chat_template"}),
        ({"models": {"think_end": "[/T]"}}, {"models.think_end"}),
        ({"models": {"tokenizer": "instruct"}}, {"models.tokenizer"}),
        ({"search": {"seed": 1}}, {"search.seed", "tasks", "models.prompt"}),
        ({"search": {"knots": 4}}, {"search.knots"}),
        ({"engine": {"dtype": "bfloat16"}}, {"engine.dtype"}),
        ({"engine": {"batch_size": 7}}, {"engine.batch_size"}),
        ({"engine": {"batch_size": 256}}, set()),
        ({"search": {"trials": 50, "spaces": ["uniform"], "sampler": "gp"}}, set()),
        ({"search": {"max_tokens_generated": 9, "min_gain": 0.1, "baselines": ["ties"]}}, set()),
        ({"confirm": {"finalists": 2, "margin": 0.1}, "engine": {"threads": 1}}, set()),
        ({"search": {"range": [-0.2, 1.2]}}, set()),
        ({"search": {"spaces": ["uniform", "scale"]}}, {"models.base"}),
        ({"models": {"third": str(FOLDER / "base")}}, set()),
        (
            {"models": {"third": str(FOLDER / "base")}, "search": {"spaces": ["uniform", "third"]}},
            {"models.third"},
        ),
    ],
)
def test_what_results_depend_on_changes_the_identity_by_name(path, change, keys):
    before, now = open_job(config(path)).identity, open_job(config(path, **change)).identity
    assert {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)} == keys


def test_the_models_count_by_content(path, tmp_path):
    for name in ("instruct", "thinking"):
        shutil.copytree(FOLDER / name, tmp_path / name)
    models = {name: str(tmp_path / name) for name in ("instruct", "thinking")}
    before = open_job(config(path)).identity
    assert open_job(config(path, models=models)).identity == before
    (tmp_path / "instruct" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert open_job(config(path, models=models)).identity != before


def engine_keys(path, monkeypatch=None, *, device="cpu", **engine):
    """The identity's keys of the engine; those of vLLM where ``monkeypatch`` makes it appear installed for a device."""
    if monkeypatch is None:
        identity = open_job(config(path, engine=engine)).identity
    else:
        monkeypatch.setattr("autolambda.driver.job.installed_version", lambda: "0.32.0")
        monkeypatch.setattr("autolambda.driver.identity.vllm_device", lambda: torch.device(device))
        identity = open_job(config(path, engine={"name": "vllm", "device": "auto"} | engine)).identity
    assert json.loads(json.dumps(identity)) == identity
    return {key: value for key, value in identity.items() if key.startswith("engine.")}


def test_studies_of_transformers_from_before_there_was_vllm_go_on(path):
    assert engine_keys(path) == {"engine.dtype": "float32", "engine.batch_size": 256}


@pytest.mark.parametrize(
    ("said", "more"),
    [
        ({}, {}),
        ({"batch_size": 8}, {"engine.batch_size": 8}),
        ({"kv_cache_dtype": "fp8"}, {"engine.kv_cache_dtype": "fp8"}),
        ({"quantization": None}, {}),
        ({"hf_overrides": {"a": [1]}, "trust": True}, {"engine.hf_overrides": {"a": [1]}, "engine.trust": True}),
        ({"merge": "stream", "parents": "files"}, {}),
        ({"seeds": "auto"}, {"engine.seeds": "request"}),
        ({"seeds": "request"}, {"engine.seeds": "request"}),
        ({"tensor_parallel_size": 2, "gpu_memory_utilization": 0.5, "enforce_eager": True}, {}),
        (dict.fromkeys(MACHINE_ARGUMENTS, 1), {}),
    ],
)
def test_with_vllm_what_changes_responses_counts(path, monkeypatch, said, more):
    expected = {"engine.name": "vllm", "engine.dtype": "float32"} | more
    assert engine_keys(path, monkeypatch, **{"seeds": "call"} | said) == expected  # as before there was a choice


@pytest.mark.parametrize(
    ("said", "resolved", "stored", "expected"),
    [
        ("auto", "request", None, "call"),  # a study from before there was a choice
        ("auto", "call", "request", "request"),  # begun on a GPU, resumed on a CPU
        ("auto", "request", "request", "request"),
        ("request", "request", None, "request"),  # the user's choice, which the study then refuses
        ("call", "call", "request", "call"),
    ],
)
def test_a_study_keeps_its_seeds_unless_the_config_chooses(path, monkeypatch, said, resolved, stored, expected):
    monkeypatch.setattr("autolambda.driver.job.installed_version", lambda: "0.33.0")
    monkeypatch.setattr("autolambda.driver.identity.resolve_seeds", lambda asked: resolved)
    job = open_job(config(path, engine={"name": "vllm", "device": "auto", "seeds": said}))
    before = {} if stored is None else {"engine.seeds": stored}
    assert job.seeded_as(before).identity.get("engine.seeds", "call") == expected


@pytest.mark.parametrize(
    ("device", "said", "expected"),
    [("cpu", "auto", "float32"), ("cuda", "auto", "bfloat16"), ("cuda", "float32", "float32")],
)
def test_the_dtype_of_vllm_follows_its_device(path, monkeypatch, device, said, expected):
    assert engine_keys(path, monkeypatch, device=device, dtype=said)["engine.dtype"] == expected


def test_no_key_of_a_study_is_an_argument_of_the_machine():
    """What changes responses must never be listed by mistake."""
    assert not MACHINE_ARGUMENTS & {"kv_cache_dtype", "quantization", "speculative_config", "hf_overrides", "dtype"}
