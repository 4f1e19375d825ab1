"""The strategies people use today, replayed on a world: what each asks for. The confirmation is ours.

A trial measures a schedule on the same number of responses. All trials together take half of the tokens; the other
half goes to our own confirmation of what they found, so that only the proposals differ. The first two trials are the
parents, which our confirmation compares with. cmaes needs the package of that name, nehvi BoTorch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import optuna
import ours
from bank import Params, Replay
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers.nsgaii import BLXAlphaCrossover
from ours import Outcome, Setup

from autolambda.optimizer.observations import ACCURACY, TOKENS, Observations
from autolambda.optimizer.space import uniform_params
from autolambda.statistics import pareto

Space = Literal["uniform", "module"]

NUM_TRIALS = {"grid11": 11, "grid21": 21, "random": 24, "tpe": 24, "nsga2": 24, "cmaes": 16, "gp": 16, "nehvi": 16}
NUM_STARTUP = 5  # trials before a model proposes, parents included: fewer than the defaults (10), for trials are few
# CMA-ES: the weight of the tokens by the budget's share of the Thinking model's tokens, the nearest is taken
CMAES_WEIGHTS = {0.3: 0.8, 0.5: 0.2, 0.75: 0.1}
SEARCH_SHARE = 0.5  # of the allowance, for the trials
LEAST_RESPONSES = 32  # of a trial
NUM_KNOTS = 3
PARENTS = (0.0, 1.0)
_TYPICAL = tuple(i / 10 for i in range(11))  # lambdas whose mean cost is that of a trial, except for a grid
_DECIMALS = 4


class Proposer(Protocol):
    """Ask and tell: a schedule to measure, then what it gave."""

    def ask(self) -> Params: ...

    def tell(self, score: pareto.Objectives) -> None: ...


def search(name: str, world: Replay, setup: Setup) -> Outcome:
    """A search by another strategy, with our confirmation."""
    num_trials, size = NUM_TRIALS[name], trial_size(name, world, setup)
    space: Space = "module" if "module" in setup.spaces and not name.startswith("grid") else "uniform"
    proposer = proposer_of(name, world, budget=setup.budget, space=space, num_trials=num_trials, seed=setup.seed)
    observations = Observations()
    for _ in range(num_trials):
        params = proposer.ask()
        observations = ours.observe(world, setup, observations, params, size)
        values = next(each.values for each in observations.measured if each.params == params)
        proposer.tell(pareto.Objectives(values[ACCURACY], values[TOKENS]))
    return ours.conclude(world, setup, observations, "trials")


def trial_size(name: str, world: Replay, setup: Setup) -> int:
    """The responses of each trial: as many as half of the allowance pays, at most the search slice with its repeats.

    The price is the true one of the grid's lambdas, or the mean over 11 even ones. At least 32 are taken.
    """
    num_trials = NUM_TRIALS[name]
    lams = tuple(np.linspace(0, 1, num_trials)) if name.startswith("grid") else _TYPICAL
    price = num_trials * np.mean([world.bank.truth(to_params({"lam": lam})).mean_tokens for lam in lams])
    affordable = int(SEARCH_SHARE * ours.allowance(world, setup) / price)
    return min(setup.num_search * setup.repeats, max(LEAST_RESPONSES, affordable))


def to_params(point: Mapping[str, float]) -> Params:
    """The schedule at ``lam``, or at ``attention`` and ``ffn``."""
    attention = point.get("attention", point.get("lam", 0.0))
    ffn = point.get("ffn", attention)
    lam, split = (attention + ffn) / 2, attention - ffn
    rounded = {"lam": round(lam, _DECIMALS), "split": round(split, _DECIMALS) + 0.0}  # -0.0 + 0.0 is 0.0
    return {**uniform_params(0.0, num_knots=NUM_KNOTS), **rounded}


class Grid:
    """Evenly spaced uniform lambdas, both ends included."""

    def __init__(self, size: int) -> None:
        self._left = list(np.linspace(0.0, 1.0, size))

    def ask(self) -> Params:
        return to_params({"lam": float(self._left.pop(0))})

    def tell(self, score: pareto.Objectives) -> None:
        pass


class Asked:
    """An Optuna study in memory, the parents first. ``goal`` turns a score into the values of the study.

    The plane is that of attention x ffn, not of lam x split: so no part of it is cut off. With a ``budget`` the tokens
    are a constraint.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        space: Space,
        goal: Callable[[pareto.Objectives], list[float]],
        *,
        directions: Sequence[Literal["maximize", "minimize"]] = ("maximize",),
        budget: float | None = None,
        idle: bool = False,
    ) -> None:
        """``idle`` adds a parameter without effect: CMA-ES knows no space of one dimension."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(directions=list(directions), sampler=sampler)
        names = {"uniform": ["lam"], "module": ["attention", "ffn"]}[space]
        self._space = {name: FloatDistribution(0.0, 1.0) for name in [*names, *(["idle"] if idle else [])]}
        for lam in PARENTS:
            self._study.enqueue_trial(dict.fromkeys(self._space, lam))
        self._goal, self._budget = goal, budget
        self._trial: Any = None

    def ask(self) -> Params:
        with warnings.catch_warnings():
            # GPSampler divides 0 by 0 where no place looks better than another, and then goes on with the first
            warnings.simplefilter("ignore")
            self._trial = self._study.ask(dict(self._space))
        return to_params({name: value for name, value in self._trial.params.items() if name != "idle"})

    def tell(self, score: pareto.Objectives) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if self._budget is not None:
                self._trial.set_constraint("budget", score.mean_tokens / self._budget - 1)
            self._study.tell(self._trial, self._goal(score))


class Nehvi:
    """BoTorch's qLogNEHVI on two SingleTaskGPs of all trials, as AP-BMM proposes, one at a time.

    The parents come first, then Sobol points.
    """

    def __init__(self, space: Space, *, full_tokens: float, seed: int) -> None:
        import torch

        self._names = {"uniform": ["lam"], "module": ["attention", "ffn"]}[space]
        self._full_tokens, self._seed = full_tokens, seed
        self._start = torch.quasirandom.SobolEngine(len(self._names), scramble=True, seed=seed).draw(NUM_STARTUP)
        self._start[: len(PARENTS)] = torch.tensor(PARENTS)[:, None]
        self._asked: list[list[float]] = []
        self._told: list[list[float]] = []

    def ask(self) -> Params:
        count = len(self._told)
        self._asked.append([float(x) for x in self._start[count]] if count < NUM_STARTUP else self._propose())
        return to_params(dict(zip(self._names, self._asked[-1], strict=True)))

    def tell(self, score: pareto.Objectives) -> None:
        self._told.append([score.accuracy, -score.mean_tokens / self._full_tokens])

    def _propose(self) -> list[float]:
        import torch
        from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import ModelListGP, SingleTaskGP
        from botorch.models.transforms import Standardize
        from botorch.optim import optimize_acqf
        from botorch.sampling import SobolQMCNormalSampler
        from gpytorch.mlls import SumMarginalLogLikelihood

        places, told = torch.tensor(self._asked).double(), torch.tensor(self._told).double()
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")  # fits that had to be started again
            torch.manual_seed(self._seed + len(told))
            models = [SingleTaskGP(places, told[:, [i]], outcome_transform=Standardize(1)) for i in range(2)]
            model = ModelListGP(*models)
            fit_gpytorch_mll(
                SumMarginalLogLikelihood(model.likelihood, model), optimizer_kwargs={"options": {"maxiter": 50}}
            )
            value = qLogNoisyExpectedHypervolumeImprovement(
                model,
                ref_point=[0.0, -1.1],  # accuracy 0, a tenth more tokens than the Thinking model
                X_baseline=places,
                prune_baseline=True,
                sampler=SobolQMCNormalSampler(torch.Size([32]), seed=self._seed),
            )
            bounds = torch.tensor([[0.0], [1.0]]).double().expand(2, len(self._names))
            best, _ = optimize_acqf(value, bounds, q=1, num_restarts=2, raw_samples=32, options={"maxiter": 20})
        return [float(x) for x in best[0]]


def proposer_of(
    name: str,
    world: Replay,
    *,
    budget: float,
    space: Space,
    num_trials: int,
    seed: int,
) -> Proposer:
    """What asks for a strategy; only gp and cmaes look at the budget."""
    full_tokens = world.bank.truth(to_params({"lam": 1.0})).mean_tokens
    both: Any = {"goal": lambda score: [score.accuracy, score.mean_tokens], "directions": ("maximize", "minimize")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name.startswith("grid"):
            return Grid(num_trials)
        if name == "random":
            return Asked(RandomSampler(seed=seed), space, **both)
        if name == "tpe":
            sampler = TPESampler(seed=seed, n_startup_trials=NUM_STARTUP, multivariate=True)
            return Asked(sampler, space, **both)
        if name == "nsga2":
            # the defaults, made for many parameters, would draw every child of one parameter at random
            genetic = NSGAIISampler(
                seed=seed,
                population_size=max(4, num_trials // 4),
                crossover=BLXAlphaCrossover(),
                mutation_prob=0.1,
            )
            return Asked(genetic, space, **both)
        if name == "gp":
            gaussian = GPSampler(seed=seed, n_startup_trials=NUM_STARTUP)
            return Asked(gaussian, space, lambda score: [score.accuracy], budget=budget)
        if name == "nehvi":
            return Nehvi(space, full_tokens=full_tokens, seed=seed)
        if name == "cmaes":
            price = cmaes_weight(budget / full_tokens)
            evolution = CmaEsSampler(seed=seed, n_startup_trials=0, warn_independent_sampling=False)
            return Asked(
                evolution,
                space,
                lambda score: [score.accuracy - price * score.mean_tokens / full_tokens],
                idle=space == "uniform",
            )
    raise ValueError(f"no strategy {name!r}: one of {', '.join(NUM_TRIALS)}")


def cmaes_weight(share: float) -> float:
    """The weight found best for a budget that is ``share`` of the Thinking model's tokens."""
    return CMAES_WEIGHTS[min(CMAES_WEIGHTS, key=lambda known: abs(known - share))]
