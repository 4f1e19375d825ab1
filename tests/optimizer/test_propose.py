"""Proposals: the ladder, what a space frees, the box, the budget, the stops, and the same evidence, the same next."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from made_up import GUARD, RUNGS, aims, evidence, guarded_truth, measured, point, searched, settings_of, truth

from autolambda.optimizer.aims import allowance_of, targets_of
from autolambda.optimizer.ladder import next_lambda, on_the_ladder
from autolambda.optimizer.observations import THINK, TOKENS, CensoredTrial, Observations, Proposal, cost_at
from autolambda.optimizer.propose import MOST_LOOK, NOTHING, Stop, _next_cost, propose
from autolambda.optimizer.space import (
    MAX_TILT,
    features,
    is_near,
    next_far,
    ranges,
    to_schedule,
    uniform_lam,
    uniform_params,
)
from autolambda.schedule import Profile, Schedule

SAMPLERS = ["surrogate", "tpe", "gp"]


def lams(proposals):
    return [proposal.params["lam"] for proposal in proposals]


def moved(proposals):
    return {name for proposal in proposals for name, value in proposal.params.items() if value != 0}


def endless(**settings):
    """A search that only its trials end."""
    return settings_of(**{"min_gain": 0.0, "max_tokens_generated": 10**9} | settings)


@pytest.mark.parametrize("broken", [{0.0}, {1.0}, {0.0, 1.0}, {0.5}, {0.0, 0.5, 0.25}, {0.5, 0.4375, 0.46875}])
def test_a_ladder_with_failures_never_repeats_and_spans_the_range(broken):
    config, points, failed = endless(ladder=12, trials=12, sampler="tpe"), [], []
    while len(points) < 12 and on_the_ladder(evidence(points), config, aims()):
        params = propose(evidence(points, failed), config, aims()).params
        assert params not in failed and params not in [each.params for each in points]
        if params["lam"] in broken:
            failed.append(params)
        else:
            points.append(point(params))
    found = sorted(each.params["lam"] for each in points)
    assert {params["lam"] for params in failed} <= broken
    assert max(b - a for a, b in itertools.pairwise([0.0, *found, 1.0])) <= 0.5
    assert sum(0.4 <= lam <= 0.6 for lam in found) >= 3  # where the Think ratio rises


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("num_rungs", [2, 3, 9])
def test_the_ladder_is_uniform_starts_with_the_ends_and_never_repeats(num_rungs, sampler):
    _, rungs, _ = searched(endless(ladder=num_rungs, trials=num_rungs, sampler=sampler))
    assert lams(rungs)[:2] == [0.0, 1.0]
    assert len(set(lams(rungs))) == len(rungs) == num_rungs
    assert all(proposal.params == uniform_params(proposal.params["lam"], num_knots=3) for proposal in rungs)
    # who does not know the noise has it measured away
    assert {(each.start, each.stop) for each in rungs} == {(0, RUNGS[0] if sampler == "surrogate" else RUNGS[-1])}


def test_the_ladder_ends_early_where_the_stages_are_known():
    config = endless(ladder=40, trials=41)
    known, proposals, _ = searched(config, num_trials=30)
    rungs = next(i for i in range(30) if not on_the_ladder(searched(config, num_trials=i)[0], config, aims()))
    assert 5 <= rungs < 25 and moved(proposals[:rungs]) == {"lam"} and not on_the_ladder(known, config, aims())


def test_the_ladder_goes_by_what_is_between_the_parents():
    config = endless(ladder=40, trials=41, range=[-0.2, 1.2])
    known = evidence([point(uniform_params(lam, num_knots=3)) for lam in (0.0, 1.0, 0.5)])
    far = [
        point(uniform_params(lam, num_knots=3), values=(0.5, 50.0, ratio)) for lam, ratio in ((-0.2, 1.0), (1.2, 0.0))
    ]
    assert propose(evidence([*known.measured, *far]), config, aims()) == propose(known, config, aims())


def test_fewer_trials_than_the_ladder_are_rungs():
    few, more = endless(trials=4, ladder=9), endless(trials=20, ladder=9)
    assert searched(few)[1] == searched(more, num_trials=4)[1]


def test_a_lengthened_ladder_goes_by_the_uniform_points_alone():
    known, proposals, _ = searched(endless(trials=6, ladder=4, spaces=("module",), sampler="tpe"))
    assert "split" in moved(proposals[4:])
    lam = propose(known, endless(trials=12, ladder=9, sampler="tpe"), aims()).params["lam"]
    assert lam == next_lambda([(each.params["lam"], each.values[THINK]) for each in known.measured[:4]])


SPACES = [
    ("uniform", {"lam"}),
    ("module", {"lam", "split"}),
    ("depth", {"lam", "tilt_0", "tilt_1", "tilt_2"}),
    ("both", {"lam", "split", *(f"{kind}_{i}" for kind in ("tilt", "twist") for i in range(3))}),
]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("space", "free"), SPACES)
def test_a_space_frees_its_own_and_holds_the_others(sampler, space, free):
    _, proposals, _ = searched(endless(trials=9, ladder=4, spaces=(space,), sampler=sampler), budget=90.0)
    assert moved(proposals[4:]) <= free
    if sampler != "surrogate" or space == "uniform":
        assert moved(proposals[4:]) == free


@pytest.mark.parametrize(("space", "free"), SPACES)
def test_the_surrogate_looks_around_in_its_space(space, free):
    found = set()
    for seed in range(3):
        config = endless(trials=12, ladder=4, spaces=(space,), seed=seed)
        found |= moved(searched(config, budget=90.0)[1])
    assert found == free


@pytest.mark.parametrize(
    ("space", "holds"),
    [
        ("uniform", lambda s: s.lam is not None),
        ("module", lambda s: len(s.attention.values) == len(s.ffn.values) == 1 and s.attention != s.ffn),
        ("depth", lambda s: s.attention == s.ffn and len(s.attention.values) == 3),
        ("both", lambda s: s.attention != s.ffn),
    ],
)
def test_the_schedules_of_a_space(space, holds):
    config = endless(trials=9, ladder=4, spaces=(space,), sampler="tpe", seed=1)
    assert all(holds(to_schedule(proposal.params)) for proposal in searched(config)[1][4:])


def test_the_trials_after_the_ladder_are_shared_out():
    config = endless(trials=13, ladder=4, spaces=("uniform", "module", "both"), sampler="tpe")
    freedom = [sum(v != 0 for name, v in each.params.items() if name != "lam") for each in searched(config)[1]]
    assert freedom == [0] * 4 + [1, 7, 0] * 3  # the spaces take turns


def test_the_surrogate_proposes_in_the_spaces_in_turn():
    """After the far looks, every second trial is in the first space, the others in the rest by turns.

    What a space holds is 0, or as in a measured schedule.
    """
    config = endless(trials=20, ladder=4, spaces=("uniform", "module", "depth"))
    free = [{"lam"}, {"lam", "split"}, {"lam"}, {"lam", "tilt_0", "tilt_1", "tilt_2"}]
    known, turns = Observations(), set()
    while not isinstance(answer := propose(known, config, aims(60.0)), Stop):
        step = known.num_trials
        if step >= 6 and answer.start == 0:
            held = [name for name in answer.params if name not in free[step % 4]]
            assert any(all(answer.params[name] == each.params[name] for name in held) for each in known.measured)
            turns |= {step % 4} if moved([answer]) >= free[step % 4] else set()
            assert step % 2 or moved([answer]) == {"lam"}
        known = measured(known, answer)
    assert turns == {0, 1, 2, 3}


@pytest.mark.parametrize("total", [400_000, 1_000_000])
def test_looks_are_as_large_as_the_tokens_left_allow_for_all_trials_left(total):
    config = endless(trials=20, ladder=4, spaces=("uniform", "module"), max_tokens_generated=total)
    known, proposals, stop = searched(config, budget=60.0, rungs=(64, 4096))
    search = allowance_of(known.measured, config, aims(60.0)).search
    assert stop.reason in ("trials", "tokens") and known.num_trials >= 18
    assert 0.75 * search < known.num_tokens <= 1.01 * search
    sizes = [each.stop - each.start for each in proposals[4:]]
    assert 64 <= min(sizes) < max(sizes) <= MOST_LOOK
    # later looks get no fewer tokens than earlier ones
    first, last = np.array_split(known.costs[4:], 2)
    assert first.mean() < 2 * last.mean() and last.mean() < 2 * first.mean()


def test_with_half_of_the_trials_left_a_look_is_twice_as_large():
    config = endless(trials=20, ladder=4, max_tokens_generated=380_000)
    start, goal = searched(config, budget=60.0, num_trials=4)[0], aims(60.0, rungs=(64, 4096))
    many, few = (propose(start, replace(config, trials=trials), goal) for trials in (20, 12))
    assert few.params == many.params and few.stop == pytest.approx(2 * many.stop, abs=1) and many.stop > 64


def test_a_look_is_no_larger_than_the_most_and_ends_at_the_full_size():
    config = endless(trials=20, ladder=4, spaces=("uniform",))
    start = searched(config, budget=60.0, rungs=(64, 4096), num_trials=4)[0]
    found = propose(start, config, aims(60.0, rungs=(64, 4096)))
    assert found.stop - found.start == MOST_LOOK
    found = propose(start, config, aims(60.0, rungs=(64, 200)))
    assert found.stop == 200


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("budget", [None, 50.0])
def test_values_lie_in_the_box_and_are_round(sampler, budget):
    for proposal in searched(endless(trials=9, ladder=4, sampler=sampler), budget=budget)[1]:
        assert proposal.params.keys() == ranges(3).keys()
        assert all(ranges(3)[name][0] <= value <= ranges(3)[name][1] for name, value in proposal.params.items())
        assert all(round(value, 4) == value for value in proposal.params.values())
        assert (proposal.start, proposal.stop) in {(0, RUNGS[0]), (0, RUNGS[1]), RUNGS}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("knots", [2, 6])
def test_any_number_of_knots(sampler, knots):
    config = endless(trials=6, ladder=4, knots=knots, spaces=("both",), sampler=sampler)
    for proposal in searched(config)[1][4:]:
        assert len(to_schedule(proposal.params).attention.values) in (1, knots)  # 1 where all tilts are equal
        assert len(proposal.params) == 2 + 2 * knots


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("budget", [None, 50.0])
def test_a_resumed_search_proposes_the_same_to_the_bit(sampler, budget):
    config = endless(trials=8, ladder=4, sampler=sampler, seed=3)
    _, whole, _ = searched(config, budget=budget)
    for num_done in (3, 4, 6):
        start, first, _ = searched(config, budget=budget, num_trials=num_done)
        assert first + searched(config, budget=budget, start=start)[1] == whole


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_seed_changes_what_follows_the_ladder(sampler):
    first, second = (searched(endless(trials=9, ladder=4, sampler=sampler, seed=seed))[1] for seed in (0, 1))
    assert first[:4] == second[:4]
    assert first[4:] != second[4:]


@pytest.mark.parametrize("sampler", ["surrogate", "tpe", "gp"])
def test_a_budget_keeps_the_search_below_it(sampler):
    config = endless(trials=16, ladder=6, spaces=("uniform",), sampler=sampler)
    within = []
    for budget in (40.0, 1000.0):
        proposals = searched(config, budget=budget)[1][6:]
        within.append(sum(point(each.params).values[TOKENS] <= 45 for each in proposals))
    assert within[0] >= 5 > 4 >= within[1]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_ties_do_not_stop_it(sampler):
    config = endless(trials=7, ladder=4, sampler=sampler)
    points = [point(each.params, values=(0.5, 20.0, 0.0)) for each in searched(config, num_trials=4)[0].measured]
    for budget in (None, 5.0, 20.0):
        assert isinstance(propose(evidence(points), config, aims(budget)), Proposal | Stop)


@pytest.mark.parametrize(
    ("params", "schedule"),
    [
        ({"lam": 0.3}, Schedule.uniform(0.3)),
        ({"lam": 0.5, "split": 0.4}, Schedule.by_module(attention=0.7, ffn=0.3)),
        ({"lam": 0.9, "split": 1.0}, Schedule.by_module(attention=1.0, ffn=0.4)),
        ({"lam": 0.5, "tilt_0": -0.2, "tilt_2": 0.4}, Schedule.by_depth(Profile((0.3, 0.5, 0.9)))),
        ({"lam": 1.0, "tilt_0": 0.4, "tilt_1": -0.4}, Schedule.by_depth(Profile((1.0, 0.6, 1.0)))),
        (
            {"lam": 0.5, "twist_0": 0.4, "split": 0.2},
            Schedule.by_depth_and_module(Profile((0.8, 0.6, 0.6)), Profile((0.2, 0.4, 0.4))),
        ),
        (
            {"lam": 0.5, "split": -0.2, "tilt_0": 0.1},
            Schedule.by_depth_and_module(Profile((0.5, 0.4, 0.4)), Profile((0.7, 0.6, 0.6))),
        ),
    ],
)
def test_the_schedule_at_a_point(params, schedule):
    assert to_schedule(uniform_params(0.0, num_knots=3) | params) == schedule


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("budget", [None, 50.0])
def test_what_failed_is_not_proposed_again(sampler, budget):
    config = endless(trials=8, ladder=4, sampler=sampler)
    points = searched(config, budget=budget, num_trials=5)[0].measured
    proposed = []
    for _ in range(4):  # each of them fails
        known = evidence(points, proposed)
        params = propose(known, config, aims(budget)).params
        assert params == propose(known, config, aims(budget)).params
        assert all(max(abs(params[name] - other[name]) for name in other) >= 0.01 for other in proposed)
        if propose(known, config, aims(budget)).start == 0:  # nothing else can fail that was measured before
            proposed.append(params)


def test_the_box_holds_all_tilts_and_twists():
    bends = dict.fromkeys(("tilt_0", "tilt_1", "twist_0", "twist_1"), (-MAX_TILT, MAX_TILT))
    assert ranges(2) == {
        "lam": (0.0, 1.0),
        "split": (-1.0, 1.0),
        **bends,
    }


def peak(params):
    """As the truth, and more accurate where the scale is 1.3 or the third parent has a fifth."""
    accuracy, tokens, ratio = truth({"split": 0.0, **params})
    off = (params.get("stretch", 0.0) - 0.3) ** 2 + (params.get("third", 0.0) - 0.2) ** 2
    return accuracy + 0.15 - off, tokens, ratio


BEYOND_SETTINGS = settings_of(min_gain=0.0, max_tokens_generated=10**9, ladder=5, trials=14)


@pytest.mark.parametrize(("space", "name", "best"), [("scale", "stretch", 0.3), ("third", "third", 0.2)])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_space_beyond_the_line_is_searched_after_the_ladder(sampler, space, name, best):
    config = replace(BEYOND_SETTINGS, spaces=("uniform", space), sampler=sampler)
    known, proposals, _ = searched(config, budget=200.0, of=peak)
    assert all(not proposal.params.get(name) for proposal in proposals[:5])
    free = [proposal.params.get(name, 0.0) for proposal in proposals[5:]]
    assert moved(proposals) == {"lam", name} and len({*free}) > 3
    assert all(config.ranges[name][0] <= value <= config.ranges[name][1] for value in free)
    if sampler == "surrogate":
        found = max(known.measured, key=lambda each: each.values[0]).schedule
        value = found.scale.other - 1 if space == "scale" else found.third.other
        assert value == pytest.approx(best, abs=0.15)


def test_a_search_first_moves_attention_and_ffn_far_apart():
    """Where the ladder tells nothing of it, a surrogate of uniform lambdas alone would stay beside them."""
    config = replace(BEYOND_SETTINGS, spaces=("uniform", "both"))
    _, proposals, _ = searched(config, budget=200.0, of=truth)
    lam = proposals[5].params["lam"]
    assert 0 < lam < 1 and [each.params["split"] for each in proposals[5:7]] == [0.5, -0.5]
    assert next_far([to_schedule(each.params) for each in proposals[:7]], config.spaces) is None


def test_without_a_budget_the_far_looks_begin_in_the_middle_of_the_front():
    """At the cheapest of its levels they would begin beside Instruct, where a split is cut off."""
    config = replace(BEYOND_SETTINGS, spaces=("uniform", "module"))

    def steady(params):
        return 0.4 + 0.4 * params["lam"], 500.0 * 16 ** params["lam"], params["lam"]

    _, proposals, _ = searched(config, of=steady, num_trials=7)
    assert [each.params["split"] for each in proposals[5:]] == [0.5, -0.5]
    assert all(0.4 <= each.params["lam"] <= 0.75 for each in proposals[5:])


def test_a_search_first_looks_far_beyond_the_line():
    """Where the accuracy tells nothing beyond the line, a surrogate of the line alone would stay beside it."""
    config = replace(BEYOND_SETTINGS, spaces=("uniform", "third", "scale"))
    _, proposals, _ = searched(config, budget=200.0, of=truth)
    far = [(each.params.get("third", 0.0), each.params.get("stretch", 0.0)) for each in proposals[5:9]]
    assert far == [(0.3, 0.0), (0.6, 0.0), (0.0, 0.4), (0.0, -0.3)]
    assert all(0 < each.params["lam"] < 1 and not each.params["split"] for each in proposals[5:9])


def test_a_far_look_that_failed_or_was_aborted_is_not_taken_again():
    line, far = Schedule.uniform(0.5), Schedule.uniform(0.5).beyond(scale=1.4)
    assert next_far([line], ["uniform", "scale"]) == {"stretch": 0.4}
    assert next_far([line, far], ["uniform", "scale"]) == {"stretch": -0.3}
    assert next_far([far, far.beyond(scale=1.1)], ["uniform", "scale"]) is None is next_far([line], ["uniform"])
    assert next_far([far, far.beyond(scale=1.1)], ["scale", "third"]) == {"third": 0.3}
    apart = to_schedule({**uniform_params(0.5, num_knots=3), "split": 0.5})
    assert next_far([line], ["scale", "module"]) == {"split": 0.5}
    assert next_far([line, apart], ["scale", "module"]) == {"split": -0.5}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_lambda_is_searched_in_its_range(sampler):
    config = replace(BEYOND_SETTINGS, spaces=("uniform",), sampler=sampler, range=(-0.2, 1.2))
    _, proposals, _ = searched(config, budget=200.0, of=lambda params: (0.5 + 0.2 * params["lam"], 20.0, 0.5))
    found = lams(proposals)
    assert all(0 <= lam <= 1 for lam in found[:5]) and max(found) > 1 and all(-0.2 <= lam <= 1.2 for lam in found)


def test_points_beyond_the_line_are_schedules():
    line = uniform_params(0.5, num_knots=3)
    assert to_schedule(line) == to_schedule({**line, "stretch": 0.0, "third": 0.0}) == Schedule.uniform(0.5)
    assert to_schedule({**line, "stretch": 0.4}) == Schedule.uniform(0.5).beyond(scale=1.4)
    assert to_schedule({**line, "third": 0.2}) == Schedule.uniform(0.4).beyond(third=0.2)  # of what is left
    assert not to_schedule({**line, "lam": 1.0, "third": 0.3}).extrapolates
    outside = {**line, "lam": 1.2, "split": 0.4}
    assert to_schedule(outside) == Schedule.by_module(attention=1.2, ffn=1.0)
    assert uniform_lam({**line, "stretch": 0.4}) is None and uniform_lam(line) == 0.5
    assert is_near(line, {**line, "stretch": 0.005}) and not is_near(line, {**line, "stretch": 0.1})


def test_the_features_of_a_schedule_on_the_line_stay_as_they_are():
    schedule = Schedule.by_module(attention=0.2, ffn=0.6).beyond(scale=1.4, third=0.1)
    on_line, wide = features(schedule, num_knots=3), features(schedule, num_knots=3, beyond=True)
    assert len(on_line) == 8 and np.array_equal(wide[:8], on_line) and wide[8:].tolist() == pytest.approx([0.4, 0.1])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_responses_are_measured_twice(sampler):
    """On a flat truth a sampler has no reason to move; the same responses again would tell nothing."""
    config = endless(trials=14, ladder=4, spaces=("uniform",), sampler=sampler)
    _, proposals, _ = searched(config, budget=40.0)
    for i, each in enumerate(proposals):
        for other in proposals[:i]:
            if max(abs(each.params[name] - other.params[name]) for name in each.params) < 1e-3:
                assert each.params == other.params and each.start == other.stop  # it goes on with it


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_schedule_is_measured_twice_under_another_name(sampler):
    """Beyond lam 1 every tilt upwards is cut off: many places of the box are one schedule."""
    for seed in range(4):
        config = endless(trials=16, ladder=3, spaces=("depth",), sampler=sampler, seed=seed)
        known = set()
        for proposal in searched(config, budget=1e6)[1]:
            schedule = to_schedule(proposal.params)
            assert proposal.start > 0 or schedule not in known, proposal.params
            known.add(schedule)


def test_a_schedule_that_is_measured_further_goes_on_where_it_stopped():
    _, proposals, _ = searched(endless(trials=20, ladder=4, spaces=("uniform",)), budget=60.0)
    again = [each for each in proposals if each.start]
    assert again and {(each.start, each.stop) for each in again} == {RUNGS}
    assert all(any(each.params == other.params and other.stop == RUNGS[0] for other in proposals) for each in again)


def test_the_search_stops_for_its_trials():
    assert searched(endless(trials=5, ladder=3, sampler="tpe"))[2] == Stop("trials")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_search_stops_for_its_tokens(sampler):
    config = endless(trials=500, ladder=4, sampler=sampler, max_tokens_generated=200_000)
    known, _, stop = searched(config, budget=60.0)
    assert stop.reason == "tokens" and 5 <= known.num_trials < 100
    granted = allowance_of(known.measured, config, aims(60.0))
    # who does not look ahead may be over by the last trial
    assert known.num_tokens <= granted.search + (0 if sampler == "surrogate" else 110 * RUNGS[-1])
    assert known.num_tokens >= granted.search - 110 * RUNGS[-1]


def test_a_ladder_that_costs_too_much_stops_too():
    known, _, stop = searched(endless(trials=20, ladder=9, max_tokens_generated=20_000))
    assert stop.reason == "tokens" and 2 <= known.num_trials < 9


def valley(params):
    """All merges are less accurate than lambda 1, and than lambda 0."""
    accuracy, tokens, ratio = truth(params)
    return accuracy - (0.3 if 0 < params["lam"] < 1 or params["split"] else 0.0), tokens, ratio


@pytest.mark.parametrize("seed", range(3))
def test_the_search_stops_early_where_no_merge_can_be_within_the_budget(seed):
    config = settings_of(trials=60, ladder=6, max_tokens_generated=10**9, seed=seed)
    known, _, stop = searched(config, budget=2.0)
    assert stop.reason == "gain" and stop.gain <= NOTHING and known.num_trials <= 7


@pytest.mark.parametrize("seed", range(3))
def test_the_search_stops_early_where_no_merge_leads_the_parents(seed):
    config = settings_of(trials=60, ladder=6, spaces=("uniform", "module"), max_tokens_generated=10**9, seed=seed)
    known, _, stop = searched(config, budget=1e6, of=valley)
    assert stop.reason == "gain" and 0 <= stop.gain < config.min_gain and known.num_trials <= 20


@pytest.mark.parametrize("min_gain", [0.002, 0.01])
def test_the_search_goes_on_where_a_merge_leads(min_gain):
    """However little one more finalist is expected to raise the answer."""
    config = settings_of(trials=16, ladder=6, min_gain=min_gain, max_tokens_generated=10**9)
    known, _, stop = searched(config, budget=60.0)
    assert stop == Stop("trials") and known.num_trials == 16


def test_without_a_budget_the_search_goes_on_to_its_trials():
    config = settings_of(trials=14, ladder=6, min_gain=0.5, max_tokens_generated=10**9)
    assert searched(config)[2] == Stop("trials")


def test_an_excess_keeps_the_search_away():
    """Where a trial was stopped in mid-response, fewer proposals go beyond it."""
    config = endless(trials=99, ladder=4, spaces=("module",))
    known = searched(config, budget=60.0, num_trials=4)[0]
    censored = tuple(CensoredTrial(Schedule.by_module(attention=0.7, ffn=lam), 60.0) for lam in (0.3, 0.4, 0.5))
    counts = []
    for each in (known, evidence(known.measured, censored=censored)):
        beyond = 0
        for seed in range(12):
            params = propose(each, replace(config, seed=seed), aims(60.0)).params
            beyond += params["split"] > 0.2 and params["lam"] > 0.45
        counts.append(beyond)
    assert counts[1] <= counts[0]


def test_targets_are_the_budget_or_levels_up_to_the_longest():
    known = searched(endless(trials=6, ladder=6))[0]
    granted = allowance_of(known.measured, endless(), aims())
    [target] = targets_of(known.measured, granted, 50.0)
    levels = [each.budget for each in targets_of(known.measured, granted, None)]
    assert target.budget == 50.0 and 0 < target.spread < 0.1
    lengths = [each.values[TOKENS] for each in known.measured]
    assert levels == sorted(levels) and min(levels) > min(lengths) and max(levels) == pytest.approx(max(lengths))


def test_the_spread_is_that_of_as_many_responses_as_will_be_confirmed():
    """Lengths that vary by 60 % of their mean, here of prompts that share no luck."""
    known = searched(endless(trials=6, ladder=6))[0]
    for num_confirm in (64, 256):
        granted = allowance_of(known.measured, endless(), aims(num_confirm=num_confirm))
        [target] = targets_of(known.measured, granted, 50.0)
        assert target.spread == pytest.approx(0.6 / np.sqrt(granted.num_final(150.0, spent=granted.search)), rel=0.01)


def test_without_two_uniform_lambdas_there_is_no_allowance():
    assert allowance_of([], endless(), aims()) is None
    assert allowance_of([point(uniform_params(0.5, num_knots=3))], endless(), aims()) is None
    ends = [point(uniform_params(lam, num_knots=3)) for lam in (0.5, 0.1, 0.9)]
    assert allowance_of(ends, endless(), aims()).ends == 10.0 + 110.0  # the outermost


def test_the_evidence_counts_trials_and_tokens():
    known = measured(measured(Observations(), Proposal(uniform_params(0.0, num_knots=3), 0, 64)),
                     Proposal(uniform_params(0.0, num_knots=3), 64, 256))  # fmt: skip
    assert (known.num_trials, known.num_tokens, len(known.measured)) == (2, 2560, 1)
    assert known.measured[0].num_responses == 256 and known.measured[0].lam == 0.0


@pytest.mark.parametrize("budget", [80.0, None])
def test_a_guard_keeps_the_search_out_of_where_it_collapses(budget):
    """Between lambda 0.3 and 0.9 half of the guard's accuracy is lost, and most of the accuracy is won there."""
    inside = []
    for max_drop in (None, 0.05):
        proposals = []
        for seed in range(2):
            config = endless(trials=20, ladder=5, spaces=("uniform",), seed=seed)
            proposals += searched(config, budget=budget, max_drop=max_drop)[1][5:]
        inside.append(np.mean([0.35 < each.params["lam"] < 0.85 for each in proposals]))
    assert inside[0] > 0.5 > 0.3 > inside[1]


def test_a_guarded_search_proposes_the_same_again():
    config = endless(trials=9, ladder=4, seed=3)
    first, again = (searched(config, budget=60.0, max_drop=0.05)[1] for _ in range(2))
    assert first == again and len(first) == 9


def costly(params, num_responses, factor):
    """A point that was measured with a guard task of as many responses, each ``factor`` times as long."""
    found = point(params, num_responses, guard=guarded_truth(params))
    cost = found.values[TOKENS] * (1 + factor) / 2
    return replace(found, num_responses=2 * num_responses, num_guarding=num_responses, tokens_per_response=cost)


def test_what_guards_generate_is_paid_for():
    config, target = endless(max_tokens_generated=None), aims(50.0, guards=((GUARD, 0.05),))
    known = searched(endless(trials=6, ladder=6))[0]
    plain, heavy = (
        [costly(each.params, each.num_responses // 2, factor) for each in known.measured] for factor in (1, 9)
    )
    one, other = (allowance_of(points, config, target) for points in (plain, heavy))
    assert (
        one.ends == 120.0 and other.ends == pytest.approx(5 * one.ends) and other.total == pytest.approx(5 * one.total)
    )
    capped = endless(max_tokens_generated=300_000)
    spreads = []
    for points in (plain, heavy):
        granted = allowance_of(points, capped, target)
        num_final = granted.num_final(cost_at(points, 150.0), spent=granted.search)
        assert num_final < 1024
        spreads.append(targets_of(points, granted, 50.0)[0].spread)
        assert spreads[-1] == pytest.approx(0.6 / (num_final / 2) ** 0.5, rel=0.01)  # half of them are the guard's
    assert spreads[1] == pytest.approx(5**0.5 * spreads[0], rel=0.1)  # a fifth of the responses


def test_a_further_rung_is_paid_for_with_what_guards_take():
    dear = costly(uniform_params(0.5, num_knots=3), RUNGS[0] // 2, 9)
    assert _next_cost(dear, aims(50.0)) == pytest.approx((RUNGS[1] - RUNGS[0]) * 60.0 * 5)
    assert _next_cost(replace(dear, num_responses=RUNGS[1]), aims(50.0)) == np.inf


def test_a_look_that_guards_make_too_dear_is_not_taken():
    config = endless(trials=20, ladder=3, max_tokens_generated=100_000)
    known = searched(config, num_trials=4)[0]
    left = 45_000 - known.num_tokens
    assert left > RUNGS[0] * 110  # any look could be paid for
    dear = [replace(each, tokens_per_response=500 * each.cost) for each in known.measured]
    assert isinstance(propose(known, config, aims(1e6)), Proposal)
    config = replace(config, max_tokens_generated=10**8)  # or else the ladder alone is too dear
    spent = evidence(dear, costs=(*known.costs[:-1], 45 * 10**6 - sum(known.costs[:-1]) - left))
    assert propose(spent, config, aims(1e6)).reason == "tokens"
    assert isinstance(propose(replace(spent, measured=known.measured), config, aims(1e6)), Proposal)


@pytest.mark.parametrize("sampler", ["surrogate", "tpe", "gp"])
def test_a_space_that_is_used_up_makes_room_for_the_next_and_at_last_ends_the_search(sampler):
    """A tried schedule would get the same responses again."""
    config = endless(sampler=sampler, trials=10_000, ladder=2, spaces=["uniform", "module"])
    tried = [point({**uniform_params(lam / 400, num_knots=3)}) for lam in range(401)]
    found = propose(evidence(tried), config, aims())
    assert isinstance(found, Proposal) and found.params["split"] != 0
    only = propose(evidence(tried), replace(config, spaces=("uniform",)), aims())
    assert only == Stop("spaces")
