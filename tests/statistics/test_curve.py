"""Curve points check themselves; each malformed file is one clear line."""

import math

import pytest

from autolambda.errors import InputError
from autolambda.statistics.curve import CurvePoint, read_curve


@pytest.mark.parametrize(
    "values",
    [
        (2.1, 0.5),
        (-1.1, 0.5),
        (math.nan, 0.5),
        (0.5, -0.1),
        (0.5, math.nan),
        (0.5, 0.5, 0),
        (0, 0, math.inf),
        (0, 0, math.nan),
    ],
)
def test_a_point_out_of_range(values):
    with pytest.raises(InputError, match="seen"):
        CurvePoint(*values)


def test_read_curve(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_bytes(b"\xef\xbb\xbflambda, num_responses, think_ratio,note\n0,,0,x\n\n1,64,0.5,\n")
    assert read_curve(path) == [CurvePoint(0, 0), CurvePoint(1, 0.5, 64)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "columns lambda and think_ratio, seen an empty file"),
        (b"lambda,ratio\n0,0\n", "columns lambda and think_ratio, seen lambda, ratio"),
        (b"lambda,think_ratio\n", "seen none"),
        (b"lambda,think_ratio\n0,0\n0.5,much\n", "line 3: think_ratio must be a number, seen 'much'"),
        (b"lambda,think_ratio\n0,\n", "line 2: think_ratio must be a number, seen ''"),
        (b"lambda,think_ratio\n0\n", "line 2: think_ratio must be a number"),
        (b"lambda,think_ratio\n0,0\n0.5,43.0\n", "line 3.*looks like percentages"),
        (b"lambda,think_ratio\n0,nan\n", "line 2.*between 0 and 1"),
        (b"lambda,think_ratio\n3,0\n", "line 2.*lambda"),
        (b"lambda,think_ratio\n0,5,0\n", "line 2: more cells than columns"),
        (b"lambda,think_ratio,num_responses\n0,0,-3\n", "line 2.*above 0"),
        (b"lambda,think_ratio\n0,0\xff\n", "UTF-8"),
        (b"\xff\xfel\x00", "UTF-8"),
    ],
)
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"lambda,think_ratio,lambda\n0,0,1\n", "the column lambda occurs twice"),
        (b"lambda,think_ratio\n0_1,0\n", "line 2: lambda must be a number, seen '0_1'"),
        (b'lambda,"think\nratio"\n0,0\n', "seen lambda, think ratio"),
        (b"lambda,think_ratio\n0," + b"x" * 9000, "seen 'x{60}'$"),
        (b"a" * 9000, "seen a{60}$"),
        (b"lambda,think_ratio\n" + b"0,0\n" * 10_001, "at most 10,000 rows"),
    ],
)
def test_what_could_be_misread_or_fill_the_screen(tmp_path, content, message):
    test_a_malformed_curve_is_one_clear_line(tmp_path, content, message)
