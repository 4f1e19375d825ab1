"""Settings before they are checked: files that are none, ``--set``, dotted keys, one layer over the other."""

from pathlib import Path

import pytest

from autolambda.config_file import load_config, merged, parse_setting, read_settings, set_key
from autolambda.errors import ConfigError


def refused(call, *arguments):
    """The message, which is one line and not endless."""
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 300
    return message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": expected keys and values, seen 'None'"),
        ("- a\n- b\n", ": expected keys and values"),
        ("just words", ": expected keys and values, seen 'just words'"),
        ("budget: 4\nsearch: [1\n", ", line 3: not valid YAML"),
        ("a: b: c", ", line 1: not valid YAML: mapping values"),
        ("a:\n\t- b", ", line 2: not valid YAML"),
        ("budget: \x00", ": not valid YAML: unacceptable character"),
        ("a: *" + "x" * 5000, ", line 1: not valid YAML: found undefined alias"),
        ("[" * 1000, ": not valid YAML: it is nested deeper than 50"),
        (b"\xff\xfe", ": not valid YAML"),
    ],
)
def test_a_file_that_is_no_config(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert refused(read_settings, path).startswith(f"{path}{message}")


def test_a_file_that_is_not_there(tmp_path):
    assert "No such file" in refused(read_settings, tmp_path / "gone.yaml")
    assert "directory" in refused(read_settings, tmp_path)


def test_a_file_is_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: {b: [1, x]}\nc:\n", encoding="utf-8")
    assert read_settings(path) == {"a": {"b": [1, "x"]}, "c": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=1", ("a.b", 1)),
        (" a =x=y", ("a", "x=y")),
        ("a=[1, b]", ("a", [1, "b"])),
        ("a=true", ("a", True)),
        ("a=", ("a", None)),
    ],
)
def test_a_setting_is_a_key_and_a_yaml_value(text, expected):
    assert parse_setting(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.b", "--set takes KEY=VALUE, seen 'a.b'"),
        ("", "--set takes KEY=VALUE"),
        ("=3", "--set takes KEY=VALUE"),
        ("search.trials=[", "--set 'search.trials': '[' is not a valid YAML value"),
    ],
)
def test_a_setting_that_is_none(text, message):
    assert refused(parse_setting, text).startswith(message)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a", {"a": 9, "b": [{"c": 2}, 3], "d": None}),
        ("b.0.c", {"a": 1, "b": [{"c": 9}, 3], "d": None}),
        ("b.1", {"a": 1, "b": [{"c": 2}, 9], "d": None}),
        ("d.e.f", {"a": 1, "b": [{"c": 2}, 3], "d": {"e": {"f": 9}}}),
        ("x.y", {"a": 1, "b": [{"c": 2}, 3], "d": None, "x": {"y": 9}}),
    ],
)
def test_a_dotted_key_is_set(key, expected):
    plain = {"a": 1, "b": [{"c": 2}, 3], "d": None}
    set_key(plain, key, 9)
    assert plain == expected


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("tasks.7.limit", "'tasks.7.limit': '7' is not the number of an entry (0 to 1)"),
        ("tasks.-1.limit", "'tasks.-1.limit': '-1' is not the number"),
        ("tasks.first.limit", "'tasks.first.limit': 'first' is not the number"),
        ("tasks.2", "'tasks.2': '2' is not the number"),
        ("tasks.\u0661.limit", "'tasks.\u0661.limit': '\u0661' is not the number"),
        ("empty.0", "'empty.0': '0' is not the number of an entry (the list is empty)"),
        ("tasks.0.limit.x", "'tasks.0.limit.x': 'tasks.0.limit' is '5', which has no keys"),
        ("budget.x", "'budget.x': 'budget' is '10', which has no keys"),
    ],
)
def test_a_dotted_key_that_leads_nowhere(key, message):
    plain = {"budget": 10, "tasks": [{"limit": 5}, {}], "empty": []}
    assert refused(set_key, plain, key, 3).startswith(message)


def test_one_layer_over_the_other():
    under = {"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2], "f": {"g": 1}}
    assert merged(under, {"a": {"c": {"x": 3}}, "e": [3], "f": None}) == {
        "a": {"b": 1, "c": {"d": 2, "x": 3}},
        "e": [3],
        "f": None,
    }
    assert under == {"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2], "f": {"g": 1}}


def test_a_star_sets_a_key_of_every_entry():
    plain = {"tasks": [{"name": "a"}, {"name": "b", "confirm_on": {}}], "budget": 3}
    set_key(plain, "tasks.*.grader", "exact")
    set_key(plain, "models.*.x", 1)  # there are none
    assert plain == {
        "tasks": [{"name": "a", "grader": "exact"}, {"name": "b", "confirm_on": {}, "grader": "exact"}],
        "budget": 3,
    }
    assert refused(set_key, plain, "budget.*.x", 3) == "'budget.*.x': 'budget' is '3', which has no entries"


def test_the_paths_of_a_project_file_are_beside_it(tmp_path, monkeypatch):
    project = tmp_path / "project"
    for name in ("instruct", "thinking", "org/model", "below"):
        (project / name).mkdir(parents=True)
    for name in ("my.jsonl", "test.csv", "chat.jinja"):
        (project / name).touch()
    file = project / "autolambda.yaml"
    file.write_text(
        "models: {instruct: instruct, thinking: ./thinking, base: org/hub, chat_template: chat.jinja}\n"
        "tasks:\n- my.jsonl\n- {path: gone.jsonl, confirm_on: test.csv}\n- gsm8k\n- {name: math500, path: ~/math}\n"
    )
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(project / "below")
    config = load_config(Path("../autolambda.yaml"), overrides={})
    models = (config.models.instruct, config.models.thinking, config.models.base, config.models.chat_template)
    assert models == (f"{project}/instruct", f"{project}/thinking", "org/hub", f"{project}/chat.jinja")
    first, second, third, fourth = config.tasks
    assert (first.path, second.path, third.name) == (f"{project}/my.jsonl", "../gone.jsonl", "gsm8k")
    assert second.confirm_on is not None and second.confirm_on.path == f"{project}/test.csv"
    assert fourth.path == "/home/me/math"
    monkeypatch.chdir(project)
    assert load_config(file, overrides={}).tasks[0].path == f"{project}/my.jsonl"
    other = project / "other.yaml"
    other.write_text("tasks: [my.jsonl]\n")
    monkeypatch.chdir(tmp_path)
    assert load_config(other, overrides={}).tasks[0].path == "my.jsonl"  # as before: relative to the current folder
