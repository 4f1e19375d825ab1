"""Stage boundaries: the paper's curves, simulated coverage, awkward curves and bad input."""

import csv
import runpy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT
from scipy.optimize import isotonic_regression

from autolambda.errors import InputError
from autolambda.statistics import stages as module
from autolambda.statistics.curve import CurvePoint
from autolambda.statistics.stages import Boundary, Stages, detect_stages, sentence, stage_of

STUDIES = ROOT / "studies"
ENDS = {"instruct": "0", "thinking": "1"}
TENTHS = np.linspace(0, 1, 11)


def paper_curve(benchmark, num_responses):
    with (STUDIES / "paper/qwen3_4b.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["benchmark"] == benchmark]
    return [
        CurvePoint(float(ENDS.get(row["method"], row["lambda"])), float(row["think_ratio"]) / 100, num_responses)
        for row in rows
        if row["method"] in (*ENDS, "mi")
    ]


def curve(ratios, num_responses=200.0, lams=TENTHS):
    return [CurvePoint(float(lam), ratio, num_responses) for lam, ratio in zip(lams, ratios, strict=True)]


RISING = (0, 0, 0, 0.01, 0.2, 0.8, 0.99, 1, 1, 1, 1)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(("benchmark", "num_responses"), [("aime25", 1920), ("ifeval", 4328), ("gpqa_diamond", 1584)])
def test_the_papers_boundaries(benchmark, num_responses, counted):
    found = detect_stages(paper_curve(benchmark, num_responses if counted else None))
    assert 0.40 <= found.emergence.lam <= 0.45
    assert 0.54 <= found.saturation.lam <= 0.60
    for boundary in (found.emergence, found.saturation):
        assert boundary.low <= boundary.lam <= boundary.high
        assert boundary.high - boundary.low <= 0.1 + 1e-9
    assert any("100 responses assumed" in note for note in found.notes) != counted


@pytest.mark.parametrize("grid", ["tenths", "quarters", "ladder"])
def test_intervals_hold_the_truth(grid):
    study = runpy.run_path(str(STUDIES / "stages_coverage/coverage.py"))
    for num_responses in (16, 64):
        for row in study["simulate"](grid=grid, num_responses=num_responses, draws=100).values():
            assert row.coverage >= 0.93
            assert row.median_width <= {"tenths": 0.3, "quarters": 0.5, "ladder": 0.4}[grid]


def test_more_responses_narrow_the_interval_down_to_the_gap():
    widths = []
    for num_responses in (10, 100, 1000, 100_000):
        found = detect_stages(curve(RISING, num_responses)).emergence
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(0.1)


def test_a_coarse_grid_leaves_a_wide_interval():
    found = detect_stages(curve((0, 0, 1, 1, 1), 100_000, np.linspace(0, 1, 5)))
    assert (found.emergence.low, found.emergence.high) == (found.saturation.low, found.saturation.high) == (0.25, 0.5)
    assert found.emergence.lam < found.saturation.lam


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(11)))
def test_order_does_not_matter(order):
    points = curve(RISING)
    assert detect_stages([points[i] for i in order]) == detect_stages(points)


def test_points_at_one_lambda_are_pooled():
    halves = [*curve([min(1, 2 * r) for r in RISING], 50), *curve([max(0, 2 * r - 1) for r in RISING], 50)]
    assert detect_stages(halves).emergence.lam == pytest.approx(detect_stages(curve(RISING, 100)).emergence.lam)


@pytest.mark.parametrize("stray", [(1, 0.4), (2, 0.3), (8, 0.5), (9, 0.7), (10, 0.2)])
def test_a_stray_point_is_left_out_and_noted(stray):
    index, ratio = stray
    found = detect_stages(curve([*RISING[:index], ratio, *RISING[index + 1 :]]))
    whole = detect_stages(curve(RISING))
    assert found.emergence.lam == pytest.approx(whole.emergence.lam, abs=0.02)
    assert found.saturation.lam == pytest.approx(whole.saturation.lam, abs=0.02)
    assert f"lambda {TENTHS[index]:g} " in found.notes[0]


def test_small_falls_are_no_strays():
    assert detect_stages(curve((0, 0.005, 0, 0.02, 0.2, 0.8, 1, 0.99, 1, 0.995, 1))).notes == ()


def test_a_curve_that_goes_up_and_down_is_said_to():
    found = detect_stages(curve((0, 0, 0.9, 0.9, 0.9, 0.3, 0.3, 0.3, 1, 1, 1)))
    assert any("goes up and down" in note for note in found.notes) and not found.falls


def test_a_curve_that_falls_asks_whether_the_models_were_swapped():
    found = detect_stages(curve(RISING[::-1]))
    assert found.falls and found.notes == () and "swapped" in sentence(found)
    assert not detect_stages(curve(RISING)).falls and not detect_stages(curve([0.4] * 11)).falls


@pytest.mark.parametrize(
    ("ratios", "emergence", "saturation", "words"),
    [
        ([0.0] * 11, None, None, "hardly changes"),
        ([1.0] * 11, None, None, "hardly changes"),
        ([*RISING[:5], *[0.6] * 6], 0.34, None, "no lambda measured makes it think nearly always"),
        ([0.4] * 5 + list(RISING[5:]), None, 0.57, "At every lambda measured it thinks at times; from "),
    ],
)
def test_levels_that_are_not_passed(ratios, emergence, saturation, words):
    found = detect_stages(curve(ratios))
    for boundary, expected in ((found.emergence, emergence), (found.saturation, saturation)):
        assert (boundary is None) == (expected is None)
        assert boundary is None or boundary.lam == pytest.approx(expected, abs=0.02)
    assert words in sentence(found)
    assert len(found.notes) == [emergence, saturation].count(None)


def test_what_cannot_be_excluded_touches_the_end():
    found = detect_stages(curve((*RISING[:10], 0.94), 16)).saturation
    assert found.high == 1.0
    doubtful = detect_stages(curve((0, 0, 0.04), 50, (0, 0.5, 0.9)))
    assert (doubtful.emergence.lam, doubtful.emergence.high) == (0.9, 1.0)
    assert doubtful.saturation is None
    assert "may be chance" in doubtful.notes[0]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=9))
def test_the_rising_fit_against_scipys(pairs):
    counts = np.array([count for _, count in pairs], float)
    hits = np.array([min(hit, count) for hit, count in pairs], float)
    assert module._isotonic(hits, counts) == pytest.approx(isotonic_regression(hits / counts, weights=counts).x)


ratios = st.floats(0, 1, allow_subnormal=False)


@settings(deadline=None)
@given(st.dictionaries(st.floats(0, 1), st.tuples(ratios, st.none() | st.floats(1, 1e6)), min_size=2, max_size=9))
def test_any_curve_has_ordered_boundaries(points):
    found = detect_stages(CurvePoint(lam, *rest) for lam, rest in points.items())
    for boundary in (found.emergence, found.saturation):
        assert boundary is None or 0 <= boundary.low <= boundary.lam <= boundary.high <= 1
    if found.emergence and found.saturation:
        assert found.emergence.lam <= found.saturation.lam
    assert sentence(found).endswith("?" if found.falls else ".")


@pytest.mark.parametrize(("ratio", "stage"), [(0, 1), (0.049, 1), (0.05, 2), (0.5, 2), (0.95, 2), (0.951, 3), (1, 3)])
def test_stage_of_a_schedule(ratio, stage):
    assert stage_of(ratio) == stage


def test_the_sentence_states_both_boundaries():
    text = sentence(Stages(Boundary(0.424, 0.4, 0.45), Boundary(0.557, 0.55, 0.6), ()))
    assert text == (
        "Below lambda 0.42 (0.40 to 0.45) it hardly ever thinks; from 0.56 (0.55 to 0.60) it nearly always does."
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: detect_stages([]),
        lambda: detect_stages([CurvePoint(0.5, 0.5)] * 3),
        lambda: stage_of(1.5),
        lambda: stage_of(float("nan")),
    ],
)
def test_bad_values_are_input_errors(call):
    with pytest.raises(InputError, match="seen"):
        call()


def test_an_interval_reaches_the_outermost_lambda_or_the_parent_beyond_it():
    below = detect_stages(curve([0.04, 0.06, 0.2, 0.9, 1.0], 64, [-0.2, 0.1, 0.5, 0.9, 1.2])).emergence
    assert below.low == -0.2 <= below.lam <= below.high
    above = detect_stages(curve([0.0, 0.5, 0.93, 0.94], 64, [0.0, 0.5, 1.0, 1.3])).saturation
    assert above.low <= above.lam <= above.high == 1.3
    inner = detect_stages(curve([0.04, 0.5, 0.96], 64, [0.2, 0.5, 0.8]))
    assert (inner.emergence.low, inner.saturation.high) == (0.0, 1.0)
