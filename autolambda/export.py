"""A merge on disk: weights, tokenizer, template, generation config, model card, schedule and provenance.

Written into a temporary folder and renamed, so that ``out`` is there whole or not at all. The weights come from the
same ``interpolate`` as the engine's, so they are the ones that were evaluated, bit for bit.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from autolambda import __version__
from autolambda.checkpoint import read_json
from autolambda.entry import Entry
from autolambda.errors import OutputError, StudyError
from autolambda.models import Models
from autolambda.pair import merge_tensors
from autolambda.schedule import Schedule
from autolambda.shards import TensorStream, atomic_folder, write_checkpoint

DEFAULT_SHARD_SIZE = 5 * 10**9
PROVENANCE = "autolambda.json"


@dataclass(frozen=True)
class Measurement:
    """What a study knows of the schedule that is exported; ``identity`` is what its results depend on."""

    study: str
    entry: Entry
    verdict: str
    identity: Mapping[str, Any]


def export(
    models: Models,
    schedule: Schedule,
    out: Path,
    *,
    max_shard_size: int = DEFAULT_SHARD_SIZE,
    measurement: Measurement | None = None,
) -> None:
    """Writes the merge of the parents by ``schedule`` into the new folder ``out``.

    Raises ``OutputError``, and ``StudyError`` where parents or sampling are no longer those that were measured.
    """
    with atomic_folder(out) as folder:
        provenance = _provenance(models, schedule, measurement)  # hashes the parents, so that a broken one ends here
        if measurement:
            _check_unchanged(models, provenance, measurement)
        try:
            _write(folder, models, schedule, max_shard_size=max_shard_size)
            (folder / "README.md").write_text(_card(models, schedule, measurement), encoding="utf-8")
            _write_json(folder / PROVENANCE, provenance | {"files": _hashes(folder)})
        except OSError as error:
            raise OutputError(f"cannot write '{out}': {error.strerror}; free some space or choose another") from error


def check_export(folder: Path) -> Schedule:
    """Compares an exported folder's files, its model card apart, with their hashes; returns its schedule.

    Raises ``OutputError`` with the files that differ, ``CheckpointError`` where the provenance cannot be read.
    """
    if not (folder / PROVENANCE).exists():
        raise OutputError(f"'{folder}' holds no {PROVENANCE}; only folders that autolambda exported can be validated")
    provenance = read_json(folder, PROVENANCE)
    match provenance:
        case {"files": dict(before), "schedule": dict(schedule)} if before:
            now = _hashes(folder)
        case _:
            raise OutputError(f"'{folder / PROVENANCE}' was changed after the export; export it again")
    if changed := sorted(name for name in before if now.get(name) != before[name]):
        raise OutputError(f"'{folder}': changed after the export: {', '.join(changed)}; export it again")
    return Schedule.from_dict(schedule)


def write_model(
    folder: Path,
    models: Models,
    weights: TensorStream,
    *,
    config: Mapping[str, Any],
    max_shard_size: int = DEFAULT_SHARD_SIZE,
) -> None:
    """What a model needs, into an empty folder: weights, config, tokenizer with the template, generation config."""
    write_checkpoint(folder, weights, config=config, max_shard_size=max_shard_size)
    tokenizer = copy.deepcopy(models.chat.tokenizer)
    tokenizer.chat_template = models.chat.template
    tokenizer.save_pretrained(folder)
    _write_json(folder / "generation_config.json", _generation_config(models))


def _write(folder: Path, models: Models, schedule: Schedule, *, max_shard_size: int) -> None:
    """The merge as a model, with its schedule."""
    weights = merge_tensors(models.pair, schedule=schedule)
    write_model(folder, models, weights, config=models.pair.config, max_shard_size=max_shard_size)
    (folder / "schedule.yaml").write_text(yaml.safe_dump(schedule.to_dict(), sort_keys=False), encoding="utf-8")


def _check_unchanged(models: Models, provenance: Mapping[str, Any], measurement: Measurement) -> None:
    """Raises ``StudyError`` naming the keys in which the models are not those that the study measured."""
    now = {f"models.{parent}": provenance[parent]["digest"] for parent in ("instruct", "thinking")}
    sampling = json.loads(json.dumps(asdict(models.sampling)))  # as the database holds it
    now |= {f"sampling.{key}": value for key, value in sampling.items()}
    changed = sorted(key for key, value in now.items() if measurement.identity.get(key) != value)
    if changed:
        raise StudyError(
            f"study '{measurement.study}' measured other models than are there now ({', '.join(changed)} changed); "
            "put the measured ones back, or use 'autolambda merge'"
        )


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 (hex) of each file but the provenance and the model card, which people edit."""
    return {
        path.name: _sha256(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in (PROVENANCE, "README.md")
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _generation_config(models: Models) -> dict[str, Any]:
    """The Thinking parent's, with the sampling and the cap that the search measured with."""
    folder = models.pair.thinking.folder
    config = read_json(folder, "generation_config.json") if (folder / "generation_config.json").exists() else {}
    sampling = models.sampling
    config |= {"do_sample": sampling.temperature > 0, "max_new_tokens": sampling.max_tokens}
    config.pop("max_length", None)  # it would compete with max_new_tokens
    end = config.get("eos_token_id") or models.pair.config.get("eos_token_id") or models.chat.tokenizer.eos_token_id
    config["eos_token_id"] = end  # a generation config without one never stops
    drawn = {key: getattr(sampling, key) for key in ("temperature", "top_p", "top_k", "min_p")}
    config = {key: value for key, value in config.items() if key not in drawn}
    if sampling.temperature == 0:
        return config
    # 0 is written too: transformers takes a top_k of 50 where none stands
    return config | {key: value for key, value in drawn.items() if value or key == "top_k"}


def _provenance(models: Models, schedule: Schedule, measurement: Measurement | None) -> dict[str, Any]:
    """Machine-readable: what was merged, how, and what was measured."""
    return {
        "autolambda": __version__,
        "schedule": schedule.to_dict(),
        "instruct": {"source": models.pair.instruct.source, "digest": models.pair.instruct.digest()},
        "thinking": {"source": models.pair.thinking.source, "digest": models.pair.thinking.digest()},
        "study": measurement and measurement.study,
        "verdict": measurement and measurement.verdict,
        "measured": measurement and measurement.entry.to_dict(),
    }


def _card(models: Models, schedule: Schedule, measurement: Measurement | None) -> str:
    """The model card (Markdown with the hub's front matter)."""
    sources = (models.pair.instruct.source, models.pair.thinking.source)
    front_matter: dict[str, Any] = {"library_name": "transformers", "tags": ["merge", "autolambda"]}
    if not any(Path(source).exists() for source in sources):  # the hub takes its own ids only
        front_matter["base_model"] = list(sources)
    return "\n".join(
        [
            "---",
            yaml.safe_dump(front_matter, sort_keys=False).strip(),
            "---",
            "",
            f"# {Path(models.pair.thinking.source).name} merged by lambda",
            "",
            "A weight interpolation `(1 - lambda) * Instruct + lambda * Thinking`, made with autolambda.",
            "",
            "| | |",
            "|---|---|",
            f"| Instruct | `{models.pair.instruct.source}` |",
            f"| Thinking | `{models.pair.thinking.source}` |",
            f"| Schedule | {schedule} |",
            "",
            *_measured_lines(models, measurement),
            "Load it with `AutoModelForCausalLM.from_pretrained`; the chat template is the one that was measured with. "
            f"A response without `{models.chat.think_end}` is an answer without thinking: a server's reasoning parser "
            "may take all of it for reasoning and return an empty answer.",
            "",
        ]
    )


def _measured_lines(models: Models, measurement: Measurement | None) -> Iterator[str]:
    if measurement is None:
        return
    numbers: Mapping[str, Any] = measurement.entry.to_dict()
    slice_name = (
        "confirmation slice, unseen by the search" if measurement.entry.confirmed else "search slice, not confirmed"
    )
    tasks = ", ".join(measurement.entry.measured.tasks)
    yield f"Measured on {tasks} ({slice_name}), with 95 % intervals; {measurement.verdict}."
    yield ""
    yield "| | value | low | high |"
    yield "|---|---|---|---|"
    for name in ("accuracy", "mean_tokens", "think_ratio"):
        yield f"| {name} | {numbers[name]:.4g} | {numbers[f'{name}_low']:.4g} | {numbers[f'{name}_high']:.4g} |"
    sampling = models.sampling
    yield ""
    yield (
        f"Sampling: temperature {sampling.temperature:g}, top-p {sampling.top_p:g}, top-k {sampling.top_k}, "
        f"at most {sampling.max_tokens} tokens."
    )
    yield ""


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
