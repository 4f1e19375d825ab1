"""Ablations as tables, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from small_ablation import ablated, results

from autolambda.ablation.table import ablations_csv, ablations_json, ablations_text, ablations_view, write_ablations
from autolambda.errors import OutputError


def shown(width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(ablations_view(ablated()))
    return file.getvalue()


def test_a_row_holds_its_numbers_with_intervals_and_the_difference() -> None:
    (line,) = [line for line in ablations_text(ablated()).splitlines() if line.startswith("without ffn")]
    result = results()["modules"]["without ffn"]
    accuracy, change = result.measured.accuracy, result.change
    assert change is not None
    assert f"{100 * accuracy.value:.1f} {100 * accuracy.low:.1f}–{100 * accuracy.high:.1f}" in line
    assert f"{100 * change.value:+.1f} {100 * change.low:+.1f} to {100 * change.high:+.1f}" in line


@pytest.mark.parametrize("width", [72, 80, 99, 120])
def test_all_studies_fit_the_screen_with_every_number(width: int) -> None:
    text = shown(width)
    assert all(len(line) <= width for line in text.splitlines())
    assert all(each.title in text for each in ablated())
    assert sorted(text.split()) == sorted(ablations_text(ablated()).split())


def test_nothing_yet_is_said() -> None:
    assert "no row is complete yet" in ablations_text(()) and ablations_json(()) == "{}\n"


def test_json_has_each_study_with_what_it_is_compared_with() -> None:
    plain = json.loads(ablations_json(ablated()))
    assert list(plain) == [each.name for each in ablated()]
    reference, drawn = plain["decoding"]
    assert reference["row"] == "lambda 0.5" and reference["compared_with"] is None
    assert (drawn["temperature"], drawn["top_p"], drawn["schedule"]) == (0.3, 0.7, {"lambda": 0.5})
    assert drawn["compared_with"] == "lambda 0.5" and drawn["accuracy_low"] <= drawn["accuracy"]
    assert 0 <= drawn["truncated_ratio"] <= drawn["truncated_ratio_high"] <= 1 and drawn["stage"] in (1, 2, 3)


def test_csv_has_each_row_once() -> None:
    rows = list(csv.DictReader(io.StringIO(ablations_csv(ablated()))))
    own = [result for each in ablated() for result in each.results if not result.is_reference]
    assert [row["row"] for row in rows] == [result.label for result in own]
    assert json.loads(rows[0]["schedule"]) == {"lambda": 0.0} and rows[0]["parent"] == "instruct"


def test_a_backbones_name_is_text() -> None:
    (first, *_) = ablated()
    odd = replace(first.results[0], label="[red]x\x1b[2J")
    assert "[red]x\\x1b[2J" in ablations_text([replace(first, results=(odd,))])


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        write_ablations(ablated(), form="csv", out=tmp_path / "no" / "a.csv", console=Console())
