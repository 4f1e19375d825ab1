"""A checkpoint's tokenizer and chat template as files: read and copied as they are, without loading a tokenizer.

A merge takes them over byte for byte, but for the template, which is the one that was chosen: it is written into
``chat_template.jinja``, where transformers, vLLM and others look first, and nowhere else.
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
_LEFT_OUT = ("chat_template", "auto_map")  # of the config: the template has its file, and nobody's code is run


def template_in(folder: Path) -> str | None:
    """The chat template of a checkpoint, the ``default`` of several named ones; ``None`` where there is none.

    Raises ``CheckpointError`` for a file that cannot be read.
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
    """The content of ``tokenizer_config.json``, empty where there is none. Raises ``CheckpointError``."""
    return read_json_if_any(folder, _CONFIG)


def added_tokens(folder: Path) -> dict[str, int]:
    """The ids of the tokens that were added to the vocabulary, by their text. Raises ``CheckpointError``."""
    found = read_json_if_any(folder, _MODEL).get("added_tokens")
    tokens = found if isinstance(found, list) else []
    return {
        token["content"]: token["id"]
        for token in tokens
        if isinstance(token, dict) and isinstance(token.get("content"), str) and type(token.get("id")) is int
    }


def copy_tokenizer(source: Path, target: Path, *, template: str) -> None:
    """Copies the tokenizer of a checkpoint into another folder, with this chat template.

    Raises ``CheckpointError`` where the source has none, or links out of its folder.
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
