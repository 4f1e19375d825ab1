"""Tokenizers and chat templates as files: what is found of them as transformers finds it, and what a merge gets."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoints import CHAT_TEMPLATE, edit_json, tiny_checkpoint, tiny_tokenizer
from transformers import AutoTokenizer

from autolambda.bundled import FOLDER
from autolambda.errors import CheckpointError
from autolambda.merging.checkpoint import Checkpoint, open_checkpoint
from autolambda.merging.compatibility import Mismatch
from autolambda.merging.tokenizer import (
    compare_tokenizers,
    copy_tokenizer,
    num_tokens,
    template_in,
    tokenizer_config,
)

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


def test_a_processor_may_hold_the_template(folder, target):
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "of the processor"}))
    assert template_in(folder) == "of the processor"
    edit_json(folder / "tokenizer_config.json", chat_template="of the tokenizer")
    assert template_in(folder) == "of the tokenizer"
    for name in ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"):
        (folder / name).write_text("{}")
    copy_tokenizer(folder, target, template="t")
    assert {"preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"} <= {
        path.name for path in target.iterdir()
    } and not (target / "chat_template.json").exists()


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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(str(tiny_checkpoint(tmp_path_factory.mktemp("one"))))


@pytest.fixture
def tokenizers(tmp_path: Path, checkpoint: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        for file in checkpoint.folder.glob("*token*"):
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
        (tmp_path / name / "chat_template.jinja").write_text("template")
    return replace(checkpoint, folder=tmp_path / "one"), replace(checkpoint, folder=tmp_path / "other")


def change_tokenizer(checkpoint: Checkpoint, change: str) -> None:
    path = checkpoint.folder / "tokenizer.json"
    content = json.loads(path.read_text())
    model, added = content["model"], content["added_tokens"]
    if change == "other ids":
        model["vocab"]["!"], model["vocab"]['"'] = model["vocab"]['"'], model["vocab"]["!"]
    elif change == "more tokens":
        model["vocab"] |= {f"new{i}": 300 + i for i in range(9)}
    elif change == "other merges":
        model["merges"] = [["a", "b"]]
    elif change == "renamed token":
        added[3]["content"] = "<thought>"
    elif change == "renamed special token":
        added[0]["content"] = "<|bos|>"
    elif change == "added token":
        added.append({**added[3], "id": 264, "content": "<answer>"})
    elif change == "odd form":
        added[0] = {"name": "x"}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "messages", "fatal"),
    [
        ("none", [], False),
        ("other ids", ["'!' is 0 and 1", "'\"' is 1 and 0"], True),
        ("more tokens", [*(f"'new{i}' is None and 30{i}" for i in range(5)), "and 4 more"], True),
        ("other merges", ["different merge rules"], True),
        ("renamed token", ["added token 259 is '<think>' for instruct, '<thought>' for thinking"], True),
        ("renamed special token", ["added token 256 is '<|endoftext|>' for instruct, '<|bos|>'"], False),
        ("added token", ["added token '<answer>' (264) is known to thinking only"], False),
    ],
)
def test_vocabularies_are_compared_by_content(
    tokenizers: tuple[Checkpoint, Checkpoint], change: str, messages: list[str], fatal: bool
) -> None:
    one, other = tokenizers
    change_tokenizer(other, change)
    findings = list(compare_tokenizers(one, thinking=other))
    assert len(findings) == len(messages) and all(finding.fatal is fatal for finding in findings)
    assert all(message in finding.text for message, finding in zip(messages, findings, strict=True))


def change_added(checkpoint: Checkpoint, index: int, **changes: object) -> None:
    path = checkpoint.folder / "tokenizer.json"
    added = json.loads(path.read_text())["added_tokens"]
    added[index] |= changes
    edit_json(path, added_tokens=added)


def test_a_reserved_token_may_have_been_given_a_name(tokenizers: tuple[Checkpoint, Checkpoint]) -> None:
    """As DeepSeek's distillation did with those of Llama, some of them as tokens that are not special."""
    change_added(tokenizers[0], 3, content="<|reserved_special_token_6|>", special=True)
    for pair in (tokenizers, tokenizers[::-1]):
        (finding,) = compare_tokenizers(pair[0], thinking=pair[1])
        assert not finding.fatal and "'<|reserved_special_token_6|>' for" in finding.text and "<think>" in finding.text


def test_a_token_that_is_special_for_one_parent_only_may_have_another_name(
    tokenizers: tuple[Checkpoint, Checkpoint],
) -> None:
    """As DeepSeek's distillation renamed those of Qwen2.5."""
    change_added(tokenizers[1], 1, content="<User>", special=False)
    for pair in (tokenizers, tokenizers[::-1]):
        (finding,) = compare_tokenizers(pair[0], thinking=pair[1])
        assert (
            not finding.fatal and "<|im_start|>" in finding.text and finding.text.endswith("; the merge mixes the two")
        )


def test_tokens_are_counted_by_their_ids(tokenizers: tuple[Checkpoint, Checkpoint]) -> None:
    one, other = tokenizers
    change_tokenizer(other, "more tokens")
    assert (num_tokens(one.folder), num_tokens(other.folder)) == (264, 309)
    (other.folder / "tokenizer.json").unlink()
    assert num_tokens(other.folder) is None


def test_special_roles_and_templates_are_warnings(tokenizers: tuple[Checkpoint, Checkpoint]) -> None:
    one, other = tokenizers
    (other.folder / "chat_template.jinja").unlink()
    edit_json(other.folder / "tokenizer_config.json", eos_token={"content": "<|endoftext|>"}, chat_template="template")
    (finding,) = compare_tokenizers(one, thinking=other)  # the template is the same, kept elsewhere
    assert not finding.fatal and "eos_token '<|im_end|>' and '<|endoftext|>'" in finding.text
    edit_json(other.folder / "tokenizer_config.json", eos_token="<|im_end|>", chat_template="another")
    (finding,) = compare_tokenizers(one, thinking=other)
    assert finding == Mismatch("the tokenizers differ in their chat template", fatal=False)


def test_tokenizers_that_cannot_be_compared(tokenizers: tuple[Checkpoint, Checkpoint]) -> None:
    one, other = tokenizers
    change_tokenizer(other, "odd form")
    with pytest.raises(CheckpointError, match=r"is not a file of the tokenizers library \(KeyError\('id'\)\)"):
        list(compare_tokenizers(one, thinking=other))
    (other.folder / "tokenizer.json").unlink()
    (finding,) = compare_tokenizers(one, thinking=other)
    assert not finding.fatal and finding.text == "no tokenizer.json in thinking: vocabularies were not compared"
