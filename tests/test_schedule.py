"""Schedules: lam of each location, lam over depth, and the plain form there and back."""

import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autolambda.coefficients import ByModule, Coefficients
from autolambda.errors import ScheduleError
from autolambda.schedule import Location, Profile, Schedule, read_schedule

lams = st.floats(0, 1)
profiles = st.builds(Profile, st.lists(lams, min_size=1, max_size=6).map(tuple), st.sampled_from(["knots", "bands"]))
schedules = st.builds(Schedule, profiles, profiles, lams)


@pytest.mark.parametrize(
    ("kind", "values", "num_layers", "expected"),
    [
        ("knots", (0.3,), 3, [0.3, 0.3, 0.3]),
        ("knots", (0.0, 1.0), 1, [0.0]),
        ("knots", (0.0, 1.0), 2, [0.0, 1.0]),
        ("knots", (0.0, 1.0), 5, [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("knots", (0.0, 1.0, 0.0), 5, [0.0, 0.5, 1.0, 0.5, 0.0]),
        ("knots", (0.0, 0.5, 1.0), 2, [0.0, 1.0]),
        ("bands", (0.0, 1.0), 4, [0.0, 0.0, 1.0, 1.0]),
        ("bands", (0.0, 1.0), 5, [0.0, 0.0, 0.0, 1.0, 1.0]),
        ("bands", (0.1, 0.2, 0.3), 3, [0.1, 0.2, 0.3]),
        ("bands", (0.1, 0.2, 0.3), 2, [0.1, 0.2]),
        ("bands", (0.0, 1.0), 1, [0.0]),
    ],
)
def test_lam_over_depth(kind, values, num_layers, expected):
    profile = Profile(values, kind)
    assert [profile.at(layer, num_layers) for layer in range(num_layers)] == pytest.approx(expected)


@given(profiles, st.integers(1, 100))
def test_lam_never_leaves_the_range_of_the_values(profile, num_layers):
    for layer in range(num_layers):
        assert min(profile.values) <= profile.at(layer, num_layers) <= max(profile.values)
    assert min(profile.values) <= profile.mean() <= max(profile.values)


@given(st.lists(lams, min_size=2, max_size=6), st.integers(2, 100))
def test_the_ends_of_a_line_are_its_knots_to_the_bit(values, num_layers):
    profile = Profile(tuple(values))
    assert (profile.at(0, num_layers), profile.at(num_layers - 1, num_layers)) == (values[0], values[-1])


@pytest.mark.parametrize(
    ("kind", "values", "mean"),
    [
        ("knots", (0.2,), 0.2),
        ("knots", (0.0, 1.0), 0.5),
        ("knots", (0.0, 1.0, 0.0), 0.5),
        ("bands", (0.0, 1.0, 0.0), 1 / 3),
    ],
)
def test_the_mean_over_depth(kind, values, mean):
    assert Profile(values, kind).mean() == pytest.approx(mean)


@given(lams, st.integers(1, 6), st.sampled_from(["knots", "bands"]))
def test_a_flat_profile_is_a_constant(lam, num_values, kind):
    assert Profile((lam,) * num_values, kind) == Profile((lam,))
    assert Schedule.by_depth(Profile((lam,) * num_values, kind)) == Schedule.uniform(lam)


def test_other_is_the_mean_of_the_two_unless_given():
    assert Schedule.by_module(attention=0.8, ffn=0.4).other == pytest.approx(0.6)
    assert Schedule.by_module(attention=0.8, ffn=0.4, other=0.0).other == 0.0
    assert Schedule.by_depth(Profile((0.0, 1.0))).other == 0.5


def test_each_location_gets_the_lam_of_its_module_and_layer():
    schedule = Schedule.by_depth_and_module(Profile((0.0, 1.0)), Profile((0.2, 0.4), "bands"), other=0.9)
    lams = {
        Location(0, "attention"): 0.0,
        Location(2, "attention"): 1.0,
        Location(0, "ffn"): 0.2,
        Location(2, "ffn"): 0.4,
        Location(None, "other"): 0.9,
    }
    assert {location: schedule.at(location, num_layers=3).lam for location in lams} == lams


def test_a_layer_beyond_the_model_is_refused():
    with pytest.raises(ScheduleError, match="layer 3 of a model with 3"):
        Schedule.uniform(0.5).at(Location(3, "ffn"), num_layers=3)


@given(schedules)
def test_the_plain_form_leads_back(schedule):
    assert Schedule.from_dict(schedule.to_dict()) == schedule
    assert Schedule.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule


@pytest.mark.parametrize(
    ("schedule", "plain", "shown"),
    [
        (Schedule.uniform(0.6), {"lambda": 0.6}, "lambda 0.6"),
        (
            Schedule.by_module(attention=0.7, ffn=0.5),
            {"attention": 0.7, "ffn": 0.5},
            "attention 0.7, feed-forward 0.5",
        ),
        (
            Schedule.by_depth(Profile((0.0, 1.0)), other=0.1),
            {"lambda": {"knots": [0.0, 1.0]}, "other": 0.1},
            "lambda 0.00→1.00, embeddings and head 0.1",
        ),
        (
            Schedule.by_depth_and_module(Profile((0.25,)), Profile((0.5, 0.75), "bands")),
            {"attention": 0.25, "ffn": {"bands": [0.5, 0.75]}},
            "attention 0.25, feed-forward 0.50|0.75",
        ),
    ],
)
def test_the_plain_form_and_the_words(schedule, plain, shown):
    assert schedule.to_dict() == plain
    assert Schedule.from_dict(plain) == schedule
    assert str(schedule) == shown


BY_MODULE = ByModule(1.2, 1.0, 1.1)
BEYOND = [
    (Schedule.uniform(0.5).beyond(scale=1.2), {"lambda": 0.5, "scale": 1.2}, "lambda 0.5, scale 1.2", ("base",)),
    (Schedule.uniform(0.5).beyond(third=0.2), {"lambda": 0.5, "third": 0.2}, "lambda 0.5, third 0.2", ("third",)),
    (
        Schedule.by_module(attention=0.7, ffn=0.5).beyond(scale=BY_MODULE, third=0.1),
        {"attention": 0.7, "ffn": 0.5, "scale": {"attention": 1.2, "ffn": 1.0, "other": 1.1}, "third": 0.1},
        "attention 0.7, feed-forward 0.5, scale (attention 1.2, feed-forward 1, embeddings and head 1.1), third 0.1",
        ("base", "third"),
    ),
]


@pytest.mark.parametrize(("schedule", "plain", "shown", "further"), BEYOND)
def test_a_scale_and_a_third_parent_are_numbers_of_a_schedule(schedule, plain, shown, further):
    assert schedule.to_dict() == plain and Schedule.from_dict(json.loads(json.dumps(plain))) == schedule
    assert (str(schedule), schedule.further, schedule.is_on_line, schedule.lam) == (shown, further, False, None)
    assert schedule.at(Location(0, "attention"), num_layers=2) == Coefficients(
        schedule.attention.values[0], schedule.scale.attention, schedule.third.attention
    )
    assert schedule.at(Location(None, "other"), num_layers=2) == Coefficients(
        schedule.other, schedule.scale.other, schedule.third.other
    )


@given(schedules)
def test_at_their_defaults_they_change_nothing(schedule):
    """Stored studies know a schedule by its key."""
    assert schedule.beyond(scale=1.0, third=0.0) == schedule and schedule.is_on_line and not schedule.further
    assert schedule.to_dict().keys() <= {"lambda", "attention", "ffn", "other"}


@pytest.mark.parametrize(
    ("schedule", "extrapolates"),
    [
        (Schedule.uniform(1.0), False),
        (Schedule.uniform(1.2), True),
        (Schedule.by_module(attention=-0.1, ffn=0.5), True),
        (Schedule.uniform(0.5).beyond(scale=1.5), False),
        (Schedule.uniform(0.9).beyond(third=0.1), False),
        (Schedule.uniform(0.9).beyond(third=0.2), True),
        (Schedule.uniform(0.9).beyond(third=-0.1), True),
    ],
    ids=str,
)
def test_weights_outside_the_parents_extrapolate(schedule, extrapolates):
    assert schedule.extrapolates is extrapolates


@pytest.mark.parametrize("value", [True, "1", None, [1.0], -0.1, 3.1, math.nan, {"attention": 1.0}, {"knots": [1.0]}])
def test_a_bad_scale_is_refused_in_one_line(value):
    with pytest.raises(ScheduleError, match="scale") as caught:
        Schedule.from_dict({"lambda": 0.5, "scale": value})
    assert "\n" not in str(caught.value)


BAD_LAMS = [2.1, -1.1, math.nan, math.inf, 10**400]


@pytest.mark.parametrize("value", [*BAD_LAMS, True, "0.5", None, [0.5], {}, {"knots": []}, {"knots": 0.5},
                                   {"knots": [0.5], "bands": [0.5]}, {"steps": [0.5]}, {"knots": [True]},
                                   {"bands": ["x"]}, {"knots": [0.1, 2.1]}])  # fmt: skip
def test_a_bad_value_is_refused_in_one_line(value):
    for plain in ({"lambda": value}, {"attention": 0.5, "ffn": value}):
        with pytest.raises(ScheduleError) as caught:
            Schedule.from_dict(plain)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 250


@pytest.mark.parametrize("value", BAD_LAMS[:-1])
def test_a_bad_other_is_refused(value):
    with pytest.raises(ScheduleError, match="must lie between -1"):
        Schedule.uniform(0.5).by_module(attention=0.5, ffn=0.5, other=value)


@pytest.mark.parametrize(
    "plain", [{}, {"lam": 0.5}, {"attention": 0.5}, {"lambda": 0.5, "ffn": 0.5}, {"other": 0.5}, {1: 2}]
)
def test_unknown_or_missing_keys_are_refused_with_those_seen(plain):
    with pytest.raises(ScheduleError, match="keys 'lambda', or 'attention' and 'ffn'") as caught:
        Schedule.from_dict(plain)
    assert all(str(key) in str(caught.value) for key in plain)


def test_a_schedule_file_is_read(tmp_path):
    path = tmp_path / "schedule.yaml"
    path.write_text(yaml.safe_dump(Schedule.by_module(attention=0.7, ffn=0.5).to_dict()))
    assert read_schedule(path) == Schedule.by_module(attention=0.7, ffn=0.5)


@pytest.mark.parametrize(
    "content",
    [b"", b"0.5", b"[1, 2]", b"lambda: [", b"lambda: 2026-13-45", b"\xff\xfe", b"a: \x00", b"[" * 1000, b"lambda: x"],
)
def test_a_bad_schedule_file_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "schedule.yaml"
    path.write_bytes(content)
    with pytest.raises(ScheduleError) as caught:
        read_schedule(path)
    assert "\n" not in str(caught.value)


def test_a_missing_schedule_file_is_named(tmp_path):
    with pytest.raises(ScheduleError, match=r"gone\.yaml"):
        read_schedule(tmp_path / "gone.yaml")
