"""The surrogate: what it recovers from noisy data, luck that trials share, censored, speed."""

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

from autolambda.optimizer.observations import (
    ACCURACY,
    THINK,
    TOKENS,
    CensoredTrial,
    Observation,
    PartObservation,
    part_of,
)
from autolambda.optimizer.space import ENDS, features
from autolambda.optimizer.surrogate import Surrogate, prompt_correlation
from autolambda.schedule import Profile, Schedule
from autolambda.statistics.estimates import share

NUM_PROMPTS = 100


def accuracy(lam, split=0.0):
    return expit(-1.0 + 2.5 * lam - 1.5 * (lam - 0.6) ** 2 + 1.2 * split)


def tokens(lam, split=0.0):
    return np.exp(4.0 + 1.5 * np.sin(2.5 * lam) + 0.5 * split)


def think(lam, split=0.0):
    return expit(12 * (lam - 0.5))


def observe(schedule, rng, *, num_prompts=NUM_PROMPTS, luck=None, shared=0.0):
    """One response to each prompt of the made-up truth; ``shared`` of the variance of each is the prompt's ``luck``."""
    lam, split = (
        schedule.attention.mean() / 2 + schedule.ffn.mean() / 2,
        schedule.attention.mean() - schedule.ffn.mean(),
    )
    own = rng.standard_normal((num_prompts, 3))
    unit = own if luck is None else np.sqrt(shared) * luck + np.sqrt(1 - shared) * own
    shares = np.array([accuracy(lam, split), think(lam)])
    right, thought = (unit[:, [0, 2]] < norm.ppf(shares)).T.astype(np.float64)
    outcomes = np.stack([right, tokens(lam, split) * np.maximum(1 + 0.5 * unit[:, 1], 0.0), thought], axis=1)
    means = outcomes.mean(axis=0)
    errors = [share(outcomes[:, i], num_responses=num_prompts).standard_error for i in (ACCURACY, THINK)]
    length_error = outcomes[:, TOKENS].std(ddof=1) / np.sqrt(num_prompts)
    return Observation(
        schedule,
        (means[0], means[1], means[2]),
        (errors[0], length_error, errors[1]),
        np.arange(num_prompts),
        outcomes - means,
        {},
        num_prompts,
    )


def uniform(lams):
    return [Schedule.uniform(round(float(lam), 4)) for lam in lams]


TRUTHS = {ACCURACY: accuracy, TOKENS: tokens, THINK: think}


@pytest.mark.parametrize(("output", "truth"), TRUTHS.items())
def test_a_curve_is_recovered_within_its_band(output, truth):
    grid, inside, away = np.linspace(0.05, 0.95, 31), [], []
    scale = np.log if output == TOKENS else logit
    for seed in range(6):
        rng = np.random.default_rng(seed)
        model = Surrogate([observe(each, rng) for each in uniform(np.linspace(0, 1, 15))], num_knots=3)
        band = model.predict(uniform(grid), output)
        assert np.all(band.low < band.value) and np.all(band.value < band.high)
        near = 0.0 if output == TOKENS else 0.005  # no number of prompts here tells .001 from .0001
        inside.append(((band.low - near <= truth(grid)) & (truth(grid) <= band.high + near)).mean())
        away.append(np.abs(scale(band.value) - scale(truth(grid)))[(grid > 0.2) & (grid < 0.8)].mean())
    assert np.mean(inside) >= 0.85
    assert np.mean(away) < (0.1 if output == TOKENS else 0.45)


def test_two_modules_are_recovered_within_the_band():
    rng = np.random.default_rng(1)
    pairs = rng.uniform(0, 1, size=(40, 2)).round(4)
    model = Surrogate([observe(Schedule.by_module(attention=a, ffn=f), rng) for a, f in pairs], num_knots=3)
    test = rng.uniform(0.1, 0.9, size=(60, 2))
    schedules = [Schedule.by_module(attention=a, ffn=f) for a, f in test]
    lam, split = test.mean(axis=1), test[:, 0] - test[:, 1]
    for output in (ACCURACY, TOKENS):
        truth, band = TRUTHS[output](lam, split), model.predict(schedules, output)
        assert ((band.low <= truth) & (truth <= band.high)).mean() >= 0.85, output
        assert np.corrcoef(band.value, truth)[0, 1] > 0.95
    # that the split counts is seen, not drowned in the level
    high, low = (
        model.predict([Schedule.by_module(attention=0.5 + d, ffn=0.5 - d)], ACCURACY).value[0] for d in (0.4, -0.4)
    )
    assert high - low > 0.2


def level_error(num_trials, *, shared):
    """The standard error of the curve's mean over lam on the scale of the model, with so many trials on one slice."""
    rng = np.random.default_rng(5)
    luck = rng.standard_normal((NUM_PROMPTS, 3))
    seen = [observe(each, rng, luck=luck, shared=shared) for each in uniform(np.linspace(0, 1, num_trials))]
    draw = Surrogate(seen, num_knots=3).draw(uniform(np.linspace(0.1, 0.9, 9)), num_draws=2000, seed=0)
    return float(np.log(draw.tokens).mean(axis=1).std()), prompt_correlation(seen, TOKENS)


def test_luck_that_trials_share_does_not_average_out():
    few, many = level_error(6, shared=0.8), level_error(48, shared=0.8)
    assert few[1] == pytest.approx(0.8, abs=0.1) and many[1] == pytest.approx(0.8, abs=0.05)
    assert many[0] > 0.8 * few[0]
    assert many[0] > 0.8 * 0.5 * np.sqrt(0.8 / NUM_PROMPTS)  # never below what the prompts leave open


def test_luck_of_their_own_averages_out():
    few, many = level_error(6, shared=0.0), level_error(48, shared=0.0)
    assert few[1] < 0.1 and many[1] < 0.05
    assert many[0] < 0.6 * few[0]


def test_trials_on_other_prompts_share_no_luck():
    rng = np.random.default_rng(2)
    first = observe(Schedule.uniform(0.2), rng)
    other = observe(Schedule.uniform(0.4), rng)
    apart = replace(other, prompts=other.prompts + NUM_PROMPTS, prompt_effects=first.prompt_effects)
    together = replace(other, prompt_effects=first.prompt_effects)
    assert prompt_correlation([first, apart], TOKENS) == 0.0
    assert prompt_correlation([first, together], TOKENS) == 0.95  # as much as is believed
    assert prompt_correlation([first], TOKENS) == 0.0


def curve(rng=0, count=9):
    random = np.random.default_rng(rng)
    return [observe(each, random) for each in uniform(np.linspace(0, 0.6, count))]


def test_an_excess_pushes_up_and_is_no_value():
    at = [Schedule.uniform(0.9)]
    plain = Surrogate(curve(), num_knots=3).predict(at, TOKENS)
    floors = [plain.value[0] * factor for factor in (0.2, 1.05, 3.0, 20.0)]
    pushed = [
        Surrogate(curve(), num_knots=3, censored=[CensoredTrial(at[0], floor)]).predict(at, TOKENS) for floor in floors
    ]
    values = [band.value[0] for band in pushed]
    assert values == sorted(values) and values[0] == pytest.approx(plain.value[0], rel=0.2)
    assert values[1] > 1.1 * plain.value[0]
    for floor, band in zip(floors[1:], pushed[1:], strict=True):
        assert band.high[0] > floor  # what is above is not ruled out
        assert band.value[0] > 0.95 * floor
    # a floor below all that is likely says next to nothing: it does not pull down
    assert pushed[0].value[0] > floors[0] * 2


def test_excesses_leave_accuracy_and_far_places_alone():
    censored = [CensoredTrial(Schedule.uniform(0.95), 500.0), CensoredTrial(Schedule.uniform(0.9), 500.0)]
    plain, pushed = Surrogate(curve(), num_knots=3), Surrogate(curve(), num_knots=3, censored=censored)
    some = uniform([0.0, 0.3, 0.95])
    for output in (ACCURACY, THINK):
        assert np.array_equal(plain.predict(some, output).value, pushed.predict(some, output).value)
    before, after = plain.predict(some, TOKENS), pushed.predict(some, TOKENS)
    assert np.all((before.low[:2] < after.value[:2]) & (after.value[:2] < before.high[:2]))


CLIFF, DIRECT, THINKING = 0.62, (0.55, 20.0), (0.9, 200.0)  # accuracy and mean tokens of each mode


def over_cliff(lam, *, num_prompts=200, rng):
    """A schedule whose Think ratio jumps at the cliff; the modes themselves hardly change."""
    thought = rng.random(num_prompts) < expit(40 * (lam - CLIFF))
    means = np.where(thought[:, None], THINKING, DIRECT)
    right = rng.random(num_prompts) < means[:, 0]
    outcomes = np.stack([right, means[:, 1] * rng.lognormal(-0.08, 0.4, num_prompts), thought], axis=1)
    mean, prompts = outcomes.mean(axis=0), np.arange(num_prompts)
    errors = [share(outcomes[:, i], num_responses=num_prompts).standard_error for i in (ACCURACY, THINK)]
    length_error = max(outcomes[:, TOKENS].std(ddof=1) / np.sqrt(num_prompts), 0.01 * mean[TOKENS])
    parts = [part_of(prompts[mine], outcomes[mine, :2], np.ones(mine.sum())) for mine in (~thought, thought)]
    return Observation(
        Schedule.uniform(lam),
        tuple(map(float, mean)),
        (errors[0], length_error, errors[1]),
        prompts,
        outcomes - mean,
        {},
        num_prompts,
        direct=parts[0],
        thinking=parts[1],
    )


def of_one_curve(seen):
    return [replace(each, direct=None, thinking=None) for each in seen]


def test_a_cliff_seen_at_six_lambdas_is_predicted_better_by_the_mixture_than_by_one_curve():
    lams = np.array([0.53, 0.57, 0.6, 0.64, 0.67, 0.72])
    ratio = expit(40 * (lams - CLIFF))
    lengths = np.log((1 - ratio) * DIRECT[1] + ratio * THINKING[1])
    errors = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        seen = [over_cliff(lam, rng=rng) for lam in (0.0, 0.5, 0.55, 0.62, 0.7, 1.0)]
        models = [Surrogate(each, num_knots=3) for each in (seen, of_one_curve(seen))]
        errors.append(
            [np.sqrt(np.mean((np.log(m.predict(uniform(lams), TOKENS).value) - lengths) ** 2)) for m in models]
        )
    mixture, curve = np.mean(errors, axis=0)
    assert mixture < 0.75 * curve and mixture < 0.12


@pytest.mark.parametrize("is_mixed", [True, False])
def test_no_prediction_is_longer_than_the_cap(is_mixed):
    rng = np.random.default_rng(0)
    seen = [over_cliff(lam, rng=rng) for lam in (0.0, 0.55, 0.62, 0.7)]
    seen = seen if is_mixed else of_one_curve(seen)
    places = uniform(np.linspace(0, 1, 11))
    free, capped = (Surrogate(seen, num_knots=3, cap=cap) for cap in (np.inf, 210.0))
    assert free.draw(places, num_draws=256, seed=0).tokens.max() > 210.0
    assert capped.draw(places, num_draws=256, seed=0).tokens.max() <= 210.0 + 1e-9
    assert capped.predict(places, TOKENS).high.max() <= 210.0 + 1e-9


@pytest.mark.parametrize("floor", [80.0, 600.0])  # between the modes, and above both
def test_an_aborted_trial_raises_the_mixture(floor):
    """A bound between the modes' lengths raises the Think ratio; one above both, the length of thinking."""
    rng, at = np.random.default_rng(0), uniform([0.59])
    seen = [over_cliff(lam, rng=rng) for lam in (0.0, 0.5, 0.7, 1.0)]
    plain = Surrogate(seen, num_knots=3)
    pushed = Surrogate(seen, num_knots=3, censored=[CensoredTrial(at[0], floor)])
    before, after = (model.predict(at, TOKENS).value[0] for model in (plain, pushed))
    ratios = [model.predict(at, THINK).value[0] for model in (plain, pushed)]
    assert after > 1.1 * before
    assert (ratios[1] > ratios[0] + 0.01) if floor < 200 else (ratios[1] == ratios[0])
    low = Surrogate(seen, num_knots=3, censored=[CensoredTrial(at[0], 5.0)])
    assert low.predict(at, TOKENS).value[0] == before  # less than a response without thinking


def test_where_all_responses_are_of_one_mode_there_is_one_curve():
    rng = np.random.default_rng(0)
    seen = [over_cliff(lam, rng=rng) for lam in (0.0, 0.1, 0.2, 0.3)]
    assert all(each.thinking is None for each in seen)
    places = uniform([0.05, 0.25])
    one, other = (
        Surrogate(each, num_knots=3).draw(places, num_draws=16, seed=0) for each in (seen, of_one_curve(seen))
    )
    assert np.array_equal(one.tokens, other.tokens) and np.array_equal(one.accuracy, other.accuracy)
    mixed = Surrogate([*seen, over_cliff(0.7, rng=rng)], num_knots=3)
    assert mixed.draw(uniform([1.0]), num_draws=64, seed=0).tokens.mean() > 60


def test_the_accuracy_is_modelled_on_its_own_scale():
    """Two equally long steps are equally long at the edge too, where log-odds would stretch them."""
    seen = [
        Observation(each, (value, 20.0, 0.5), (0.004, 0.2, 0.05), np.arange(9), np.zeros((9, 3)), {}, 9)
        for each, value in zip(uniform([0.0, 0.5, 1.0]), (0.79, 0.89, 0.99), strict=True)
    ]
    found = Surrogate(seen, num_knots=3).predict(uniform([0.25, 0.75]), ACCURACY).value
    assert found == pytest.approx([0.84, 0.94], abs=0.02)
    drawn = Surrogate(seen, num_knots=3).draw(uniform([0.0, 1.0]), num_draws=512, seed=0).accuracy
    assert drawn.min() >= 0.0 and drawn.max() == 1.0
    assert drawn.std(axis=0)[1] == pytest.approx(drawn.std(axis=0)[0], rel=0.5)


def test_the_same_data_give_the_same_bits():
    schedules = uniform(np.linspace(0, 1, 21))
    models = [Surrogate(curve(), num_knots=3, censored=[CensoredTrial(schedules[-1], 90.0)]) for _ in range(2)]
    for output in (ACCURACY, TOKENS, THINK):
        one, other = (model.predict(schedules, output) for model in models)
        assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("value", "low", "high"))
    one, again, other = (models[i].draw(schedules, num_draws=8, seed=seed) for i, seed in ((0, 1), (1, 1), (0, 2)))
    assert np.array_equal(one.tokens, again.tokens) and np.array_equal(one.accuracy, again.accuracy)
    assert not np.array_equal(one.tokens, other.tokens)


def test_draws_follow_the_band():
    model, schedules = Surrogate(curve(), num_knots=3), uniform(np.linspace(0, 1, 11))
    draw = model.draw(schedules, num_draws=4000, seed=0)
    for output, drawn in ((ACCURACY, draw.accuracy), (TOKENS, draw.tokens)):
        band = model.predict(schedules, output)
        low, middle, high = np.quantile(drawn, [0.025, 0.5, 0.975], axis=0)
        assert middle == pytest.approx(band.value, rel=0.08)
        assert high - low == pytest.approx(band.high - band.low, rel=0.2)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_shares_of_none_and_all_are_finite_and_count(value):
    """None of 50 at three lambdas is no ratio of a quarter."""
    error = share(np.full(50, value), num_responses=50).standard_error
    flat = [
        Observation(each, (value, 20.0, value), (error, 1.0, error), np.arange(50), np.zeros((50, 3)), {}, 50)
        for each in uniform([0.0, 0.5, 1.0])
    ]
    for seen in (flat, flat[:1]):
        model = Surrogate(seen, num_knots=3)
        for output in (ACCURACY, THINK):
            band = model.predict(uniform([0.0, 0.25, 1.0]), output)
            assert np.all(np.isfinite(band.value)) and np.all((band.low >= 0) & (band.high <= 1))
            assert np.all(band.low < band.high)
            assert np.all(np.abs(band.value - value) < 0.1)
        assert np.all(np.isfinite(model.draw(uniform([0.1, 0.2]), num_draws=4, seed=0).accuracy))


def test_an_observation_with_less_noise_counts_for_more():
    def at_half(errors):
        seen = [
            Observation(
                Schedule.uniform(0.5),
                (0.5, length, 0.5),
                (0.1, error, 0.1),
                np.arange(90) + 90 * i,
                np.zeros((90, 3)),
                {},
                90,
            )
            for i, (length, error) in enumerate(zip((20.0, 40.0), errors, strict=True))
        ]
        return Surrogate(seen, num_knots=3).predict(uniform([0.5]), TOKENS).value[0]

    assert at_half((0.5, 12.0)) < 27.0 < 32.0 < at_half((6.0, 1.0))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule.uniform(0.3), [0.3, 0, 0, 0, 0, 0, 0, 0]),
        (Schedule.by_module(attention=0.7, ffn=0.3), [0.5, 0.4, 0, 0, 0, 0, 0, 0]),
        (Schedule.by_depth(Profile((0.3, 0.5, 0.7))), [0.5, 0, -0.2, 0, 0.2, 0, 0, 0]),
        (
            Schedule.by_depth_and_module(Profile((0.8, 0.6, 0.6)), Profile((0.2, 0.4, 0.4))),
            [0.5, 1 / 3, 0, 0, 0, 0.6 - 1 / 3, 0.2 - 1 / 3, 0.2 - 1 / 3],
        ),
    ],
)
def test_where_a_schedule_lies(schedule, expected):
    found = features(schedule, num_knots=3)
    assert found == pytest.approx(expected, abs=1e-9)
    assert all(value == 0.0 for value, target in zip(found, expected, strict=True) if target == 0)


def test_many_trials_in_many_dimensions_take_a_second():
    rng = np.random.default_rng(0)
    knots = rng.uniform(0, 1, size=(200, 2, 5)).round(3)
    seen = [
        observe(Schedule.by_depth_and_module(Profile(tuple(a)), Profile(tuple(f))), rng, num_prompts=64)
        for a, f in knots
    ]
    seconds = []
    for _ in range(3):
        start = time.process_time()
        model = Surrogate(seen, num_knots=5)
        model.draw([each.schedule for each in seen], num_draws=64, seed=0)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 2.0


def guarded(right, error, prompts):
    """The accuracy on a guard task, from one response to each prompt."""
    effects = np.stack([right - right.mean(), np.zeros(len(right))], axis=1)
    return PartObservation((float(right.mean()), 100.0), (error, 5.0), prompts, effects)


def with_guard(seen, truth, *, num_prompts=400, luck=None, seed=3):
    """The observations with the accuracy on a guard task; ``luck`` [prompts] is what all share."""
    rng = np.random.default_rng(seed)
    found = []
    for each in seen:
        lam = (each.schedule.attention.mean() + each.schedule.ffn.mean()) / 2
        own = rng.standard_normal(num_prompts)
        unit = own if luck is None else 0.9 * luck + np.sqrt(1 - 0.81) * own
        right = (unit < norm.ppf(truth(lam))).astype(np.float64)
        error = share(right, num_responses=num_prompts).standard_error
        found.append(replace(each, guards={"rules": guarded(right, error, np.arange(num_prompts) + NUM_PROMPTS)}))
    return found


def collapse(lam):
    """Falls between 0.3 and 0.4, comes back by 0.9, and ends 4 points lower than it began."""
    return 0.8 - 0.5 * np.clip((lam - 0.3) * 10, 0, 1) + 0.46 * np.clip((lam - 0.8) * 10, 0, 1)


def whole_curve():
    random = np.random.default_rng(0)
    return [observe(each, random) for each in uniform(np.linspace(0, 1, 17))]


def test_without_guards_everything_is_allowed_and_guards_change_no_other_draw():
    seen, places = whole_curve(), uniform(np.linspace(0, 1, 11))
    plain = Surrogate(seen, num_knots=3).draw(places, num_draws=16, seed=0)
    guarded = Surrogate(with_guard(seen, collapse), num_knots=3, guards=(("rules", 0.02),))
    draw = guarded.draw(places, num_draws=16, seed=0)
    assert plain.allowed.all() and plain.allowed.shape == draw.allowed.shape == (16, 11)
    assert np.array_equal(plain.accuracy, draw.accuracy) and np.array_equal(plain.tokens, draw.tokens)
    assert not draw.allowed.all()
    # what was never measured forbids nothing, and one that is not named is not asked
    for model in (
        Surrogate(seen, num_knots=3, guards=(("rules", 0.02),)),
        Surrogate(with_guard(seen, collapse), num_knots=3),
    ):
        assert model.draw(places, num_draws=4, seed=0).allowed.all()


@pytest.mark.parametrize(("max_drop", "end"), [(0.1, True), (0.005, False)])
def test_where_a_guard_collapses_nothing_is_allowed(max_drop, end):
    model = Surrogate(with_guard(whole_curve(), collapse), num_knots=3, guards=(("rules", max_drop),))
    chance = model.draw(uniform([0.1, 0.2, 0.5, 0.6, 0.7, 1.0]), num_draws=400, seed=0).allowed.mean(axis=0)
    assert np.all(chance[2:5] < 0.01)
    assert np.all(chance[:2] > (0.9 if max_drop == 0.1 else 0.1))
    assert (chance[5] > 0.5) == end


def test_the_better_end_is_always_allowed_and_against_the_ends_of_the_same_draw():
    """Wherever they stand in the list, and also if no schedule of the list is an end."""
    seen = with_guard(whole_curve(), collapse)
    model = Surrogate(seen, num_knots=3, guards=(("rules", 0.0),))
    for places in (uniform([0.5, 1.0, 0.2, 0.0]), [*ENDS, *uniform([0.3])]):
        allowed = model.draw(places, num_draws=300, seed=0).allowed
        ends = allowed[:, [places.index(end) for end in ENDS]]
        assert ends.any(axis=1).all() and ends[:, 0].mean() > 0.8  # lambda 0 is the better one
    alone = model.draw(uniform([0.55]), num_draws=300, seed=0).allowed
    assert alone.shape == (300, 1) and alone.mean() < 0.01


def test_luck_that_all_share_on_a_guard_makes_no_drop():
    """The same accuracies: once of the same prompts, which are hard or easy for all, once of others for each."""
    chances = []
    for step in (0, NUM_PROMPTS):
        right = np.arange(NUM_PROMPTS) < 80
        seen = [
            replace(each, guards={"rules": guarded(right, 0.04, np.arange(NUM_PROMPTS) + step * i)})
            for i, each in enumerate(whole_curve()[::4])
        ]
        model = Surrogate(seen, num_knots=3, guards=(("rules", 0.03),))
        chances.append(model.draw(uniform([0.25, 0.5, 0.75]), num_draws=1000, seed=0).allowed.mean())
    assert chances[0] > chances[1] + 0.1


def test_every_guard_must_be_kept_and_few_may_have_seen_one():
    seen = with_guard(whole_curve(), collapse)
    both = [replace(each, guards={**each.guards, "more": each.guards["rules"]}) for each in seen]
    both[3] = replace(both[3], guards={})  # a first rung without a prompt of theirs
    places = uniform([0.25, 0.6, 0.95])
    one, two = (
        Surrogate(both, num_knots=3, guards=guards).draw(places, num_draws=500, seed=0).allowed.mean(axis=0)
        for guards in ((("rules", 0.03),), (("rules", 0.03), ("more", 0.03)))
    )
    assert np.all(two <= one + 0.03) and two[0] < one[0] and one[1] == two[1] == 0.0
