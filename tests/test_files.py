"""Files that a user names: only regular ones are opened, nothing waits, and JSON and YAML are read or refused."""

import errno
import os
from pathlib import Path

import pytest
import yaml

from autolambda.cli.arguments import schedule_of
from autolambda.config_file import load_config
from autolambda.errors import InputError
from autolambda.files import load_json, load_yaml, open_bytes, open_text, read_text
from autolambda.statistics.curve import read_curve
from autolambda.tasks.rows import READERS, read_file

ENDINGS = ("fifo", "device", "link to a device", "folder")
READS = {
    "config": (lambda path: load_config(path, overrides={}), ".yaml"),
    "schedule": (lambda path: schedule_of(None, path), ".yaml"),
    "curve": (read_curve, ".csv"),
} | {f"task {ending}": (read_file, ending) for ending in READERS}


def make(path, kind):
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            return Path("/dev/zero")
        case "link to a device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
    return path


@pytest.mark.parametrize("kind", ENDINGS)
@pytest.mark.parametrize("opened", [open_bytes, open_text, read_text])
def test_only_a_regular_file_is_opened(tmp_path, opened, kind):
    with pytest.raises(OSError, match="directory" if kind == "folder" else "it is not a regular file"):
        opened(make(tmp_path / "x", kind))


@pytest.mark.parametrize("kind", ["fifo", "link to a device", "folder"])
@pytest.mark.parametrize("what", READS)
def test_every_reader_says_so_and_does_not_wait(tmp_path, what, kind):
    read, ending = READS[what]
    with pytest.raises(InputError, match="directory" if kind == "folder" else "it is not a regular file") as caught:
        read(make(tmp_path / f"x{ending}", kind))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("what", ["config", "schedule"])
def test_a_hundred_megabytes_are_not_read_as_settings(tmp_path, what):
    path = tmp_path / "x.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(InputError, match="larger than 256 kB"):
        READS[what][0](path)


def test_the_size_is_a_limit(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"a\r\nb\rc")
    assert read_text(path, max_bytes=6) == "a\nb\nc"
    with pytest.raises(OSError, match="larger") as caught:
        read_text(path, max_bytes=5)
    assert caught.value.errno == errno.EFBIG


@pytest.mark.parametrize(
    "text", ["{", "9" * 5000, '{"a": 1, "b": 2, "a": 3}', "[" * 101 + "]" * 101, "[" * 9999, b"\xff"]
)
def test_json_that_is_refused(text):
    with pytest.raises(ValueError) as caught:
        load_json(text)
    assert len(str(caught.value).splitlines()) == 1


def test_json_that_is_read():
    assert load_json(b'\xef\xbb\xbf{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
    assert load_json('{"a": ' + "[" * 99 + "]" * 99 + "}")["a"]


@pytest.mark.parametrize(
    "text",
    ["", "[1, 2.5, x, null, ~, yes, 2026-11-21]", "a: &x {b: 1}\nc: &y {<<: *x, b: 2}\nd: [*x, *x, {<<: *y}]",
     "a: |\n  two\n  lines\nb: 'it''s'", "? 1\n: {2: [3]}", "[" * 50 + "]" * 50],
)  # fmt: skip
def test_yaml_is_read_as_pyyaml_does(text):
    assert load_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x: 1\na: 2026-13-45", "'2026-13-45' is not a valid timestamp(.|\n)*line 2"),
        ("a: !!int ''", "'' is not a valid int"),
        ("a: !!bool x", "'x' is not a valid bool"),
        ("a: " + "9" * 5000, "'99*' is not a valid int"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ("a: 1\nb: 2\na: 3", "the key 'a' occurs twice(.|\n)*line 3"),
        ("a: &x [*x]", "nested deeper than 50"),
        ("[" * 51 + "]" * 51, "nested deeper than 50"),
        ("- " * 5000, "nested deeper than 50"),
        ("--- a\n--- b", "another document"),
    ],
    ids=lambda text: text[:20],
)
def test_yaml_that_is_refused(text, problem):
    with pytest.raises(yaml.YAMLError, match=problem):
        load_yaml(text)
