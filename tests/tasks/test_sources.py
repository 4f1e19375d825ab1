"""Folders and hub datasets as sources of rows: in every form, and what is said where one is missing or out of reach."""

import gzip
import json
import os
import re
import subprocess
import sys
import time

import mirrors
import pytest
from local_hub import COMMIT, Hub, serving

from autolambda.errors import TaskError
from autolambda.tasks.sources import has_splits, read_path

ROWS = [{"question": f"{i}+1=", "answer": str(i + 1), "tags": [i, "a"][1:]} for i in range(4)]
SPLITS = {"train": ROWS[:2], "test": ROWS[2:]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def flat_parquet(folder, splits):
    for split, rows in splits.items():
        mirrors.write_parquet(folder / f"{split}.parquet", rows)
    return folder


def downloaded_without_its_card(folder, splits):
    """``hf download --include '*.parquet'``."""
    (mirrors.repository(folder, {"data": splits}) / "README.md").unlink()
    return folder


FORMS = {
    "jsonl": mirrors.jsonl_folder,
    "parquet": flat_parquet,
    "saved": mirrors.saved,
    "copied": lambda folder, splits: mirrors.repository(folder, {"default": splits}),
    "no card": downloaded_without_its_card,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_split_of_a_folder_in_every_form(tmp_path, form):
    folder = FORMS[form](tmp_path / "folder", SPLITS)
    for keys in ({"split": "test"}, {"usual_split": "test"}, {"split": "test", "usual_split": "train"}):
        assert [dict(row.cells) for row in read_path(folder, **keys)] == SPLITS["test"]
    assert has_splits(folder)


@pytest.mark.parametrize("form", FORMS)
def test_an_unknown_split_is_named_with_those_there_are(tmp_path, form):
    folder = FORMS[form](tmp_path / "folder", SPLITS)
    with pytest.raises(TaskError, match=f"{folder}.* split .tset.*train.*test|{folder}.*tset.*test.*train") as caught:
        read_path(folder, split="tset")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", FORMS)
def test_without_a_split_there_must_be_one_alone(tmp_path, form):
    folder = FORMS[form](tmp_path / "folder", SPLITS)
    with pytest.raises(TaskError, match=r"has several splits, .*; say which with split"):
        read_path(folder)
    alone = FORMS[form](tmp_path / "alone", {"train": ROWS})
    assert [dict(row.cells) for row in read_path(alone)] == ROWS


def test_a_dataset_saved_on_its_own_is_one_split(tmp_path):
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    assert not has_splits(tmp_path / "saved")
    rows = read_path(tmp_path / "saved", usual_split="train")
    assert [dict(row.cells) for row in rows] == ROWS
    assert [row.where for row in rows[:2]] == [f"{tmp_path / 'saved'}, row {i}" for i in (1, 2)]
    with pytest.raises(TaskError, match="no subsets or splits; leave out split"):
        read_path(tmp_path / "saved", split="train")


def test_the_subset_that_is_usual_is_taken_where_there_is_such(tmp_path):
    copied = mirrors.repository(tmp_path / "copied", {"main": {"train": ROWS[:2]}, "other": {"train": ROWS[2:]}})
    flat = tmp_path / "flat"
    for subset, rows in (("main", ROWS[:2]), ("other", ROWS[2:])):
        mirrors.jsonl_folder(flat / subset, {"train": rows})
    for folder in (copied, flat):
        read = [dict(row.cells) for row in read_path(folder, usual_subset="main", usual_split="train")]
        assert read == ROWS[:2]
        read = [dict(row.cells) for row in read_path(folder, subset="other", usual_subset="main", usual_split="train")]
        assert read == ROWS[2:]
    single = mirrors.repository(tmp_path / "single", {"default": {"train": ROWS}})
    assert len(read_path(single, usual_subset="main", usual_split="train")) == len(ROWS)
    with pytest.raises(TaskError, match=r"'mian' not found. Available: .*'main', 'other'"):
        read_path(copied, subset="mian", split="train")


@pytest.mark.parametrize("files", [[], ["notes.txt"], ["train.jsonl"]])
def test_a_folder_that_holds_no_rows(tmp_path, files):
    (tmp_path / "folder").mkdir()
    for name in files:
        (tmp_path / "folder" / name).write_text("{" if name.endswith("jsonl") else "")
    if files == ["train.jsonl"]:
        [row] = read_path(tmp_path / "folder", split="train")
        assert row.problem is not None and row.problem[0] == "not JSON"
        return
    with pytest.raises(TaskError, match="folder") as caught:
        read_path(tmp_path / "folder", split="train")
    assert "\n" not in str(caught.value)


def test_a_split_of_a_folder_may_be_packed(tmp_path):
    for split, rows in SPLITS.items():
        (tmp_path / f"{split}.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    assert [dict(row.cells) for row in read_path(tmp_path, split="test")] == SPLITS["test"]


CARD = b"---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/train.jsonl\n---\n"
FILES = {"README.md": CARD, "main/train.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode()}
ASK = """
import json, sys
from autolambda.errors import TaskError
from autolambda.tasks.sources import read_hub

for asked in json.loads(sys.argv[1]):
    try:
        print(json.dumps([dict(row.cells) for row in read_hub(**asked)]))
    except TaskError as error:
        print(json.dumps(str(error)))
"""
KNOWN = {"hub": "some/sums", "subset": "main", "split": "train"}


def ask(home, url, *asked, **environment):
    """What ``read_hub`` answers in a process of its own that knows this hub, and how long that took."""
    own = {key: value for key, value in os.environ.items() if not re.match("HF_|TRANSFORMERS_|.*PROXY", key.upper())}
    variables = own | {"HF_ENDPOINT": url, "HF_HOME": str(home)} | environment
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(asked)], env=variables, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()], time.monotonic() - began


@pytest.fixture(scope="module")
def hub():
    sets = {"some/sums": FILES, "Idavidrein/gpqa": FILES}
    with serving(Hub(sets, gated=frozenset({"Idavidrein/gpqa"}))) as hub:
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory, hub):
    """A cache that holds the set."""
    folder = tmp_path_factory.mktemp("home")
    answers, _ = ask(folder, hub.url, KNOWN)
    assert answers == [ROWS]
    return folder


def test_a_set_is_downloaded_once_and_its_revision_can_be_pinned(hub, home, tmp_path):
    (again, pinned), _ = ask(home, hub.url, KNOWN, KNOWN | {"revision": COMMIT})
    assert again == pinned == ROWS
    assert sum(each.startswith("GET") and each.endswith("train.jsonl") for each in hub.asked) == 1
    assert any(f"GET /datasets/some/sums/resolve/{COMMIT}/" in each for each in hub.asked)


def test_what_the_hub_refuses_is_said_in_one_line(hub, home):
    asked = [
        {"hub": "Idavidrein/gpqa", "subset": "main", "split": "train"},
        KNOWN | {"split": "tset"},
        KNOWN | {"subset": "mian"},
        {"hub": "no/such"},
    ]
    answers, _ = ask(home, hub.url, *asked)
    parts = [
        "hub dataset 'Idavidrein/gpqa' is gated: ask for access at https://huggingface.co/datasets/Idavidrein/gpqa and "
        "log in with 'hf auth login', or give a copy of it with path",
        """hub dataset 'some/sums': unknown split "tset". Should be one of ['train'].""",
        "hub dataset 'some/sums': BuilderConfig 'mian' not found. Available: ['main']",
        "hub dataset 'no/such': dataset 'no/such' doesn't exist on the Hub or cannot be accessed.",
    ]
    assert answers == parts


ADVICE = "hf download --repo-type dataset {} --local-dir DIR; then set path to DIR"


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_a_hub_out_of_reach_is_told_at_once_and_the_cache_is_used(home, environment):
    unknown = {"hub": "some/other", "split": "train"}
    nobody = "http://127.0.0.1:9"
    answers, seconds = ask(home, nobody, KNOWN, unknown, KNOWN | {"revision": COMMIT}, **environment)
    reason = "HF_HUB_OFFLINE is set" if environment else f"ConnectError from {nobody}"
    assert answers[0] == ROWS
    assert answers[1].startswith(f"hub dataset 'some/other' cannot be reached ({reason}) and is not in the cache; ")
    assert answers[1].endswith(ADVICE.format("some/other"))
    assert answers[2].startswith(
        f"hub dataset 'some/sums' cannot be reached ({reason}), and the cache may hold another"
    )
    assert seconds < 20  # of which most is the start; the client's own retries take 24 for each of them
