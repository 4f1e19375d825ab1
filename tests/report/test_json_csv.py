"""JSON with exactly the documented keys, CSV that pandas reads, tables in files."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from rich.console import Console
from small_search import finished, with_parent

from autolambda.errors import OutputError
from autolambda.report.json_csv import curve_json, report_csv, report_json, report_text, write_report
from autolambda.report.report import Alike, Likely
from autolambda.statistics.estimates import Difference
from autolambda.statistics.guards import Drop
from autolambda.statistics.stages import Boundary, Stages
from autolambda.statistics.token_value import CurveInsights

KEYS = {"study", "budget", "verdict", "best", "nearest", "front", "fronts", "parents", "baselines", "stop_reason"}
KEYS |= {"stages", "worth", "tokens_generated", "trials", "alike", "parents_differ", "likely"}
KEYS |= {"uniform", "preferred_over", "beyond", "against_thinking", "cap", "capped_merge"}
SHARES = {"accuracy", "accuracy_low", "accuracy_high", "think_ratio", "think_ratio_low", "think_ratio_high"}
NUMBERS = SHARES | {"truncated_ratio", "unparsed_ratio", "mean_tokens", "mean_tokens_low", "mean_tokens_high"}
RESULT_KEYS = NUMBERS | {
    "trial",
    "schedule",
    "stage",
    "confirmed",
    "num_responses",
    "stopped",
    "tasks",
    "guards",
    "parent",
}
QUANTILES = {"tokens_p50", "tokens_p90"}
TASK_KEYS = NUMBERS | QUANTILES | {f"{name}_is_bound" for name in QUANTILES}


def test_the_json_has_the_documented_keys_and_types() -> None:
    plain = json.loads(report_json(finished()))
    assert plain.keys() == KEYS
    assert plain["study"] == "small" and plain["budget"] == 30.0 and plain["verdict"] == "feasible"
    assert plain["fronts"].keys() == {"raw", "smoothed", "confirmed"} and plain["front"] == plain["fronts"]["confirmed"]
    assert plain["parents"].keys() == {"instruct", "thinking"} and plain["baselines"] == []
    assert plain["trials"] == {"complete": 6, "pruned": 0, "failed": 0} and plain["stop_reason"] == "trials"
    assert plain["stages"].keys() == {"emergence", "saturation"}
    assert plain["worth"].keys() == {"sweet_spot", "overthinking", "runaway", "beats_both_parents"}
    assert plain["worth"]["sweet_spot"].keys() == RESULT_KEYS
    over = {f"accuracy_over_{name}{end}" for name in ("instruct", "thinking") for end in ("", "_low", "_high")}
    assert plain["worth"]["beats_both_parents"].keys() == {"trial", "is_shown", *over}
    assert type(plain["tokens_generated"]) is int and plain["nearest"] is None


def test_a_parent_that_is_the_answer_and_a_likely_finalist_are_in_the_json() -> None:
    report = with_parent(finished())
    plain = json.loads(report_json(replace(report, likely=Likely(report.confirmed[0], 0.87))))
    assert plain["best"]["parent"] == "instruct" and plain["best"]["trial"] is None and plain["verdict"] == "feasible"
    assert plain["best"] == plain["parents"]["instruct"]
    assert plain["likely"] == {"chance": 0.87, **report.confirmed[0].to_dict()}
    plain = json.loads(report_json(finished()))
    assert plain["likely"] is None and plain["best"]["parent"] is None


def test_how_the_parents_differ_is_told_or_null() -> None:
    found = json.loads(report_json(finished()))["parents_differ"]
    assert found.keys() == {"dtype", "rounding", "weights", "sampled", "steps", "moved"}
    assert (found["dtype"], found["weights"], found["sampled"]) == ("bfloat16", 690_528, False)
    parts = {"whole", "attention", "ffn", "other"}
    assert found["steps"].keys() == parts and all(len(shares) == 6 for shares in found["steps"].values())
    assert all(sum(shares) == pytest.approx(1, abs=1e-5) for shares in found["steps"].values())
    assert all(row.keys() == {"lambda", *parts} for row in found["moved"])
    assert all(row["whole"] == pytest.approx(row["lambda"], abs=0.01) for row in found["moved"])
    assert json.loads(report_json(replace(finished(), parents_differ=None)))["parents_differ"] is None


def test_every_result_has_the_documented_keys_and_types() -> None:
    plain = json.loads(report_json(finished()))
    searched, confirmed = plain["fronts"]["raw"], plain["fronts"]["confirmed"]
    parents = list(plain["parents"].values())
    assert all(result["confirmed"] is False for result in searched)
    assert all(result["confirmed"] is True for result in [plain["best"], *confirmed, *parents])
    for result in [plain["best"], *searched, *confirmed, *parents]:
        assert result.keys() == RESULT_KEYS and result["tasks"].keys() == {"arithmetic"}
        task = result["tasks"]["arithmetic"]
        assert task.keys() == TASK_KEYS and result["guards"] is None
        assert 1 <= task["tokens_p50"] <= task["tokens_p90"] and task["tokens_p50_is_bound"] in (True, False)
        assert all(type(result[key]) is float for key in NUMBERS) and all(0 <= result[key] <= 1 for key in SHARES)
        for name in ("accuracy", "mean_tokens", "think_ratio"):
            assert result[f"{name}_low"] <= result[name] <= result[f"{name}_high"]
        assert result["stage"] in (1, 2, 3) and isinstance(result["schedule"], dict)
        assert result["num_responses"] == (32 if result["confirmed"] else 16) and result["stopped"] is None
        assert result["trial"] is None if result in parents else type(result["trial"]) is int


def test_the_smoothed_front_is_the_models_and_has_no_tasks() -> None:
    plain = json.loads(report_json(finished()))
    smoothed, raw = plain["fronts"]["smoothed"], plain["fronts"]["raw"]
    assert smoothed and {result["trial"] for result in smoothed} <= set(range(6))
    for result in smoothed:
        assert result.keys() == RESULT_KEYS and result["tasks"] == {} and not result["confirmed"]
        assert (
            0 < result["accuracy"] < 1
            and result["mean_tokens_low"] < result["mean_tokens"] < result["mean_tokens_high"]
        )
    measured = {result["trial"]: result for result in raw}
    both = [(result, measured[result["trial"]]) for result in smoothed if result["trial"] in measured]
    assert any(result["accuracy"] != own["accuracy"] for result, own in both)
    assert both and all(result["think_ratio"] == own["think_ratio"] for result, own in both)  # a share of 0 stays 0


def test_what_cannot_be_told_apart_is_listed_with_its_difference() -> None:
    result = finished().confirmed[0]
    alike = Alike(result, Difference(-0.01, 0.02, -0.05, 0.03, -0.04, 0.02, 32))
    plain = json.loads(report_json(replace(finished(), alike=(alike,))))
    assert plain["alike"] == [
        {
            "trial": result.trial,
            "accuracy_difference": -0.01,
            "accuracy_difference_low": -0.05,
            "accuracy_difference_high": 0.03,
        }
    ]


DROP = Drop(0.01, -0.02, 0.04, 0.02, None)


@pytest.mark.parametrize(("kept", "word"), [(True, "kept"), (False, "broken"), (None, "unsure")])
def test_a_confirmed_result_says_what_it_loses_on_a_guard(kept: bool | None, word: str) -> None:
    report = finished()
    result = replace(
        report.confirmed[0],
        drops={"arithmetic": replace(DROP, kept=kept)},
        scores={"arithmetic": {"prompt_level_strict_acc": 0.5, "num_read": 30}},
    )
    [plain] = json.loads(report_json(replace(report, confirmed=(result,))))["fronts"]["confirmed"]
    assert plain["guards"] == word and plain["tasks"]["arithmetic"].keys() == TASK_KEYS | {"guard", "scores"}
    expected = {"max_drop": 0.02, "drop": 0.01, "drop_low": -0.02, "drop_high": 0.04, "kept": kept}
    assert plain["tasks"]["arithmetic"]["guard"] == expected
    assert plain["tasks"]["arithmetic"]["scores"] == {"prompt_level_strict_acc": 0.5, "num_read": 30}


@pytest.mark.parametrize(("allowed", "word"), [(0.99, "kept"), (0.5, "unsure"), (0.01, "broken"), (None, None)])
def test_before_it_is_confirmed_the_surrogate_says_what_is_known_of_the_guards(
    allowed: float | None, word: str | None
) -> None:
    report = finished()
    trials = tuple(replace(result, allowed=allowed) for result in report.trials)
    plain = json.loads(report_json(replace(report, trials=trials)))["fronts"]["raw"]
    assert {result["guards"] for result in plain} == {word}


def test_pandas_reads_the_csv_with_a_row_a_trial() -> None:
    whole = pandas.read_csv(io.StringIO(report_csv(finished())))
    frame = whole[~whole.confirmed]
    assert list(frame["trial"]) == list(range(6)) and set(frame.columns) == RESULT_KEYS - {"tasks"} | {"pick", "cap"}
    assert json.loads(frame["schedule"][1]) == {"lambda": 1.0}
    assert frame["mean_tokens"][0] == finished().trials[0].measured.mean_tokens.value


def test_the_csv_has_the_confirmed_numbers_of_the_pick_too() -> None:
    report, frame = finished(), pandas.read_csv(io.StringIO(report_csv(finished())))
    assert report.best is not None
    [pick] = frame[frame.confirmed & frame.pick].to_dict("records")
    assert pick["trial"] == report.best.trial and pick["accuracy"] == report.best.score.accuracy
    assert list(frame[frame.confirmed].trial) == [each.trial for each in report.confirmed]


def test_the_json_compares_the_pick_with_thinking_and_with_the_best_single_lambda() -> None:
    report = finished()
    plain = json.loads(report_json(replace(report, uniform=report.confirmed[0])))
    assert plain["uniform"] == report.confirmed[0].to_dict() and plain["preferred_over"] is None
    found = plain["against_thinking"]
    assert report.best is not None and (thinking := report.parents["thinking"]) is not None
    assert found["token_share"] == report.best.score.mean_tokens / thinking.score.mean_tokens
    assert found["accuracy_difference_low"] <= found["accuracy_difference"] <= found["accuracy_difference_high"]
    assert json.loads(report_json(replace(report, best=None)))["against_thinking"] is None


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_a_file_holds_what_the_screen_shows(tmp_path: Path, form: str) -> None:
    shown = io.StringIO()
    write_report(finished(), form=form, out=None, console=Console(file=shown, width=120))
    write_report(finished(), form=form, out=tmp_path / "report", console=Console(file=io.StringIO()))
    written = (tmp_path / "report").read_text(encoding="utf-8")
    assert written == shown.getvalue() and len(written.splitlines()) > 5


def test_text_for_a_pipe_has_no_escape_codes() -> None:
    assert "\x1b" not in report_text(finished()) and "Found: " in report_text(finished())


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file or directory; choose another"):
        write_report(finished(), form="json", out=tmp_path / "no" / "where", console=Console(file=io.StringIO()))


def test_stages_as_json() -> None:
    stages = Stages(Boundary(0.4, 0.3, 0.5), None, ("a note",))
    plain = json.loads(curve_json(CurveInsights(stages, None, None, (), None)))
    assert {plain.pop(key) for key in ("sweet_spot", "overthinking", "runaway")} == {None}
    assert plain == {"emergence": {"lambda": 0.4, "low": 0.3, "high": 0.5}, "saturation": None}
