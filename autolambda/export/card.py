"""Writes the model card of a merge: what a reader needs to judge the merge and to make it again.

The card is Markdown with the hub's front matter. It names models by hub id or folder name, and shows no path of this
machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from autolambda import __version__
from autolambda.driver.models import Models
from autolambda.export.cap import cap_section
from autolambda.export.mergekit import mergekit_recipe
from autolambda.export.notes import notes_section, sampling_section
from autolambda.export.parents import parents_section
from autolambda.export.provenance import Provenance
from autolambda.export.served import served_section
from autolambda.merging.checkpoint import Checkpoint
from autolambda.merging.difference.values import ParentDifference
from autolambda.merging.merge import Merge
from autolambda.merging.method import ROLES
from autolambda.merging.source import find_file
from autolambda.merging.writing.write import Written
from autolambda.statistics.metrics import Measured
from autolambda.statistics.words import percent_of, tokens_of
from autolambda.tasks.digest import prompts_in_words

_UNCONFIRMED = "not confirmed: by the search alone, so it may be too good by luck"
_VERDICTS = {
    "feasible": "its mean tokens are shown to be",
    "uncertain": "its mean tokens are not shown to be",
    "infeasible": "its mean tokens are shown not to be",
}
_LICENSE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md")


def write_card(
    folder: Path,
    models: Models,
    merge: Merge,
    written: Written,
    *,
    measurement: Provenance | None,
    difference: ParentDifference,
    beside_mergekit: str,
) -> None:
    """Writes README.md into an exported folder. Without ``measurement`` the card has no measured numbers.

    ``difference`` is how the parents differ, and ``beside_mergekit`` a sentence on how mergekit's merge differs.
    """
    thinking = merge.models["thinking"].name.rpartition("/")[2]
    lines = [
        "---",
        _front_matter(merge).to_yaml(),
        "---",
        "",
        f"# {thinking} merged by {merge.method.name.replace('_', ' ')}",
        "",
        f"{merge.method.in_words}, made with autolambda {__version__}.",
        "",
        *_made_of(merge, written, measurement),
        *(_measured(measurement) if measurement else ()),
        *cap_section(models, measurement),
        *served_section(measurement),
        *_use(models, measurement),
        *notes_section(models),
        *parents_section(difference),
        *_again(merge, measurement, beside_mergekit),
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def licence_of(model: Checkpoint) -> str | None:
    """Returns the licence that a model's card states, else the first line of its LICENSE file, else ``None``."""
    licence = _card_of(model).get("license_name") or _card_of(model).get("license")
    if isinstance(licence, str):
        return _plain(licence)
    for name in _LICENSE_FILES:
        if path := find_file(model.folder, name):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            return _plain(next((line.strip() for line in lines if line.strip()), name))
    return None


def _card_of(model: Checkpoint) -> Mapping[str, Any]:
    """Returns the front matter of a model's card, or nothing if it cannot be parsed."""
    path = find_file(model.folder, "README.md")
    if path is None:
        return {}
    from huggingface_hub import metadata_load  # slow to import

    try:
        return metadata_load(path) or {}
    except (yaml.YAMLError, OSError, ValueError, RecursionError):
        return {}


def _front_matter(merge: Merge) -> ModelCardData:
    ids = [model.model_id for model in merge.models.values() if model.model_id]
    all_on_hub = len(ids) == len(merge.models)  # the hub accepts ids only
    licences = [_card_of(model).get("license") for model in merge.models.values()]
    shared = licences[0] if isinstance(licences[0], str) and all(name == licences[0] for name in licences) else None
    return ModelCardData(
        library_name="transformers",
        tags=["merge", "autolambda"],
        base_model=ids if all_on_hub else None,
        license=shared,
    )


def _made_of(merge: Merge, written: Written, measurement: Provenance | None) -> Iterator[str]:
    yield "| | model | revision | licence | content (SHA-256) |"
    yield "|---|---|---|---|---|"
    for role, model in merge.models.items():
        digest = written.models.get(role)
        licence = licence_of(model) or "not stated"
        cells = (f"`{model.name}`", model.revision or "local", licence, digest or "not hashed")
        yield f"| {role.capitalize()} | {' | '.join(map(_plain, cells))} |"
    yield ""
    if merge.method.schedule:
        yield f"Schedule: {merge.method.schedule.in_words}. Every weight is computed in float32 and {_rounded(merge)}."
        yield _compared(written, measurement)
        yield ""
    yield "The licences of all merged models apply to the merge."
    yield ""


def _rounded(merge: Merge) -> str:
    """Returns how the weights were rounded, in words."""
    dtype, rounding = str(merge.pair.dtype).removeprefix("torch."), merge.pair.rounding
    if dtype == "float32":
        return "not rounded"
    if rounding.name == "nearest":
        return f"rounded once to the nearest {dtype}"
    return f"rounded once to {dtype} by dithered (stochastic) rounding with the seed {rounding.seed}"


def _compared(written: Written, measurement: Provenance | None) -> str:
    """Returns a sentence with the hash of the weights, and whether it equals the hash of the measured weights."""
    sha = f"Their SHA-256 is `{written.digest}`"
    if measurement is None:
        return f"{sha}."
    if measurement.weights:
        return f"{sha}: they are the confirmed weights, bit for bit."
    why = measurement.why_uncompared
    return f"{sha}; it was not compared with the weights in the engine that measured them: {why}."


def _measured(measurement: Provenance) -> Iterator[str]:
    entry, identity = measurement.entry, measurement.identity
    labels = ", ".join(_plain(task.label) for task in measurement.config.tasks)
    where = "on prompts that the search never saw" if entry.confirmed else f"on the search's prompts, {_UNCONFIRMED}"
    yield "## Measured"
    yield ""
    yield f"Task: {labels}, {where}, with 95 % intervals; {_verdict(measurement)}."
    yield ""
    tasks = entry.measured.tasks.items() if len(entry.measured.tasks) > 1 else ()
    title = "this merge" if entry.confirmed or entry.measured.tasks else "this merge, estimated from all trials"
    parents = [(name.capitalize(), parent) for name, parent in measurement.parents.items() if parent]
    yield from _table(
        [
            (title, entry.measured),
            *((f"- on {_plain(name)}", task) for name, task in tasks),
            *((f"{name}, unmerged, its own template", parent.measured) for name, parent in parents if parent.confirmed),
        ]
    )
    yield ""
    if len(measurement.curve) > 1:
        yield "Merges with one lambda, as measured on the search's prompts (luck makes the best look too good):"
        yield ""
        yield from _table((f"lambda {result.schedule.lam:.4g}", result.measured) for result in measurement.curve)
        yield ""
    data = ", ".join(f"`{_plain(task.source_name)}`" for task in measurement.config.tasks)
    yield (
        f"Data: {data}; prompts {prompts_in_words(identity['tasks'])}. Confirmation: up to "
        f"{identity['confirm.responses']:,} responses to {identity['confirm.prompts']:,} prompts. "
        f"Seed {identity['search.seed']}."
    )
    yield ""


def _verdict(measurement: Provenance) -> str:
    """Returns the verdict in plain words."""
    verdict, _, rest = measurement.verdict.partition(" ")
    return f"{_VERDICTS[verdict]} {rest}" if verdict in _VERDICTS else measurement.verdict


def _table(rows: Iterable[tuple[str, Measured]]) -> Iterator[str]:
    yield "| | accuracy | mean tokens | Think ratio | responses |"
    yield "|---|---|---|---|---|"
    for title, measured in rows:
        tokens = tokens_of(measured.mean_tokens).replace(" tokens", "")
        cells = f"{percent_of(measured.accuracy)} | {tokens} | {percent_of(measured.think_ratio)}"
        yield f"| {title} | {cells} | {measured.num_responses:,} |"


def _use(models: Models, measurement: Provenance | None) -> Iterator[str]:
    tag = models.chat.think_end
    yield "## Use"
    yield ""
    yield (
        "Load it with `AutoModelForCausalLM.from_pretrained` or serve the folder with vLLM. The chat template and the "
        "generation config are the ones used in the measurement."
    )
    yield ""
    yield from sampling_section(models, measurement)
    yield (
        f"A response without `{tag}` is an answer without thinking; low lambdas often give one. A server's reasoning "
        f"parser mistakes it for unfinished thinking: vLLM 0.32 with `--reasoning-parser deepseek_r1` or `qwen3` "
        f"puts all of it into `reasoning` and leaves `content` empty. Serve without a reasoning parser, or read "
        f"`reasoning` when `content` is empty."
    )
    yield ""


def _again(merge: Merge, measurement: Provenance | None, beside_mergekit: str) -> Iterator[str]:
    names = {role: model.model_id or f"./{model.name}" for role, model in merge.models.items()}
    method = "" if merge.method.name == "linear" else f" --method {merge.method.name}"
    rounding = merge.pair.rounding
    method += " --rounding nearest" if rounding.name == "nearest" else ""
    method += f" --rounding-seed {rounding.seed}" if rounding.name == "dithered" and rounding.seed else ""
    how = " --schedule schedule.yaml" if merge.method.schedule else ""
    how += "".join(f" --{role} {name}" for role, name in names.items() if role not in ROLES)
    yield "## Make it again"
    yield ""
    yield "```bash"
    yield f"autolambda merge {names['instruct']} {names['thinking']} OUT{method}{how}"
    if measurement:
        yield f"autolambda export {measurement.study} OUT    # from the study itself, with these numbers"
    yield "autolambda validate OUT"
    yield "```"
    yield ""
    recipe = "`mergekit.yml` describes this merge for mergekit. " if mergekit_recipe(merge) else ""
    yield f"`autolambda.json` holds the SHA-256 of every tensor and every other file. {recipe}{beside_mergekit}"
    yield ""


def _plain(text: str) -> str:
    """Makes text from a model's author safe for a table cell: no line breaks, no bars, no markup."""
    kept = "".join(character if character.isprintable() else " " for character in text)
    return kept.replace("|", "/").replace("<", "(").replace(">", ")")[:120]
