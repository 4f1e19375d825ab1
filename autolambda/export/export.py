"""Writes a merge as a checkpoint folder: weights, tokenizer, configs, model card, recipes and provenance.

The folder is written under a temporary name and renamed, so ``out`` is complete or missing. Engines use the same
arithmetic, so the weights equal the evaluated ones bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from autolambda import __version__
from autolambda.driver.identity import generation_settings
from autolambda.driver.models import Models
from autolambda.engines.chat import load_tokenizer
from autolambda.engines.generation_config import exported
from autolambda.errors import CheckpointError, OutputError, StudyError, printable
from autolambda.export.card import write_card
from autolambda.export.mergekit import mergekit_recipe, mergekit_sentence
from autolambda.export.notes import export_notes
from autolambda.export.provenance import Provenance
from autolambda.merging.checkpoint import open_checkpoint
from autolambda.merging.difference.measure import measure_difference
from autolambda.merging.fingerprint import hash_files
from autolambda.merging.merge import Merge, open_merge
from autolambda.merging.method import AROUND_BASE, Method
from autolambda.merging.source import read_json
from autolambda.merging.tokenizer import copy_tokenizer
from autolambda.merging.writing.atomic_folder import atomic_folder, output_errors
from autolambda.merging.writing.write import OnBytes, Written, write_weights
from autolambda.schedule import Schedule

DEFAULT_SHARD_SIZE = 5 * 10**9
PROVENANCE = "autolambda.json"


def export(
    models: Models,
    method: Method | Schedule,
    out: Path,
    *,
    max_shard_size: int = DEFAULT_SHARD_SIZE,
    measurement: Provenance | None = None,
    on_bytes: OnBytes | None = None,
) -> tuple[str, ...]:
    """Writes the merge of the parents by a method into the new folder ``out``; a schedule means the linear method.

    If ``measurement`` is given, hashes the parents in the same pass. Returns sentences that the user should know: on
    the pair, on what no file can hold, and on what was not checked. Raises ``StudyError`` if parents, template,
    tokenizer, sampling or weights differ from the measured ones, ``OutputError`` if the disk refuses, and
    ``CheckpointError`` for an unreadable model or one without a vocabulary.
    """
    settings = generation_settings(models)  # loads the tokenizer
    if measurement:
        _check_unchanged(settings, measurement)
    merge = open_merge(models.pair, method)
    notes = export_notes(models, merge.method.schedule, measurement)
    with atomic_folder(out) as folder:
        written = write_weights(
            folder, merge, max_shard_size=max_shard_size, identify=measurement is not None, on_bytes=on_bytes
        )
        if measurement:
            _check_unchanged({f"models.{role}": digest for role, digest in written.models.items()}, measurement)
            if measurement.weights not in (None, written.digest):
                raise StudyError(
                    f"study '{measurement.study}' confirmed other weights for {method} than these; it ran with other "
                    "versions of autolambda or PyTorch; export with these versions, or use 'autolambda merge'"
                )
        beside_mergekit, difference = mergekit_sentence(merge), measure_difference(models.pair)
        with output_errors(out):
            _write_settings(folder, models, merge, beside_mergekit)
            write_card(
                folder,
                models,
                merge,
                written,
                measurement=measurement,
                difference=difference,
                beside_mergekit=beside_mergekit,
            )
            content = _provenance(folder, merge, written, measurement)
            _write_json(folder / PROVENANCE, content | {"notes": list(notes), "generation": settings})
    return notes


def check_export(folder: Path) -> str:
    """Compares an exported folder's tensors and files with their stored hashes. Returns a description of its merge.

    Skips the model card, because people edit it. Raises ``OutputError`` with the names that differ, and
    ``CheckpointError`` if the provenance or the weights cannot be read.
    """
    if not (folder / PROVENANCE).exists():
        raise OutputError(f"'{folder}' holds no {PROVENANCE}; only folders exported by autolambda can be validated")
    match provenance := read_json(folder, PROVENANCE):
        case {"method": str(), "files": dict(files), "tensors": dict(tensors)} if files:
            method = Method.from_dict(provenance, base="base" if provenance["method"] in AROUND_BASE else None)
        case _:
            raise OutputError(f"'{folder / PROVENANCE}' was changed after the export; export it again")
    changed = [name for name in sorted(files) if Path(name).name != name or _sha256(folder / name) != files[name]]
    changed = changed or _changed_tensors(folder, tensors)
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        shown = ", ".join(printable(name[:60]) for name in changed[:5]) + more  # anybody may have written the names
        raise OutputError(f"'{folder}': changed after the export: {shown}; export it again")
    return str(method)


def _changed_tensors(folder: Path, before: Mapping[str, Any]) -> list[str]:
    checkpoint = open_checkpoint(str(folder))
    now = {name: found.digest().hex() for name, found in hash_files(checkpoint.folder, checkpoint.tensors).items()}
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _write_settings(folder: Path, models: Models, merge: Merge, beside_mergekit: str) -> None:
    """Writes the tokenizer, configs, and recipes that make the merge again.

    ``beside_mergekit`` is a comment in mergekit's recipe, if it can make this merge.
    """
    _write_json(folder / "config.json", merge.config)
    copy_tokenizer(models.tokenizer_folder, folder, template=models.templates["study"])
    tokenizer = models.chat.tokenizer
    if load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
        raise CheckpointError(
            f"'{models.tokenizer_folder}': its tokenizer needs files that cannot be exported; save it as tokenizer.json"
        )
    config = exported(models.sampling, models.pair.thinking.folder, tokenizer)
    _write_json(folder / "generation_config.json", config)
    if recipe := mergekit_recipe(merge):
        _write_yaml(folder / "mergekit.yml", recipe, comment=beside_mergekit)
    if merge.method.schedule:
        _write_yaml(folder / "schedule.yaml", merge.method.schedule.to_dict())


def _check_unchanged(now: Mapping[str, Any], measurement: Provenance) -> None:
    """Raises ``StudyError`` with the keys whose values differ from the measured ones."""
    from autolambda.study.resume import comparable  # loads the database, which a merge without a study does not need

    before, _ = comparable(measurement.identity, now)
    changed = sorted(key for key, value in now.items() if before.get(key) != value)
    if changed:
        raise StudyError(
            f"study '{measurement.study}' measured other models than the present ones ({', '.join(changed)} changed); "
            "restore the measured ones, or use 'autolambda merge'"
        )


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _provenance(folder: Path, merge: Merge, written: Written, measurement: Provenance | None) -> dict[str, Any]:
    """Returns the content of ``autolambda.json``: the merge, its measurement, and the written files.

    Weights are hashed by tensor, so the hashes do not depend on the sharding. All other files are hashed by their
    bytes. The model card has no hash, because people edit it.
    """
    files = {path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".safetensors"}
    return {
        "autolambda": __version__,
        **merge.method.to_dict(),
        "merge": merge.pair.rounding.to_dict(),
        **{
            role: {"source": model.name, "revision": model.revision, "digest": written.models.get(role)}
            for role, model in merge.models.items()
        },
        **(measurement.to_dict() if measurement else {"study": None, "verdict": None, "measured": None}),
        "weights": written.digest,
        "files": {name: _sha256(folder / name) for name in sorted(files - {PROVENANCE, "README.md"})},
        "tensors": dict(written.tensors),
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_yaml(path: Path, content: Mapping[str, Any], *, comment: str | None = None) -> None:
    head = f"# {comment}\n" if comment else ""
    path.write_text(head + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
