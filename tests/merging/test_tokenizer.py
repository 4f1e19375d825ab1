"""Tokenizers and chat templates as files: what is found of them as transformers finds it, and what a merge gets."""

import json
import shutil

import pytest
from checkpoints import CHAT_TEMPLATE, edit_json, tiny_tokenizer
from transformers import AutoTokenizer

from autolambda.bundled import FOLDER
from autolambda.errors import CheckpointError
from autolambda.merging.tokenizer import added_tokens, copy_tokenizer, template_in, tokenizer_config

TEXT = "What is 12 + 7?\n<think>\n19 é\n</think>"


@pytest.fixture
def folder(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path):
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, None),
        ("a", "a"),
        ([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], "d"),
        ([{"name": "tool_use", "template": "t"}], None),
    ],
)
def test_the_template_of_a_folder_is_what_transformers_finds(folder, template, expected):
    (folder / "chat_template.jinja").unlink()
    edit_json(folder / "tokenizer_config.json", chat_template=template)
    found = AutoTokenizer.from_pretrained(folder).chat_template
    assert template_in(folder) == expected == (found.get("default") if isinstance(found, dict) else found)


@pytest.mark.parametrize("template", [5, [], [7], {"default": "d"}, "", [{"name": "default", "template": 5}]])
def test_what_is_no_template_counts_as_none(folder, template):
    (folder / "chat_template.jinja").unlink()
    edit_json(folder / "tokenizer_config.json", chat_template=template)
    assert template_in(folder) is None


def test_the_file_comes_before_the_config(folder):
    edit_json(folder / "tokenizer_config.json", chat_template="another")
    assert template_in(folder) == CHAT_TEMPLATE == AutoTokenizer.from_pretrained(folder).chat_template
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja' cannot be read as UTF-8"):
        template_in(folder)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        (folder / name).unlink()
    assert template_in(folder) is None and tokenizer_config(folder) == {}


@pytest.mark.parametrize("source", ["bundled", "tiny"])
def test_a_copied_tokenizer_does_what_it_did(folder, target, source):
    source = FOLDER / "thinking" if source == "bundled" else folder
    edit_json(shutil.copytree(source, folder.parent / "own") / "tokenizer_config.json", chat_template="old")
    copy_tokenizer(folder.parent / "own", target, template="{{ 'é' }}\r\n")
    before, after = (AutoTokenizer.from_pretrained(each) for each in (source, target))
    assert after(TEXT).input_ids == before(TEXT).input_ids
    assert after.special_tokens_map == before.special_tokens_map and after.get_vocab() == before.get_vocab()
    assert (target / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert (target / "chat_template.jinja").read_bytes() == "{{ 'é' }}\r\n".encode()
    assert "chat_template" not in json.loads((target / "tokenizer_config.json").read_text())


def test_an_authors_code_and_other_files_stay_behind(folder, target):
    edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["mine.Mine", None]})
    for name in ("mine.py", "tokenization_mine.py", "model.safetensors", "README.md"):
        (folder / name).write_text("x")
    copy_tokenizer(folder, target, template="t")
    assert {path.name for path in target.iterdir()} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert "auto_map" not in json.loads((target / "tokenizer_config.json").read_text())


def test_a_folder_without_a_tokenizer_and_a_link_out_of_it(folder, target, tmp_path):
    (tmp_path / "secret").write_text("s")
    (folder / "vocab.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="is a link out of its folder"):
        copy_tokenizer(folder, target, template="t")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        copy_tokenizer(empty, target, template="t")
    assert list(target.iterdir()) == []


def test_the_ids_of_added_tokens(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert added_tokens(folder) == {text: tokenizer.convert_tokens_to_ids(text) for text in added_tokens(folder)}
    assert len(added_tokens(folder)) == 8
    for content in ({"added_tokens": None}, {"added_tokens": [5, {"id": "7", "content": "a"}, {"id": 7}]}, {}):
        (folder / "tokenizer.json").write_text(json.dumps(content))
        assert added_tokens(folder) == {}
    (folder / "tokenizer.json").unlink()
    assert added_tokens(folder) == {}
