"""The model card: what was merged, measured and how to make it again, and nothing of the machine it was made on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from checkpoints import tiny_checkpoint
from small_search import NAME, SETTINGS, close_pair, finished, small_config, storage_in, unconfirmed

from autolambda import open_study
from autolambda.bundled import FOLDER
from autolambda.config import Config
from autolambda.driver.models import Models, open_models
from autolambda.export.card import licence_of
from autolambda.export.export import check_export, export
from autolambda.export.provenance import Provenance
from autolambda.merging.checkpoint import open_checkpoint
from autolambda.merging.method import Method
from autolambda.schedule import Profile, Schedule
from autolambda.statistics.words import percent_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def from_hub(cache: Path, model: str, parent: str, card: str) -> Path:
    """A bundled parent as it would lie in the hub's cache."""
    folder = cache / f"models--{model.replace('/', '--')}" / "snapshots" / COMMIT
    shutil.copytree(FOLDER / parent, folder)
    (folder / "README.md").write_text(card)
    return folder


def models_of(instruct: Path, thinking: Path) -> Models:
    return open_models(dithered(models__instruct=str(instruct), models__thinking=str(thinking)))


def dithered(**changes: object) -> Config:
    return small_config(**{"merge__rounding": "dithered"} | changes)


def front_matter(card: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(card.split("---")[1])
    return found


def test_models_of_the_hub_are_named_with_revision_hash_and_licence(tmp_path: Path) -> None:
    card = "---\nlicense: apache-2.0\n---\n# A model"
    instruct = from_hub(tmp_path / "hub", "org/Small-Instruct", "instruct", card)
    thinking = from_hub(tmp_path / "hub", "org/Small-Thinking", "thinking", card)
    report = finished()
    models = models_of(instruct, thinking)
    measurement = replace(Provenance.of(report), weights=None)  # the study rounded to nearest
    export(models, measurement.entry.schedule, tmp_path / "out", measurement=measurement)
    card = (tmp_path / "out" / "README.md").read_text()
    found = front_matter(card)
    assert found["base_model"] == ["org/Small-Instruct", "org/Small-Thinking"] and found["license"] == "apache-2.0"
    for parent in ("instruct", "thinking"):
        name = f"org/Small-{parent.capitalize()}"
        row = f"| {parent.capitalize()} | `{name}` | {COMMIT} | apache-2.0 | {report.identity[f'models.{parent}']} |"
        assert row in card
    assert "autolambda merge org/Small-Instruct org/Small-Thinking OUT --schedule schedule.yaml" in card
    provenance = json.loads((tmp_path / "out" / "autolambda.json").read_text())
    assert provenance["thinking"]["revision"] == COMMIT and provenance["thinking"]["source"] == "org/Small-Thinking"
    assert provenance["identity"]["tasks"] == report.identity["tasks"]


def test_the_study_is_told_with_curve_parents_data_and_seed(tmp_path: Path) -> None:
    report = finished()
    models = open_models(small_config())
    measurement = Provenance.of(report)
    export(models, measurement.entry.schedule, tmp_path / "out", measurement=measurement)
    card = (tmp_path / "out" / "README.md").read_text()
    uniform = [entry for entry in report.trials if entry.schedule.lam is not None]
    assert len(uniform) > 2
    for entry in uniform:
        row = f"| lambda {entry.schedule.lam:.4g} | {percent_of(entry.measured.accuracy)} |"
        assert row in card
    assert "| Instruct, unmerged, its own template |" in card and "| Thinking, unmerged, its own template |" in card
    assert "Data: `arithmetic`; prompts 16x1 to search, 32x1 to confirm" in card
    assert f"Seed {SETTINGS['search.seed']}." in card
    assert "Task: arithmetic, on prompts that the search never saw, with 95 % intervals; its mean tokens are " in card
    assert (
        "shown to be within 30 tokens." in card
        and f"| this merge | {percent_of(report.result(None).measured.accuracy)}" in card
    )
    assert "autolambda export small OUT" in card and "leaves `content` empty" in card


def test_an_export_that_was_not_confirmed_says_so_and_which_accuracy_is_which(tmp_path: Path) -> None:
    report = open_study(NAME, storage=unconfirmed(storage_in(tmp_path))).report()
    assert report.best is not None and not report.best.measured.tasks  # an estimate
    measurement = Provenance.of(report)
    export(open_models(small_config()), measurement.entry.schedule, tmp_path / "out", measurement=measurement)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Task: arithmetic, on the search's prompts, not confirmed: by the search alone" in card
    assert f"| this merge, estimated from all trials | {percent_of(report.best.measured.accuracy)}" in card
    assert "Merges with one lambda, as measured on the search's prompts (luck" in card


@pytest.mark.parametrize("method", ["linear", "ties"])
def test_nothing_of_the_machine_is_in_it(tmp_path: Path, method: str) -> None:
    place = tmp_path / "private"
    folders = [
        tiny_checkpoint(place / name, seed=seed) for seed, name in enumerate(("base", "my-instruct", "my-think"))
    ]
    chosen = Method("ties", base=str(folders[0])) if method == "ties" else Method.linear(Schedule.uniform(0.5))
    export(models_of(folders[1], folders[2]), chosen, tmp_path / "out")
    for name in ("README.md", "autolambda.json", "mergekit.yml", "config.json", "tokenizer_config.json"):
        assert "private" not in (tmp_path / "out" / name).read_text(), name
    card = (tmp_path / "out" / "README.md").read_text()
    how = "--method ties --base ./base" if method == "ties" else "--schedule schedule.yaml"
    assert f"autolambda merge ./my-instruct ./my-think OUT {how}" in card and "base_model" not in front_matter(card)
    assert "| Instruct | `my-instruct` | local | not stated | not hashed |" in card and "Measured" not in card
    assert check_export(tmp_path / "out") == ("ties" if method == "ties" else "lambda 0.5")


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"README.md": "---\nlicense: mit\n---\n"}, "mit"),
        ({"README.md": "---\nlicense: other\nlicense_name: qwen\n---\n"}, "qwen"),
        ({"README.md": "# nothing", "LICENSE": "\n  Apache License\nmore"}, "Apache License"),
        ({"README.md": "---\nlicense: [1, 2\n---\n"}, None),
        ({"README.md": "---\n- a list\n---\n"}, None),
        ({"README.md": "---\nlicense: [mit, apache-2.0]\n---\n"}, None),
        ({"README.md": "---\n[" + "[" * 3000}, None),
        ({"README.md": "---\na: " + "[" * 500 + "\n---\n"}, None),
        ({"README.md": "---\nlicense: 'a | b <script>\\n c'\n---\n"}, "a / b (script)\\n c"),
        ({}, None),
    ],
)
def test_a_licence_is_what_the_model_says_of_itself(tmp_path: Path, files: dict[str, str], licence: str | None) -> None:
    folder = tiny_checkpoint(tmp_path / "model")
    for name, text in files.items():
        (folder / name).write_text(text)
    assert licence_of(open_checkpoint(str(folder))) == licence


def test_a_schedule_over_layers_is_written_out(tmp_path: Path) -> None:
    models = open_models(small_config())
    schedule = Schedule.by_depth_and_module(Profile((0.4, 0.9)), Profile((0.7,)))
    export(models, schedule, tmp_path / "out")
    assert f"Schedule: {schedule} (from the first to the last layer)." in (tmp_path / "out" / "README.md").read_text()


def card_of(out: Path, lam: float, **changes: str) -> str:
    export(open_models(dithered(**changes)), Schedule.uniform(lam), out)
    return (out / "README.md").read_text()


def test_how_the_parents_differ_is_told_with_two_tables(tmp_path: Path) -> None:
    card = card_of(tmp_path / "out", 0.6, **close_pair(tmp_path))
    part = card[card.index("## How the parents differ") : card.index("## Make it again")]
    assert "All weights differ by at most one step of bfloat16. Rounded to nearest, merges at lambda 0.49" in part
    assert "Compared: all 690,528 weights. Share of the weights, in %, by steps of bfloat16:" in part
    assert "| steps | 0 | 1 | 2 | 3 | 4 | 5 or more |\n|---|---:|---:|---:|---:|---:|---:|\n" in part
    assert "| ffn | 0.0 | 100.0 | 0.0 | 0.0 | 0.0 | 0.0 |\n" in part and "| lambda | 0.1 | 0.2 | 0.25 |" in part


def test_mergekits_rounding_is_told_in_the_card_and_the_recipe(tmp_path: Path) -> None:
    card = card_of(tmp_path / "out", 0.6, **close_pair(tmp_path))
    said = (
        "mergekit rounds to nearest: its merge differs from this one in 40 % of the weights, by one step of bfloat16."
    )
    assert f"for mergekit. {said}\n" in card
    recipe = (tmp_path / "out" / "mergekit.yml").read_text()
    assert recipe.startswith(f"# {said}\nmerge_method: linear\n") and yaml.safe_load(recipe)["dtype"] == "float32"


def test_parents_in_float32_have_no_steps_and_no_rounding(tmp_path: Path) -> None:
    folders = {
        f"models__{name}": str(tiny_checkpoint(tmp_path / name, seed=seed, dtype=torch.float32))
        for seed, name in enumerate(("instruct", "thinking"))
    }
    card = card_of(tmp_path / "out", 0.6, **folders)
    part = card[card.index("## How the parents differ") : card.index("## Make it again")]
    assert part.strip().endswith("The parents are float32: their merges are not rounded.") and "|" not in part
    assert "Neither autolambda nor mergekit rounds this merge, because it is float32." in card
