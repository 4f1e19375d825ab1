"""The figures: what they draw is what the report holds, and text from outside stays text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from hostile import TEXTS
from small_ablation import ablated
from small_search import finished, small_snapshot, storage_in, unconfirmed

from autolambda.ablation import figure as ablation
from autolambda.report.figures import FIGURES
from autolambda.report.figures.base import DARK, safe
from autolambda.report.snapshot import StudySnapshot
from autolambda.schedule import Profile, Schedule
from autolambda.statistics.stages import Boundary, Stages
from autolambda.statistics.verdict import Verdict


def drawn(name: str, snapshot: StudySnapshot | None = None) -> go.Figure:
    return FIGURES[name](snapshot or small_snapshot())


def traces(figure: go.Figure) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data}


def changed(**report: object) -> StudySnapshot:
    snapshot = small_snapshot()
    return replace(snapshot, report=replace(snapshot.report, **report))


def hexes(value: object) -> set[str]:
    """Every colour that a figure names by its digits."""
    if isinstance(value, dict):
        return set().union(*map(hexes, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(hexes, value))
    return {value} if isinstance(value, str) and value.startswith("#") else set()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_draws_something_and_has_a_dark_colour_for_each_light_one(name: str) -> None:
    figure = drawn(name)
    assert figure.data and figure.layout.height >= 100
    assert hexes(figure.to_plotly_json()) - {"#ffffff"} <= set(DARK)


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("kind", ["unconfirmed", "no budget", "two trials"])
def test_a_figure_is_drawn_of_every_state_of_a_study(tmp_path: Path, name: str, kind: str) -> None:
    snapshot = small_snapshot()
    if kind == "unconfirmed":
        snapshot = small_snapshot(unconfirmed(storage_in(tmp_path)))
    elif kind == "no budget":
        snapshot = changed(budget=None, best=None, verdict=None)
    else:
        few = {name: getattr(snapshot.report, name)[:2] for name in ("trials", "smoothed")}
        report = replace(snapshot.report, confirmed=(), best=None, verdict=None, stages=Stages(None, None, ()), **few)
        snapshot = replace(snapshot, report=report, trials=snapshot.trials[:2])
    assert drawn(name, snapshot).data


def test_a_studys_rows_are_drawn_from_the_top_with_their_intervals() -> None:
    (each,) = [each for each in ablated() if each.name == "layers"]
    figure = ablation.draw(each)
    labels = [result.label for result in each.results]
    assert list(figure.layout.yaxis.categoryarray) == labels[::-1] and len(figure.data) == 2 * 3
    own, reference = figure.data[0], figure.data[1]
    assert list(own.y) == labels[2:] and list(reference.y) == labels[:2]
    accuracy = each.results[2].measured.accuracy
    assert own.x[0] == 100 * accuracy.value and own.error_x.array[0] == pytest.approx(
        100 * (accuracy.high - accuracy.value)
    )
    assert hexes(figure.to_plotly_json()) - {"#ffffff"} <= set(DARK)
    odd = replace(each, results=(replace(each.results[0], label="<b>x"),))
    assert "&lt;b&gt;x" in str(ablation.draw(odd).data[1].hovertext)


def test_the_front_shows_schedules_fronts_parents_pick_and_budget() -> None:
    report, figure = finished(), drawn("front")
    found = traces(figure)
    assert list(found["measured in the search"].x) == [result.score.mean_tokens for result in report.trials]
    for name, front in (
        ("estimated", report.smoothed_front),
        ("confirmed", report.confirmed_front),
    ):
        assert list(found[f"{name} front"].x) == [result.score.mean_tokens for result in front]
        assert list(found[f"{name} front"].y) == [100 * result.score.accuracy for result in front]
    confirmed, first = found["confirmed front"], report.confirmed_front[0].measured
    assert confirmed.error_y.array[0] == pytest.approx(100 * (first.accuracy.high - first.accuracy.value))
    assert confirmed.error_x.arrayminus[0] == pytest.approx(first.mean_tokens.value - first.mean_tokens.low)
    assert {"Instruct as is", "Thinking as is"} <= set(found)
    assert (
        report.best is not None and found[f"the pick: trial {report.best.trial}"].x[0] == report.best.score.mean_tokens
    )
    assert [shape.x0 for shape in figure.layout.shapes] == [30.0]
    assert (
        "trial 0" in found["measured in the search"].hovertext[0]
        and "responses" in found["measured in the search"].hovertext[0]
    )


def test_other_methods_are_on_the_front_by_name() -> None:
    found = traces(drawn("front", changed(baselines={"<b>slerp": finished().confirmed[0]})))
    assert "&lt;b&gt;slerp" in found["other methods"].hovertext[0]
    assert "other methods" not in traces(drawn("front"))


def test_the_curve_goes_through_the_uniform_lambdas_with_bands_of_the_stages() -> None:
    stages = Stages(Boundary(0.3, 0.2, 0.35), Boundary(0.8, 0.7, 1.0), ())
    figure = drawn("curve", changed(stages=stages))
    uniform = sorted(result.schedule.lam for result in finished().trials if result.schedule.lam is not None)
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [list(line.x) for line in lines] == [uniform] * 3
    spans = {(shape.x0, shape.x1) for shape in figure.layout.shapes}
    assert {(0.0, 0.3), (0.3, 0.8), (0.8, 1.0), (0.2, 0.35), (0.7, 1.0), (0.3, 0.3)} <= spans
    assert [note.text for note in figure.layout.annotations] == ["stage 1", "stage 2", "stage 3"]


@pytest.mark.parametrize(
    ("stages", "num_bands"), [(Stages(None, None, ()), 0), (Stages(Boundary(0.5, 0.4, 0.6), None, ()), 2)]
)
def test_stages_that_are_not_seen_have_no_band(stages: Stages, num_bands: int) -> None:
    figure = drawn("curve", changed(stages=stages))
    assert len(figure.layout.annotations) == num_bands


def test_schedules_are_drawn_layer_by_layer() -> None:
    best = finished().best
    assert best is not None
    schedule = Schedule.by_depth_and_module(Profile((0.0, 1.0)), Profile((0.5,)))
    result = replace(best, schedule=schedule)
    figure = drawn("schedules", changed(best=result, confirmed=(result,)))
    heat = figure.data[0]
    assert [list(row) for row in heat.z] == [pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0]), [0.5] * 6]
    assert list(figure.layout.yaxis.ticktext) == [
        f"<b>→ trial {best.trial}</b>, {module}" for module in ("attention", "ffn")
    ]


def test_without_the_models_depth_is_drawn_in_parts() -> None:
    heat = drawn("schedules", replace(small_snapshot(), num_layers=None)).data[0]
    assert len(heat.z[0]) == 24 and "part" in heat.hovertext[0][0]


def test_lengths_are_shares_of_a_stages_responses() -> None:
    snapshot = small_snapshot()
    figure = drawn("lengths", snapshot)
    stages = snapshot.trials.stage.dropna().unique()
    rows: dict[str, float] = {}
    for trace in figure.data:
        rows[trace.yaxis] = rows.get(trace.yaxis, 0.0) + float(np.sum(trace.y))
    assert len(rows) == len(stages) and list(rows.values()) == pytest.approx([100.0] * len(rows))


def test_progress_is_a_step_a_trial_with_the_confirmation_after_it() -> None:
    snapshot = small_snapshot()
    figure = drawn("progress", snapshot)
    assert list(figure.data[0].x) == snapshot.trials.tokens_so_far.tolist()
    (band,) = figure.layout.shapes
    assert (band.x0, band.x1) == (snapshot.trials.tokens.sum(), snapshot.report.tokens_generated)


def test_the_race_says_why_each_trial_ended() -> None:
    snapshot = small_snapshot()
    trials = snapshot.trials.copy()
    trials.loc[1, ["outcome", "reason"]] = ["pruned", "over the budget"]
    trials.loc[2, ["outcome", "reason"]] = ["pruned", "off the front"]
    trials.loc[3, ["outcome", "reason", "num_responses"]] = ["failed", "<script>", 4]
    found = traces(drawn("race", replace(snapshot, trials=trials)))
    assert list(found["stopped: over the budget"].x) == [1] and list(found["stopped: others are better"].x) == [2]
    assert "&lt;script&gt;" in found["could not be measured"].hovertext[0]
    assert list(found["measured to its end"].x) == [0, 4, 5] and list(found["planned"].x) == [3]


@pytest.mark.parametrize("text", TEXTS)
def test_text_for_a_figure_has_no_markup_and_no_control_characters(text: str) -> None:
    shown = safe(text)
    assert "<" not in shown and ">" not in shown and shown.isprintable() and Verdict


def test_the_colours_of_schedules_span_the_values_that_occur() -> None:
    heat = next(trace for trace in drawn("schedules").data if trace.type == "heatmap")
    values = [value for row in heat.z for value in row]
    assert 0 <= heat.zmin <= min(values) and max(values) <= heat.zmax <= 1 and heat.zmax - heat.zmin >= 0.299
    narrow = changed(confirmed=finished().confirmed[:1], best=finished().confirmed[0])
    heat = next(trace for trace in drawn("schedules", narrow).data if trace.type == "heatmap")
    assert heat.zmin >= 0 and heat.zmax <= 1 and heat.zmax - heat.zmin == pytest.approx(0.3)


def test_schedules_outside_the_parents_are_drawn_whole() -> None:
    first, *others = finished().trials
    axis = drawn("curve").layout.xaxis.range
    assert axis == (-0.02, 1.02)
    low, high = (replace(first, schedule=Schedule.uniform(lam)) for lam in (-0.2, 1.3))
    assert drawn("curve", changed(trials=(low, high, *others))).layout.xaxis.range == pytest.approx((-0.22, 1.32))
    best = replace(finished().confirmed[0], schedule=Schedule.uniform(1.3))
    heat = next(t for t in drawn("schedules", changed(confirmed=(best,), best=best)).data if t.type == "heatmap")
    assert (heat.zmin, heat.zmax) == pytest.approx((1.0, 1.3))


def test_the_legend_of_the_front_is_short() -> None:
    assert [trace.name for trace in drawn("front").data if trace.showlegend is not False] == [
        "measured in the search",
        "estimated front",
        "confirmed front",
        f"the pick: {finished().best.name}",  # type: ignore[union-attr]  # it has one
    ]
