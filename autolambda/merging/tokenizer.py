"""Reads and copies a checkpoint's tokenizer and chat template as files, without loading a tokenizer.

A merge gets the files byte for byte, except for the chat template. The chosen template is written only into
``chat_template.jinja``, which transformers and vLLM read first.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from autolambda.errors import CheckpointError, one_line
from autolambda.merging.checkpoint import find_file, read_json_if_any

_CONFIG, _TEMPLATE, _MODEL = "tokenizer_config.json", "chat_template.jinja", "tokenizer.json"
_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "spiece.model")
_LEFT_OUT = ("chat_template", "auto_map")  # of the config: the template has a file, and the author's code is never run


def template_in(folder: Path) -> str | None:
    """Returns the chat template of a checkpoint, or ``None``; of several named templates, the one named ``default``.

    Raises ``CheckpointError`` when a file cannot be read.
    """
    if path := find_file(folder, _TEMPLATE):
        try:
            return path.read_text(encoding="utf-8") or None
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"'{path}' cannot be read as UTF-8 ({one_line(error)}); download it again") from error
    template = tokenizer_config(folder).get("chat_template")
    if isinstance(template, list):
        named = [each for each in template if isinstance(each, dict) and each.get("name") == "default"]
        template = named[-1].get("template") if named else None
    return template if isinstance(template, str) and template else None


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """Reads ``tokenizer_config.json``; a missing file counts as empty. Raises ``CheckpointError`` for invalid JSON."""
    return read_json_if_any(folder, _CONFIG)


def added_tokens(folder: Path) -> dict[str, int]:
    """Returns the ids of the added tokens by text. Raises ``CheckpointError`` when ``tokenizer.json`` is invalid."""
    entries = read_json_if_any(folder, _MODEL).get("added_tokens")
    tokens = entries if isinstance(entries, list) else []
    return {
        token["content"]: token["id"]
        for token in tokens
        if isinstance(token, dict) and isinstance(token.get("content"), str) and type(token.get("id")) is int
    }


def copy_tokenizer(source: Path, target: Path, *, template: str) -> None:
    """Copies the tokenizer of a checkpoint into the folder ``target``, with another chat template.

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
