"""Our surrogate beside BoTorch's SingleTaskGP with known noise, on the same noisy measurements from the bank.

python studies/search_cost/models.py [--seeds 20]        (needs botorch)

Each world measures 9 uniform lambdas and 12 places in attention x ffn on 128 responses; both models then predict the
true numbers of 60 other places. Prints the error and the mean log density of the truth (higher is better).
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import ours
from bank import Bank, World

from autolambda.optimizer.observations import ACCURACY, TOKENS
from autolambda.optimizer.space import features, to_schedule, uniform_params
from autolambda.optimizer.surrogate import Surrogate, _scaled

KNOTS = 3


def places(rng: np.random.Generator, count: int) -> list[dict[str, float]]:
    """Places in attention x ffn."""
    pairs = rng.uniform(0.15, 0.95, (count, 2))
    zero = uniform_params(0.0, num_knots=KNOTS)
    return [{**zero, "lam": round(float(a + f) / 2, 4), "split": round(float(a - f), 4)} for a, f in pairs]


def botorch(x: np.ndarray, y: np.ndarray, error: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of BoTorch's model with its own priors and transforms."""
    import torch
    from botorch.fit import fit_gpytorch_mll  # type: ignore[import-not-found]
    from botorch.models import SingleTaskGP  # type: ignore[import-not-found]
    from botorch.models.transforms import Standardize  # type: ignore[import-not-found]
    from gpytorch.mlls import ExactMarginalLogLikelihood  # type: ignore[import-not-found]

    train = [torch.tensor(each, dtype=torch.float64) for each in (x, y[:, None], error[:, None] ** 2)]
    model = SingleTaskGP(train[0], train[1], train_Yvar=train[2], outcome_transform=Standardize(1))
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    with torch.no_grad():
        posterior = model.posterior(torch.tensor(at, dtype=torch.float64))
    return posterior.mean[:, 0].numpy(), posterior.variance[:, 0].sqrt().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    bank = Bank(Path(__file__).parent / "bank.npz")
    scores: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for seed in range(args.seeds):
        rng, world = np.random.default_rng(seed), World(bank, seed)
        tried = [uniform_params(i / 8, num_knots=KNOTS) for i in range(9)] + places(rng, 12)
        observations = [
            ours.observation(
                params, to_schedule(params), world.measure(params, "search", np.arange(128)), world.prompts("search")
            )
            for params in tried
        ]
        others = places(rng, 60)
        schedules, truths = [to_schedule(p) for p in others], [bank.truth(p) for p in others]
        started = time.perf_counter()
        model = Surrogate(observations, num_knots=KNOTS)
        fitted = time.perf_counter() - started
        at = np.array([features(s, num_knots=KNOTS)[:2] for s in schedules])
        x = np.array([features(each.schedule, num_knots=KNOTS)[:2] for each in observations])
        for output, name in ((ACCURACY, "accuracy"), (TOKENS, "mean_tokens")):
            values = np.array([each.values[output] for each in observations])
            errors = np.array([each.errors[output] for each in observations])
            sizes = np.array([len(each.prompts) for each in observations], dtype=np.float64)
            y, deviation = _scaled(output, values, errors, sizes)
            true = np.array([getattr(truth, name) for truth in truths])
            scale = np.log if output == TOKENS else np.asarray  # as the surrogate models them
            target = scale(true)
            band = model.predict(schedules, output)
            ours_mean, ours_deviation = scale(band.value), (scale(band.high) - scale(band.low)) / 3.92
            started = time.perf_counter()
            theirs = botorch(x, y, deviation, at)
            seconds = time.perf_counter() - started
            for which, (mean, spread), cost in (
                ("ours", (ours_mean, ours_deviation), fitted / 5),
                ("BoTorch", theirs, seconds),
            ):
                error = float(np.sqrt(np.mean((mean - target) ** 2)))
                density = float(np.mean(-0.5 * ((mean - target) / spread) ** 2 - np.log(spread)))
                scores.setdefault((which, output), []).append((error, density, cost))
    for (which, output), each in sorted(scores.items(), key=lambda item: item[0][1]):
        error, density, cost = np.mean(each, axis=0)
        name = ("accuracy", "log tokens")[output]
        print(f"{name:<20} {which:<8} error {error:.4f}  log density {density:.3f}  fit {cost:.3f} s")


if __name__ == "__main__":
    main()
