"""Measured schedules: trials of one schedule are pooled, aborted ones are censored, and the database gives the same."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolambda.optimizer.observations import TOKENS, Proposal
from autolambda.optimizer.racing import exceeded
from autolambda.optimizer.space import ranges, to_schedule, uniform_params
from autolambda.optimizer.surrogate import prompt_correlation
from autolambda.responses import Grade, Graded, Response
from autolambda.statistics.metrics import measure
from autolambda.study.measured import MeasuredSchedules, load_measured
from autolambda.study.store import Store
from autolambda.study.trials import Study, Trial

WEIGHTS = {"one": 0.75, "two": 0.25}


def graded(start, stop, *, aborted_from=None, extra=0, text="x"):
    """Responses to the prompts of two tasks in turn; ``aborted_from`` on they are cut after a token."""
    found = []
    for i in range(start, stop):
        cut = aborted_from is not None and i >= aborted_from
        grade = Grade.TRUNCATED if cut else Grade.CORRECT if i % 3 else Grade.WRONG
        response = Response(text, 1 if cut else 10 + i + extra, "aborted" if cut else "stop")
        found.append(Graded(("one", "two")[i % 2], str(i % 8 // 2), i // 8, response, grade, "x", i % 4 == 0))
    return found


def trial(number, lam, start=0, stop=8):
    return Trial(number, uniform_params(lam, num_knots=3), start, stop)


def recorded(*ended):
    record = MeasuredSchedules(weights=WEIGHTS)
    for each, responses in ended:
        record.add(each, responses)
    return record


def test_windows_of_one_schedule_are_one_point():
    record = recorded(
        (trial(0, 0.5), graded(0, 8)), (trial(1, 0.25), graded(0, 8, extra=5)), (trial(2, 0.5, 8, 16), graded(8, 16))
    )
    [half, quarter] = record.all
    assert (half.trial, quarter.trial) == (0, 1) and record.of(to_schedule(trial(0, 0.5).params)) == half
    assert list(half.graded) == graded(0, 16, text="") and half.measured == measure(graded(0, 16), weights=WEIGHTS)
    known = record.observations
    assert [point.num_responses for point in known.measured] == [16, 8]
    assert known.measured[0].values[1] == half.measured.mean_tokens.value
    assert known.measured[0].errors[0] == half.measured.accuracy.standard_error
    parts = graded(0, 8), graded(0, 8, extra=5), graded(8, 16)
    tokens = [sum(each.response.num_tokens for each in part) for part in parts]
    assert list(known.costs) == tokens and known.num_trials == 3


def test_schedules_are_equal_by_what_they_are_not_by_their_params():
    """Beyond the box's edge two places are one schedule."""
    clipped = Trial(1, {**uniform_params(1.0, num_knots=3), "tilt_0": 0.2, "tilt_1": 0.2, "tilt_2": 0.2}, 8, 16)
    record = recorded((trial(0, 1.0), graded(0, 8)), (clipped, graded(8, 16)))
    assert len(record.all) == 1 and record.all[0].params == trial(0, 1.0).params


def test_an_aborted_trial_is_an_excess_and_costs_its_tokens():
    cut = graded(0, 8, aborted_from=5)
    record = recorded((trial(0, 0.5), graded(0, 8)), (trial(1, 0.9, 0, 512), cut))  # 504 were not begun
    total = sum(each.response.num_tokens for each in cut)
    known = record.observations
    assert record.of(to_schedule(trial(1, 0.9).params)) is None and len(known.measured) == 1
    [excess] = known.censored
    means = {task: np.mean([g.response.num_tokens for g in cut if g.task == task]) for task in WEIGHTS}
    mean = sum(weight * means[task] for task, weight in WEIGHTS.items())  # as in the budget, not over all alike
    assert excess.schedule == to_schedule(trial(1, 0.9).params) and mean != pytest.approx(total / 8)
    assert excess.tokens == pytest.approx(exceeded(8 * mean, 8))
    assert known.costs[1] == total and known.num_trials == 2


def test_what_was_known_before_an_abort_stays():
    record = recorded((trial(0, 0.5), graded(0, 8)), (trial(1, 0.5, 8, 16), graded(8, 16, aborted_from=9)))
    assert len(record.observations.measured) == len(record.observations.censored) == 1
    assert record.observations.measured[0].num_responses == 8


@given(st.lists(st.tuples(st.sampled_from(["one", "two"]), st.integers(0, 5), st.integers(1, 99), st.booleans()),
                min_size=1, max_size=30))  # fmt: skip
def test_prompt_effects_sum_to_zero_in_each_task_and_count_as_in_the_average(rows):
    repeats = {}
    responses = []
    for task, prompt, tokens, right in rows:
        repeat = repeats[task, prompt] = repeats.get((task, prompt), -1) + 1
        grade = Grade.CORRECT if right else Grade.WRONG
        responses.append(Graded(task, str(prompt), repeat, Response("x", tokens, "stop"), grade, "x", not right))
    prompts, effects = MeasuredSchedules(weights=WEIGHTS)._prompt_effects(responses)
    assert effects.shape == (len(repeats), 3) and len(set(prompts.tolist())) == len(repeats)
    numbers = dict(zip(dict.fromkeys((r.task, r.sample_id) for r in responses), range(len(repeats)), strict=True))
    for task in {row[0] for row in rows}:
        own = [numbers[key] for key in numbers if key[0] == task]
        assert effects[np.isin(prompts, own)].sum(axis=0) == pytest.approx([0, 0, 0], abs=1e-6)
        met = {row[0] for row in rows}
        scale = WEIGHTS[task] / sum(WEIGHTS[each] for each in met) * len(repeats) / len(own)
        for key in (key for key in numbers if key[0] == task):
            lengths = {k: np.mean([r.response.num_tokens for r in responses if (r.task, r.sample_id) == k])
                       for k in numbers if k[0] == task}  # fmt: skip
            expected = lengths[key] - np.mean(list(lengths.values()))
            assert effects[prompts == numbers[key]][0][1] == pytest.approx(scale * expected, abs=1e-6)


@pytest.mark.parametrize("weights", [WEIGHTS, {"one": 1.0, "two": 0.0}, {"one": 1.0, "two": 1.0}])
def test_the_modes_add_up_to_the_whole(weights):
    total = sum(weights.values())
    record = recorded_with({task: weight / total for task, weight in weights.items()}, graded(0, 16))
    [point] = record.observations.measured
    ratio = point.values[2]
    assert 0 < ratio < 1
    for output in (0, 1):
        mixed = (1 - ratio) * point.direct.values[output] + ratio * point.thinking.values[output]
        assert mixed == pytest.approx(point.values[output])
    asked = {*point.direct.prompts.tolist(), *point.thinking.prompts.tolist()}
    assert asked == {*point.prompts.tolist()}
    lengths = [each.response.num_tokens for each in graded(0, 16) if each.thought and weights[each.task]]
    assert min(lengths) <= point.thinking.values[1] <= max(lengths)


def test_a_mode_without_responses_is_missing():
    responses = [replace(each, thought=False) for each in graded(0, 16)]
    [point] = recorded_with(WEIGHTS, responses).observations.measured
    assert point.thinking is None and point.direct.values == pytest.approx(point.values[:2])


def recorded_with(weights, responses):
    record = MeasuredSchedules(weights=weights)
    record.add(trial(0, 0.5, 0, 16), responses)
    return record


def test_a_prompt_has_one_number_in_all_trials():
    record = recorded((trial(0, 0.5), graded(4, 8)), (trial(1, 0.25), graded(0, 8)))
    first, second = record.observations.measured
    assert set(first.prompts) <= set(second.prompts) and len(second.prompts) == 8
    where = np.isin(second.prompts, first.prompts)
    assert where.sum() == 4


def test_a_trial_under_way_changes_nothing_until_it_ends():
    record = recorded((trial(0, 0.5), graded(0, 8)))
    before = record.observations
    assert record.pooled(trial(1, 0.25), graded(0, 8)).observation.num_responses == 8
    assert record.pooled(trial(1, 0.5, 8, 16), graded(8, 16)).observation.num_responses == 16
    assert len(record.observations.measured) == 1 and record.observations.costs == before.costs


def same(one, other):
    """Observations with arrays in them are equal."""
    assert (one.censored, one.costs, list(one.failed)) == (other.censored, other.costs, list(other.failed))
    for left, right in zip(one.measured, other.measured, strict=True):
        assert (left.params, left.num_responses) == (right.params, right.num_responses)
        for name in ("schedule", "values", "errors"):
            assert getattr(left, name) == getattr(right, name)
        for name in ("prompts", "prompt_effects"):
            assert np.array_equal(getattr(left, name), getattr(right, name))
        assert left.cost == right.cost and left.num_guarding == right.num_guarding


def test_the_database_gives_the_record_that_was_kept_live(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    live = MeasuredSchedules(weights=WEIGHTS)
    steps = [(0.5, 0, 8, None), (0.25, 0, 8, None), (0.5, 8, 16, None), (0.9, 0, 8, 3), (0.75, 0, 8, "fails")]
    with closing(Store(url)) as store:
        store.create_study("s", config={}, identity={})
        with closing(Study(store, name="s")) as study:
            for lam, start, stop, aborted in steps:
                proposal = Proposal(uniform_params(lam, num_knots=3), start, stop)
                asked = study.start(proposal, ranges=ranges(3))
                if aborted == "fails":
                    study.fail(asked, "no")
                    live.fail(asked)
                    continue
                responses = graded(start, stop, aborted_from=aborted)
                key = str(asked.number)
                row = store.evaluation("s", kind="trial", key=key, schedule=asked.schedule, num_responses=8)
                store.add(row, responses)
                stopped = "over the budget" if aborted else None
                live.add(asked, responses, stopped=stopped)
                if aborted:
                    study.prune(asked, stopped)
                else:
                    study.tell(asked, live.of(asked.schedule).measured)
            study.start(Proposal(uniform_params(0.1, num_knots=3), 0, 8), ranges=ranges(3))  # still runs: not counted
            loaded = load_measured(store, study, weights=WEIGHTS)
    same(loaded.observations, live.observations)
    assert [seen.trial for seen in loaded.all] == [seen.trial for seen in live.all] == [0, 1]
    assert len(loaded.observations.censored) == 1 and len(loaded.observations.failed) == 1


GUARDED = {"one": 1.0, "two": 0.0}


def test_a_guard_is_observed_apart_and_costs_all_the_same():
    record, alone = MeasuredSchedules(weights=GUARDED), MeasuredSchedules(weights={"one": 1.0})
    responses = graded(0, 16)
    record.add(trial(0, 0.5, 0, 16), responses)
    alone.add(trial(0, 0.5), [each for each in responses if each.task == "one"])
    [point], [own] = record.observations.measured, alone.observations.measured
    for name in ("values", "errors"):
        assert getattr(point, name) == getattr(own, name)
    assert np.array_equal(point.prompt_effects, own.prompt_effects)
    seen = point.guards["two"]
    measured = record.all[0].measured.tasks["two"]
    assert (seen.values[0], seen.errors[0]) == (measured.accuracy.value, measured.accuracy.standard_error)
    assert len(seen.prompts) == len(seen.prompt_effects) == 4 and not set(seen.prompts) & set(point.prompts)
    assert seen.prompt_effects.sum() == pytest.approx(0.0)
    assert (point.num_responses, point.num_guarding, point.counted) == (16, 8, 0.5)
    assert point.cost == pytest.approx(sum(each.response.num_tokens for each in responses) / 16)
    assert own.cost == own.values[1] and own.counted == own.cost_ratio == 1.0 and not own.guards
    assert record.observations.num_tokens == sum(each.response.num_tokens for each in responses)


def test_a_guard_seen_rung_by_rung_is_observed_to_the_bit_as_at_once():
    """As in a race, and when the study is loaded again: prompts get the same numbers, so sums round alike."""
    live, loaded = MeasuredSchedules(weights=GUARDED), MeasuredSchedules(weights=GUARDED)
    for rung in (4, 8, 16):
        live.pooled(trial(0, 0.5, 0, 16), graded(0, rung))
    for record in (live, loaded):
        record.add(trial(0, 0.5, 0, 16), graded(0, 16))
    same(loaded.observations, live.observations)


def test_one_task_costs_what_was_observed_whatever_its_repeats():
    """To the bit: 3 repeats of one prompt and 1 of another would otherwise weigh otherwise."""
    record = MeasuredSchedules(weights={"one": 1.0})
    record.add(trial(0, 0.5), [each for each in graded(0, 14) if each.task == "one"])
    [point] = record.observations.measured
    assert point.cost == point.values[1] and point.counted == 1.0


def test_prompt_effects_of_a_heavier_task_are_shared_more():
    """Schedules that share the prompt effects of only one task, which is almost all of the average or almost none."""
    rng = np.random.default_rng(0)
    common = rng.integers(10, 500, size=200)
    found = []
    for weights in ({"one": 0.95, "two": 0.05}, {"one": 0.05, "two": 0.95}):
        record = MeasuredSchedules(weights=weights)
        for number in range(4):
            own = rng.integers(10, 500, size=200)
            lengths = [
                (task, str(i), int((common if task == "one" else own)[i])) for i in range(200) for task in weights
            ]
            responses = [
                Graded(task, i, 0, Response("x", n, "stop"), Grade.WRONG, "x", False) for task, i, n in lengths
            ]
            record.add(trial(number, number / 4), responses)
        found.append(prompt_correlation(record.observations.measured, TOKENS))
    assert found[0] > 0.9 and found[1] < 0.1
