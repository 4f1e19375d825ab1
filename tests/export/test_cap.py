"""The card's section on caps: the rival of the pick, and how a server is told a cap that is to be used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from small_search import capped, capped_config, finished

from autolambda.driver.models import open_models
from autolambda.export.cap import cap_section
from autolambda.export.export import export
from autolambda.export.notes import export_notes
from autolambda.export.provenance import Provenance


def test_the_card_names_the_rival_of_the_pick(tmp_path: Path) -> None:
    report, models = capped(), open_models(capped_config())
    measurement = Provenance.of(report)
    export(models, measurement.entry.schedule, tmp_path / "out", measurement=measurement)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert report.cap is not None
    assert f"with its thinking cut at {report.cap.capped.tokens} tokens, answers " in card and "The merge is " in card
    assert json.loads((tmp_path / "out" / "autolambda.json").read_text())["thinking_capped"] == report.cap.to_dict()
    other = next(each.trial for each in report.confirmed if not report.is_pick(each))
    assert Provenance.of(report, trial=other).rival is None, "the cap has the tokens of the pick"
    assert not list(cap_section(models, Provenance.of(finished()))) and not list(cap_section(models, None))


def test_a_cap_that_is_better_is_told_with_the_settings_of_a_server() -> None:
    report, models = capped(), open_models(capped_config())
    assert report.cap is not None and report.best is not None
    cap = replace(report.cap, result=report.best, is_better=True)
    measurement = Provenance.of(replace(report, capped_merge=cap))
    text = "\n".join(cap_section(models, measurement))
    assert f"Use this merge with a cap of {cap.capped.tokens} tokens on its thinking" in text
    assert f'"thinking_token_budget": {cap.capped.tokens + 1}' in text, "the line break after the tag counts in vLLM"
    (command,) = (line for line in text.splitlines() if line.startswith("vllm serve"))
    settings = json.loads(command.split("'")[1])
    assert settings["reasoning_end_str"] == "\n</think>\n\n" and settings["reasoning_start_str"] == "<think>"
    assert any("cap of" in note for note in export_notes(models, None, measurement))
    worse = Provenance.of(replace(report, capped_merge=replace(cap, is_better=False)))
    assert worse.cap is None and "Use this merge" not in "\n".join(cap_section(models, worse))
