"""Reads, compares and copies tokenizers and chat templates as files, without loading a tokenizer.

A merge gets the files byte for byte, except for the chat template. The chosen template is written only into
``chat_template.jinja``, which transformers and vLLM read first.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autolambda.errors import CheckpointError, one_line
from autolambda.merging.checkpoint import Checkpoint
from autolambda.merging.compatibility import Mismatch, few
from autolambda.merging.source import find_file, read_json, read_json_if_any

_KEY, _OF_PROCESSOR = "chat_template", "chat_template.json"
_CONFIG, _TEMPLATE, _MODEL = "tokenizer_config.json", "chat_template.jinja", "tokenizer.json"
_FILES = (
    *("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
    *("spiece.model", "tekken.json"),  # of sentencepiece and mistral-common
    "*processor_config.json",  # of images, video and sound
)
_SPARE = re.compile(r"reserved|unused|placeholder")  # in the name of a token that a model keeps free for its heirs
_Token = Mapping[str, Any]
_LEFT_OUT = (_KEY, "auto_map")  # of the config: the template has a file, and the author's code is never run


def template_in(folder: Path) -> str | None:
    """Returns the chat template of a checkpoint, or ``None``; of several named templates, the one named ``default``.

    Raises ``CheckpointError`` when a file cannot be read.
    """
    if path := find_file(folder, _TEMPLATE):
        try:
            return path.read_text(encoding="utf-8") or None
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"'{path}' cannot be read as UTF-8 ({one_line(error)}); download it again") from error
    # processors of images have a file for the template
    template = tokenizer_config(folder).get(_KEY) or read_json_if_any(folder, _OF_PROCESSOR).get(_KEY)
    if isinstance(template, list):
        named = [each for each in template if isinstance(each, dict) and each.get("name") == "default"]
        template = named[-1].get("template") if named else None
    return template if isinstance(template, str) and template else None


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """Reads ``tokenizer_config.json``; a missing file counts as empty. Raises ``CheckpointError`` for invalid JSON."""
    return read_json_if_any(folder, _CONFIG)


def copy_tokenizer(source: Path, target: Path, *, template: str) -> None:
    """Copies the tokenizer and the processors of a checkpoint into the folder ``target``, with another chat template.

    Raises ``CheckpointError`` when the source has no tokenizer, or when a file is a link out of its folder.
    """
    names = sorted({path.name for pattern in _FILES for path in source.glob(pattern)})
    files = [path for name in names if (path := find_file(source, name))]
    if not files:
        raise CheckpointError(f"'{source}' has no tokenizer; give the folder of a complete checkpoint")
    for path in files:
        shutil.copyfile(path, target / path.name)
    config = {key: value for key, value in tokenizer_config(source).items() if key not in _LEFT_OUT}
    (target / _CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (target / _TEMPLATE).write_text(template, encoding="utf-8", newline="")


def num_tokens(folder: Path) -> int | None:
    """Returns one more than the largest token id of ``tokenizer.json``, or ``None`` if there is no such file."""
    tokenizer = read_json_if_any(folder, _MODEL)
    try:
        ids = [*_by_token(_model(tokenizer)).values(), *_added(tokenizer)]
    except (TypeError, KeyError, IndexError, AttributeError):
        return None
    return max(ids) + 1 if ids else None


def compare_tokenizers(first: Checkpoint, *, thinking: Checkpoint, first_name: str = "instruct") -> Iterator[Mismatch]:
    """Yields the differences of the vocabularies. Different special tokens or chat templates are warnings."""
    folders = first.folder, thinking.folder
    names = first_name, "thinking"
    missing = [name for name, folder in zip(names, folders, strict=True) if find_file(folder, _MODEL) is None]
    if missing:
        yield Mismatch(f"no tokenizer.json in {' and '.join(missing)}: vocabularies were not compared", fatal=False)
    else:
        one, other = (read_json(folder, "tokenizer.json") for folder in folders)
        try:
            yield from _compare_vocabularies(_model(one), other=_model(other))
            yield from _compare_added(_added(one), other=_added(other), first_name=first_name)
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise CheckpointError(
                f"tokenizer.json in '{folders[0]}' or '{folders[1]}' is not a file of the tokenizers library "
                f"({error!r}); save it again with transformers"
            ) from error
    roles, others = (_roles(folder) for folder in folders)
    for key in sorted(roles.keys() | others.keys()):
        if roles.get(key) != others.get(key):
            shown = "" if key == "chat template" else f" {roles.get(key)!r} and {others.get(key)!r}"
            yield Mismatch(f"the tokenizers differ in their {key}{shown}", fatal=False)


def _model(tokenizer: Mapping[str, Any]) -> Mapping[str, Any]:
    model = tokenizer.get("model")
    return model if isinstance(model, dict) else {}


def _compare_vocabularies(one: Mapping[str, Any], *, other: Mapping[str, Any]) -> Iterator[Mismatch]:
    first, second = _by_token(one), _by_token(other)
    if differing := sorted(token for token in first.keys() | second.keys() if first.get(token) != second.get(token)):
        shown = [f"{token!r} is {first.get(token)} and {second.get(token)}" for token in differing]
        yield from few(shown, "tokens with another id in the thinking tokenizer")
    elif _merges(one) != _merges(other):
        yield Mismatch(
            "the tokenizers have equal vocabularies but different merge rules, so they split text differently"
        )


def _by_token(model: Mapping[str, Any]) -> dict[str, int]:
    vocab = model.get("vocab") or {}
    if isinstance(vocab, dict):
        return vocab
    return {str(entry[0]): index for index, entry in enumerate(vocab)}  # unigram: a list of [token, score]


def _merges(model: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [tuple(rule.split(" ")) if isinstance(rule, str) else tuple(rule) for rule in model.get("merges") or []]


def _added(tokenizer: Mapping[str, Any]) -> dict[int, _Token]:
    return {token["id"]: token for token in tokenizer.get("added_tokens") or []}


def _compare_added(one: Mapping[int, _Token], *, other: Mapping[int, _Token], first_name: str) -> Iterator[Mismatch]:
    for index in sorted(one.keys() | other.keys()):
        first, second = one.get(index), other.get(index)
        if first is None or second is None:
            token, owner = (first or second or {}), "thinking" if first is None else first_name
            yield Mismatch(f"added token {token['content']!r} ({index}) is known to {owner} only", fatal=False)
        elif first["content"] != second["content"]:
            text = f"added token {index} is {first['content']!r} for {first_name}, {second['content']!r} for thinking"
            if any(_SPARE.search(str(token["content"])) for token in (first, second)):
                yield Mismatch(text, fatal=False)
            elif first.get("special") or second.get("special"):
                yield Mismatch(f"{text}; the merge mixes the two", fatal=False)
            else:
                yield Mismatch(text)


def _roles(folder: Path) -> dict[str, object]:
    """Returns the special tokens by role and the chat template."""
    config = tokenizer_config(folder)
    roles = {key: _content(config.get(key)) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    return roles | {"chat template": template_in(folder)}


def _content(token: object) -> object:
    return token.get("content") if isinstance(token, dict) else token
