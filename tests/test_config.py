"""The configuration: what is refused, in one line with the nearest key, and how file, options and --set add up."""

import re

import pytest

from autolambda.config import Config, parse_config
from autolambda.config_file import bundled_defaults, load_config
from autolambda.errors import ConfigError

PARENTS = {"instruct": "a/instruct", "thinking": "a/thinking"}


def load(text, tmp_path, *settings, **overrides):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load_config(path, overrides=overrides, settings=settings)


def refused(call, *arguments, match=None, **options):
    """The message, which is one line and not endless."""
    with pytest.raises(ConfigError, match=match) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 400
    return message


@pytest.mark.parametrize(
    ("plain", "key", "hint"),
    [
        ({"buget": 4}, "buget", "did you mean 'budget'"),
        ({"zzz": 4}, "zzz", "known: models, merge, engine, tasks, sampling, search, confirm, cap, ablation, budget"),
        ({"models": {"instuct": "x"}}, "models.instuct", "did you mean 'instruct'"),
        ({"engine": {"batch": 1}}, "engine.batch", "did you mean 'batch_size'"),
        ({"sampling": {"temprature": 1}}, "sampling.temprature", "did you mean 'temperature'"),
        ({"search": {"trails": 1}}, "search.trails", "did you mean 'trials'"),
        ({"confirm": {"finalist": 1}}, "confirm.finalist", "did you mean 'finalists'"),
        ({"tasks": [{"path": "x", "limt": 1}]}, "tasks.0.limt", "did you mean 'limit'"),
        ({"tasks": [{"path": "x"}, {"path": "y", "weigth": 1}]}, "tasks.1.weigth", "did you mean 'weight'"),
        ({"line\nbreak": 4}, "line\\nbreak", "known"),
        (
            {"engine": {"x\n": 1}},
            "engine.x\\n",
            "known: name, device, dtype, batch_size, threads, merge, parents, seeds, workers (vLLM's",
        ),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(plain, key, hint):
    assert f"unknown key '{key}'; {hint}" in refused(parse_config, plain)


def test_all_that_is_wrong_is_said_at_once():
    message = refused(parse_config, {"buget": 1, "search": {"trials": 1}, "tasks": [{"path": "x", "limt": 1}]})
    assert all(part in message for part in ("'buget'", "search.trials", "'tasks.0.limt'"))


@pytest.mark.parametrize("budget", [-1, 0, "x", "", True, False, float("nan"), float("inf"), 10**400, [1], {"x": 1}],
                         ids=lambda budget: repr(budget)[:9])  # fmt: skip
def test_a_budget_is_a_positive_number(budget):
    assert refused(parse_config, {"budget": budget}).startswith("budget: ")


@pytest.mark.parametrize("budget", [40, 40.5, "4e3"])  # YAML reads 4e3 as a text
def test_a_budget_that_is_a_number_is_taken(budget):
    assert parse_config({"budget": budget}).budget == float(budget)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"search": {"trials": True}}, "search.trials: true and false have no meaning here"),
        ({"search": {"trials": 1}}, "search.trials: .* seen 1"),
        ({"search": {"spaces": []}}, "search.spaces"),
        ({"search": {"spaces": ["modules"]}}, "search.spaces.0: .* seen 'modules'"),
        ({"search": {"knots": 7}}, "search.knots"),
        ({"search": {"seed": -1}}, "search.seed"),
        ({"sampling": {"top_p": 0}}, "sampling.top_p"),
        ({"sampling": {"stop": [""]}}, "sampling.stop.0"),
        ({"sampling": {"max_tokens": 1.5}}, "sampling.max_tokens"),
        ({"engine": {"name": "x" * 500}}, "engine.name"),
        ({"models": 5}, "models: expected keys and values, seen 5"),
        ({"models": None}, "models: expected keys and values, seen None"),
        ({"models": {"instruct": "x"}}, "models: give both models.instruct and models.thinking, or neither"),
        ({"models": {"instruct": "", "thinking": "x"}}, "models.instruct"),
        ({"tasks": 5}, "tasks: expected a list, seen 5"),
        ({"tasks": ["x"]}, "tasks.0: expected keys and values, seen 'x'"),
        ({"tasks": [{}]}, "tasks.0: give either name or path"),
        ({"tasks": [{"path": "x", "weight": 0}]}, "tasks.0.weight"),
        ({"tasks": [{"path": "a/x.csv"}, {"path": "b/x.jsonl"}]}, "two tasks have the same name: 'x', 'x'"),
        ({1: 2}, "1: keys should be strings"),
    ],
)
def test_bad_values(plain, message):
    assert re.search(message, refused(parse_config, plain))


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (
            {"models": PARENTS, "search": {"spaces": ["scale"]}},
            "search.spaces: scale needs models.base; set it, or leave",
        ),
        ({"models": PARENTS, "search": {"spaces": ["third"]}}, "search.spaces: third needs models.third"),
        ({"search": {"range": [0.1, 1]}}, "range: must hold 0 and 1, which are the parents, seen [0.1, 1.0]"),
        ({"search": {"range": [-1.5, 1]}}, "search.range.0"),
    ],
)
def test_what_lies_beyond_the_line_needs_its_model_and_bounds(plain, message):
    assert message in refused(parse_config, plain)


def test_a_range_has_the_decimals_of_the_points_in_it():
    """A point is rounded, and may not then lie outside."""
    assert parse_config({"search": {"range": [-0.123456, 1.00009]}}).search.range == (-0.1235, 1.0001)


def test_the_spaces_say_which_models_are_read():
    further = {"base": "a/base", "third": "a/third"}
    config = parse_config({"models": PARENTS | further, "search": {"spaces": ["uniform", "third", "scale"]}})
    assert config.further == ("base", "third") and config.search_settings.ranges.keys() >= {"stretch", "third"}
    assert parse_config({"models": PARENTS | further}).further == ()  # nothing reads them
    assert parse_config({"search": {"spaces": ["scale"]}}).further == ("base",)  # the bundled pair has one


def test_the_layers_of_a_config(tmp_path):
    text = "budget: 10\nsearch: {trials: 20, seed: 3}\ntasks: [{path: x.csv, limit: 5}, {path: y.csv}]\n"
    overrides = {"search.trials": 30, "models.instruct": "i", "models.thinking": "t"}
    settings = ["search.trials=40", "tasks.1.limit=7", "sampling.stop=[a, b]", "models.chat_template_kwargs.a.b=true"]
    config = load(text, tmp_path, *settings, **overrides)
    assert (config.budget, config.search.trials, config.search.seed) == (10, 40, 3)
    assert [task.limit for task in config.tasks] == [5, 7]
    assert config.sampling.stop == ("a", "b")
    assert config.models.chat_template_kwargs == {"a": {"b": True}}


@pytest.mark.parametrize("setting", ["=3", "tasks.7.limit=3", "models=5", "buget=1", ".=1"])
def test_bad_settings(tmp_path, setting):
    refused(load, "budget: 10\ntasks: [{path: x.csv, limit: 5}, {path: y.csv}]\n", tmp_path, setting)


def test_settings_empty_a_key_and_fill_an_empty_section(tmp_path):
    config = load("budget: 10\nsearch:\n", tmp_path, "budget=", "search.trials=9", "search.seed=1")
    assert (config.budget, config.search.trials, config.search.seed) == (None, 9, 1)


def test_the_bundled_config_lies_under_one_without_models():
    defaults = bundled_defaults(with_task=True)
    config = load_config(None, overrides={})
    assert config == parse_config(defaults)
    assert config.models.bundled
    changed = load_config(None, overrides={}, settings=["tasks.0.limit=3", "sampling.max_tokens=8"])
    assert (changed.tasks[0].name, changed.tasks[0].limit, changed.sampling.max_tokens) == ("arithmetic", 3, 8)
    own = load_config(None, overrides={"tasks": [{"path": "x.csv"}]})
    assert ([task.label for task in own.tasks], own.sampling.max_tokens) == (["x"], None)


@pytest.mark.parametrize(
    ("overrides", "settings"),
    [
        ({f"models.{name}": source for name, source in PARENTS.items()}, []),
        ({}, ["models={instruct: a/instruct, thinking: a/thinking}"]),
    ],
)
def test_ones_own_models_start_from_the_plain_defaults(overrides, settings):
    config = load_config(None, overrides=overrides, settings=settings)
    assert config == Config.model_validate({"models": PARENTS})
    assert not config.models.bundled


def test_local_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("inst", "think", "thinking"):
        (tmp_path / folder).mkdir()
    for name in ("x.csv", "my.jinja"):
        (tmp_path / name).touch()
    overrides = {
        "models": {"instruct": "inst", "thinking": "think", "base": "Qwen/Qwen3-4B", "chat_template": "my.jinja"},
        "tasks": [{"path": "x.csv"}, {"path": "gone.csv"}, {"path": "y" * 300}],
    }
    config = load_config(None, overrides=overrides)
    assert (config.models.instruct, config.models.thinking) == (str(tmp_path / "inst"), str(tmp_path / "think"))
    assert config.models.base == "Qwen/Qwen3-4B"
    assert config.models.chat_template == str(tmp_path / "my.jinja")
    assert [task.path for task in config.tasks[:2]] == [str(tmp_path / "x.csv"), "gone.csv"]
    keys = [{"path": "think", "confirm_on": "x.csv"}, {"lm_eval": "sums", "include_path": "inst"}]
    first, second = load_config(None, overrides={"tasks": keys}).tasks
    assert (first.path, first.confirm_on.path) == (str(tmp_path / "think"), str(tmp_path / "x.csv"))
    assert second.include_path == str(tmp_path / "inst")
    assert load_config(None, overrides={}).models.chat_template == "thinking"  # the word, whatever lies here


def test_the_engine_arguments_of_vllm_are_passed_on_as_they_are(tmp_path):
    text = "engine: {name: vllm, enforce_eager: true, hf_overrides: {a: [1, null]}, arguments: 3, batch_size: 8}\n"
    config = load(text, tmp_path, "engine.speculative_config.method=ngram")
    assert config.engine.arguments == {
        "enforce_eager": True,
        "hf_overrides": {"a": [1, None]},
        "arguments": 3,
        "speculative_config": {"method": "ngram"},
    }
    assert config.engine.batch_size == 8
    assert parse_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("name", ["auto", "transformers"])
def test_without_vllm_its_engine_arguments_are_unknown_keys(name):
    message = refused(parse_config, {"engine": {"name": name, "enforce_eager": True, "batch": 1}})
    known = "known: name, device, dtype, batch_size, threads, merge, parents, seeds, workers"
    hint = "(vLLM's own engine arguments go with engine.name: vllm)"
    assert f"unknown key 'engine.enforce_eager'; {known} {hint}" in message
    assert message.endswith("unknown key 'engine.batch'; did you mean 'batch_size'?")
    assert "vLLM" not in refused(parse_config, {"zzz": 1})


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"name": "vllm", "device": "cuda:1"}, "engine.device: 'cuda:1' is for transformers; .*CUDA_VISIBLE_DEVICES"),
        ({"name": "vllm", "threads": 2}, "engine.threads: 2 is for transformers; .*VLLM_CPU_OMP_THREADS_BIND"),
        ({"name": "vllm", "batch_size": True}, "engine.batch_size: true and false have no meaning here"),
        ({"name": "vllm", "batch_size": 0}, "engine.batch_size: .* seen 0"),
        ({"name": "vllm", "x": float("nan")}, "engine.x.*finite"),
        ({"name": "vllm", "x": {1}}, "engine.x: .*not a valid JSON value"),
        ({"name": "vllm", 3: 4}, "engine.3: keys should be strings"),
        ({"name": "transformers", "merge": "direct"}, "engine.merge: 'direct' is for vLLM; .*engine.name to vllm"),
        ({"name": "transformers", "parents": "gpu"}, "engine.parents: 'gpu' is for vLLM; .*engine.name to vllm"),
        ({"name": "transformers", "merge": "stream", "parents": "files"}, "engine.merge: .*; engine.parents: "),
        ({"name": "transformers", "seeds": "request"}, "engine.seeds: 'request' is for vLLM; .*engine.name to vllm"),
        ({"seeds": "prompt"}, "engine.seeds: .* seen 'prompt'"),
        ({"merge": "inplace"}, "engine.merge: .* seen 'inplace'"),
        ({"parents": "disk"}, "engine.parents: .* seen 'disk'"),
    ],
)
def test_what_the_other_engine_takes(engine, message):
    assert re.search(message, refused(parse_config, {"engine": engine}))


def test_auto_keeps_what_only_one_engine_takes():
    engine = parse_config({"engine": {"device": "cpu", "threads": 2, "merge": "direct", "parents": "host"}}).engine
    assert (engine.device, engine.threads, engine.merge, engine.parents) == ("cpu", 2, "direct", "host")
    parse_config({"engine": {"name": "vllm", "device": "auto", "threads": None}})


def test_a_stored_config_leads_back():
    config = parse_config({"models": PARENTS, "tasks": [{"path": "x.csv"}], "budget": 4, "sampling": {"stop": ["a"]}})
    assert parse_config(config.model_dump(mode="json")) == config


def test_weights_sum_to_one():
    config = parse_config({"tasks": [{"path": "a.csv", "weight": 3}, {"path": "b.csv"}]})
    assert config.weights == {"a": 0.75, "b": 0.25} and config.guards == {}


def test_a_guard_weighs_nothing_and_is_named_with_its_drop():
    guards = [{"path": "c.csv", "guard": {"max_drop": 0.05}}, {"path": "d.csv", "guard": {}}]
    config = parse_config({"tasks": [{"path": "a.csv", "weight": 3}, guards[0], {"path": "b.csv"}, guards[1]]})
    assert config.weights == {"a": 0.75, "c": 0.0, "b": 0.25, "d": 0.0}
    assert config.guards == {"c": 0.05, "d": 0.02}
