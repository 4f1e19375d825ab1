"""A Gaussian process with known noise: conditioning on values and on floors, and the gradient of its likelihood."""

import numpy as np
import pytest
from scipy.optimize import check_grad

from autolambda.optimizer.gaussian_process import GaussianProcess


def test_it_goes_through_exact_values_and_shrinks_noisy_ones():
    places, y = np.array([[0.0], [0.4], [1.0]]), np.array([1.0, 1.5, 2.5])
    exact = GaussianProcess(places, y, np.eye(3) * 1e-8)
    assert exact.marginal(places)[0] == pytest.approx(y, abs=1e-3) and np.all(exact.marginal(places)[1] < 1e-4)
    noisy = GaussianProcess(places, y, np.eye(3))
    assert np.ptp(noisy.marginal(places)[0]) < 1.2 and np.all(noisy.marginal(places)[1] > 0.05)


def test_far_from_all_values_it_knows_little():
    process = GaussianProcess(np.array([[0.0], [0.1], [0.2]]), np.array([1.0, 1.2, 1.1]), np.eye(3) * 0.01)
    near, far = process.marginal(np.array([[0.1], [3.0]]))[1]
    assert far > 10 * near


def test_draws_have_the_moments_of_the_marginal():
    rng = np.random.default_rng(0)
    process = GaussianProcess(np.array([[0.0], [0.4], [1.0]]), np.array([1.0, 1.5, 2.5]), np.eye(3) * 0.01)
    places = np.array([[0.2], [0.7], [1.5]])
    drawn, (mean, variance) = process.draw(places, 100_000, rng), process.marginal(places)
    assert drawn.mean(axis=0) == pytest.approx(mean, abs=0.02)
    assert drawn.var(axis=0) == pytest.approx(variance, rel=0.05)


CLIFFS = {
    "step": lambda lam: float(lam >= 0.5),
    "bump": lambda lam: float(abs(lam - 0.5) < 0.03),
    "dip": lambda lam: 0.0 if lam < 0.48 else 0.6 if lam < 0.51 else 0.2 if lam < 0.55 else 1.0,
}


@pytest.mark.parametrize("truth", CLIFFS.values(), ids=CLIFFS)
def test_a_cliff_between_close_values_is_held_by_the_bands(truth):
    """A ladder's lambdas lie close there. The smooth curves alone hold 53 to 76 % of the values."""
    lams = np.array([0, 0.25, 0.375, 0.4375, 0.46875, 0.484, 0.5, 0.516, 0.53, 0.5625, 0.625, 0.75, 1])
    values, held = np.array([truth(lam) for lam in lams]), []
    for seed in range(40):
        noise = 0.1 * np.random.default_rng(seed).standard_normal(len(lams))
        process = GaussianProcess(lams[:, None], values + noise, np.eye(len(lams)) * 0.01)
        mean, variance = process.marginal(lams[:, None])
        held.append(np.abs(mean - values) < 1.96 * np.sqrt(variance))
    assert np.mean(held) > 0.91


def test_noise_that_all_share_is_not_averaged_out():
    places, y = np.linspace(0, 1, 30)[:, None], np.ones(30)
    own, shared = np.eye(30) * 0.04, np.full((30, 30), 0.036) + np.eye(30) * 0.004
    at = np.array([[0.5]])
    variances = [GaussianProcess(places, y, noise).marginal(at)[1][0] for noise in (own, shared)]
    assert variances[0] < 0.01 < 0.03 < variances[1]


def test_the_moments_after_an_excess_are_those_of_the_cut_normal():
    places = np.array([[0.0], [0.4], [1.0]])
    process = GaussianProcess(places, np.array([1.0, 1.5, 2.5]), np.diag([0.01, 0.01, 0.01]))
    at, floor = np.array([[0.7]]), np.array([2.3])
    mean, variance = (each[0] for each in process.marginal(at))
    draws = mean + np.sqrt(variance) * np.random.default_rng(0).standard_normal(2_000_000)
    cut = draws[draws > floor]
    process.exceed(at, floor)
    moved, kept = (each[0] for each in process.marginal(at))
    assert moved == pytest.approx(cut.mean(), abs=0.01) and kept == pytest.approx(cut.var(), rel=0.03)


def test_the_gradient_of_the_likelihood():
    rng = np.random.default_rng(3)
    places = rng.uniform(0, 1, size=(12, 3))
    noise = np.diag(rng.uniform(0.01, 0.1, 12)) + 0.02
    process = GaussianProcess(places, np.sin(5 * places[:, 0]) + places[:, 1], noise)
    squares = (places[:, None, :] - places[None, :, :]) ** 2
    for _ in range(5):
        logs = rng.normal(-0.5, 0.4, size=7)
        gradient = process._loss(logs, squares)[1]
        wrong = check_grad(lambda x: process._loss(x, squares)[0], lambda x: process._loss(x, squares)[1], logs)
        assert wrong < 1e-4 * (1 + np.abs(gradient).max())
