"""Stage boundaries: the paper's curves, simulated coverage, awkward curves and bad input."""

import csv
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from autolambda import stages as module
from autolambda.errors import InputError
from autolambda.stages import Boundary, CurvePoint, Stages, detect_stages, read_curve, sentence, stage_of

STUDIES = Path(__file__).parents[1] / "studies"
ENDS = {"instruct": "0", "thinking": "1"}
TENTHS = np.linspace(0, 1, 11)


def paper_curve(benchmark, num_responses):
    with (STUDIES / "paper/qwen3_4b.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["benchmark"] == benchmark]
    return [CurvePoint(float(ENDS.get(row["method"], row["lambda"])), float(row["think_ratio"]) / 100, num_responses)
            for row in rows if row["method"] in (*ENDS, "mi")]


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
    for num_responses in (16, 256):
        for row in study["simulate"](grid=grid, num_responses=num_responses, draws=120).values():
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
    found = detect_stages(curve([*RISING[:index], ratio, *RISING[index + 1:]]))
    whole = detect_stages(curve(RISING))
    assert found.emergence.lam == pytest.approx(whole.emergence.lam, abs=0.02)
    assert found.saturation.lam == pytest.approx(whole.saturation.lam, abs=0.02)
    assert f"lambda {TENTHS[index]:g} " in found.notes[0]


def test_small_falls_are_no_strays():
    assert detect_stages(curve((0, 0.005, 0, 0.02, 0.2, 0.8, 1, 0.99, 1, 0.995, 1))).notes == ()


def test_a_curve_that_falls_is_said_to():
    found = detect_stages(curve((0, 0, 0.9, 0.9, 0.9, 0.3, 0.3, 0.3, 1, 1, 1)))
    assert any("does not rise throughout" in note for note in found.notes)


@pytest.mark.parametrize(("ratios", "emergence", "saturation", "words"), [
    ([0.0] * 11, None, None, "stays in one stage"),
    ([1.0] * 11, None, None, "stays in one stage"),
    ([*RISING[:5], *[0.6] * 6], 0.32, None, "does not pass its saturation"),
    ([0.4] * 5 + list(RISING[5:]), None, 0.57, "emerged before"),
])
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


@given(st.dictionaries(st.floats(0, 1), st.tuples(ratios, st.none() | st.floats(1, 1e6)), min_size=2, max_size=9))
def test_any_curve_has_ordered_boundaries(points):
    found = detect_stages(CurvePoint(lam, *rest) for lam, rest in points.items())
    for boundary in (found.emergence, found.saturation):
        assert boundary is None or 0 <= boundary.low <= boundary.lam <= boundary.high <= 1
    if found.emergence and found.saturation:
        assert found.emergence.lam <= found.saturation.lam
    assert sentence(found).endswith(".")


@pytest.mark.parametrize(("ratio", "stage"), [(0, 1), (0.049, 1), (0.05, 2), (0.5, 2), (0.95, 2), (0.951, 3), (1, 3)])
def test_stage_of_a_schedule(ratio, stage):
    assert stage_of(ratio) == stage


def test_the_sentence_states_both_boundaries():
    text = sentence(Stages(Boundary(0.424, 0.4, 0.45), Boundary(0.557, 0.55, 0.6), ()))
    assert "0.42 (95 % interval 0.40 to 0.45)" in text
    assert "0.56 (95 % interval 0.55 to 0.60)" in text


@pytest.mark.parametrize("call", [
    lambda: CurvePoint(1.1, 0.5), lambda: CurvePoint(0.5, -0.1), lambda: CurvePoint(0.5, float("nan")),
    lambda: CurvePoint(float("nan"), 0.5), lambda: CurvePoint(0.5, 0.5, 0), lambda: CurvePoint(0, 0, float("inf")),
    lambda: detect_stages([]), lambda: detect_stages([CurvePoint(0.5, 0.5)] * 3), lambda: stage_of(1.5),
    lambda: stage_of(float("nan")), lambda: detect_stages(curve(RISING), emergence_at=0.95, saturation_at=0.05)])
def test_bad_values_are_input_errors(call):
    with pytest.raises(InputError, match="seen"):
        call()


def test_read_curve(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_bytes(b"\xef\xbb\xbflambda, num_responses, think_ratio,note\n0,,0,x\n\n1,64,0.5,\n")
    assert read_curve(path) == [CurvePoint(0, 0), CurvePoint(1, 0.5, 64)]


@pytest.mark.parametrize(("content", "message"), [
    (b"", "columns lambda and think_ratio, seen an empty file"),
    (b"lambda,ratio\n0,0\n", "columns lambda and think_ratio, seen lambda, ratio"),
    (b"lambda,think_ratio\n", "seen none"),
    (b"lambda,think_ratio\n0,0\n0.5,much\n", "line 3: think_ratio must be a number, seen 'much'"),
    (b"lambda,think_ratio\n0,\n", "line 2: think_ratio must be a number, seen ''"),
    (b"lambda,think_ratio\n0\n", "line 2: think_ratio must be a number"),
    (b"lambda,think_ratio\n0,0\n0.5,43.0\n", "line 3.*looks like percentages"),
    (b"lambda,think_ratio\n0,nan\n", "line 2.*between 0 and 1"),
    (b"lambda,think_ratio\n2,0\n", "line 2.*lambda"),
    (b"lambda,think_ratio\n0,5,0\n", "line 2: more cells than columns"),
    (b"lambda,think_ratio,num_responses\n0,0,-3\n", "line 2.*above 0"),
    (b"lambda,think_ratio\n0,0\xff\n", "UTF-8"),
    (b"\xff\xfel\x00", "UTF-8"),
])
def test_a_malformed_curve_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "curve.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_curve(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv"):
        read_curve(tmp_path / "none.csv")
