"""Files that a user names: nothing but regular ones is opened, and nothing waits."""

import errno
import os
from pathlib import Path

import pytest

from autolambda.cli.arguments import schedule_of
from autolambda.config_file import load_config
from autolambda.errors import InputError
from autolambda.files import open_bytes, open_text, read_text
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
