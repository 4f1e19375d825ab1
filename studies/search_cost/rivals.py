"""The strategies people use today, replayed on a world: what each asks for, and what its user picks in the end.

A trial measures a schedule on the first ``trial_size`` responses; the pick is the highest raw accuracy among the trials
whose raw mean tokens are within the budget. Nothing is stopped early, nothing confirmed. ``SETTINGS`` holds what
each does best with at an allowance of tokens. cmaes needs the package of that name, nehvi BoTorch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import optuna
from bank import Params, Truth
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers.nsgaii import BLXAlphaCrossover

from autolambda.statistics import estimates, pareto
from autolambda.statistics.estimates import Estimate

Floats = NDArray[np.float64]
Space = Literal["uniform", "module"]

NUM_STARTUP = 5  # random trials before a model proposes: fewer than the defaults (10), for 8 trials are few
GRID_SIZE = 11  # the paper's lambdas, 0 to 1
# CMA-ES: the weight of the tokens by the budget's share of the Thinking model's tokens, the nearest is taken
CMAES_WEIGHTS = {0.3: 0.8, 0.5: 0.2, 0.75: 0.1}
ALLOWANCES = (90_000, 180_000, 350_000, 700_000, 1_700_000)  # tokens of a whole search
# (trial_size, num_trials) by allowance, the best at budgets 25, 40, 60 on worlds 0-9 of the half-recorded bank (gp 7 of
# them, nehvi 3 and at most 16 trials); CAREFUL_SETTINGS are those of the careful pick
SETTINGS: Mapping[Space, Mapping[str, list[tuple[int, int]]]] = {
    "uniform": {
        "grid11": [(128, 11), (128, 21), (256, 21), (512, 21), (2000, 21)],
        "random": [(128, 16), (256, 16), (512, 16), (256, 64), (512, 64)],
        "tpe": [(128, 16), (128, 32), (256, 32), (512, 32), (512, 64)],
        "nsga2": [(128, 16), (128, 32), (128, 64), (256, 64), (1000, 32)],
        "gp": [(256, 8), (256, 16), (512, 16), (1000, 16), (2000, 16)],
        "cmaes": [(128, 16), (256, 16), (128, 64), (512, 32), (512, 64)],
        "nehvi": [(256, 8), (256, 16), (512, 16), (512, 16), (512, 16)],
    },
    "module": {
        "random": [(128, 16), (128, 32), (128, 64), (512, 32), (512, 64)],
        "tpe": [(128, 16), (256, 16), (256, 32), (256, 64), (256, 64)],
        "nsga2": [(128, 16), (128, 32), (256, 32), (256, 64), (512, 64)],
        "gp": [(128, 16), (128, 32), (512, 16), (1000, 16), (1000, 16)],
        "cmaes": [(128, 16), (256, 16), (256, 32), (512, 32), (512, 64)],
        "nehvi": [(128, 16), (512, 8), (512, 16), (512, 16), (512, 16)],
    },
}
CAREFUL_SETTINGS: Mapping[Space, Mapping[str, list[tuple[int, int]]]] = {
    "uniform": {
        "grid11": [(128, 11), (128, 21), (256, 21), (512, 21), (1000, 41)],
        "random": [(128, 16), (128, 32), (256, 32), (512, 32), (1000, 32)],
        "tpe": [(128, 16), (256, 16), (256, 32), (512, 32), (512, 64)],
        "nsga2": [(128, 16), (128, 32), (128, 64), (512, 32), (1000, 32)],
        "gp": [(128, 16), (512, 8), (512, 16), (1000, 16), (1000, 16)],
        "cmaes": [(128, 16), (128, 32), (128, 64), (512, 32), (1000, 32)],
        "nehvi": [(128, 16), (256, 16), (512, 16), (512, 16), (512, 16)],
    },
    "module": {
        "random": [(128, 16), (256, 16), (256, 32), (512, 32), (512, 64)],
        "tpe": [(128, 16), (256, 16), (256, 32), (512, 32), (512, 64)],
        "nsga2": [(128, 16), (128, 32), (256, 32), (256, 64), (1000, 32)],
        "gp": [(128, 16), (128, 32), (512, 16), (512, 32), (512, 32)],
        "cmaes": [(128, 16), (256, 16), (512, 16), (512, 32), (512, 64)],
        "nehvi": [(128, 16), (256, 16), (512, 16), (512, 16), (512, 16)],
    },
}
BY_BUDGET = ("gp", "cmaes")  # those that look at the budget while they propose
_SEARCH: Literal["search"] = "search"
_HELD = {"tilt_0": 0.0, "tilt_1": 0.0, "tilt_2": 0.0}
_DECIMALS = 4


class TrueNumbers(Protocol):
    """What knows the truth: `bank.Bank` or `paper.PaperBank`."""

    def truth(self, params: Params) -> Truth: ...


class Replay(Protocol):
    """What a strategy is replayed on: `bank.World` or `paper.PaperWorld`."""

    num_tokens: int
    num_prompts: int

    @property
    def bank(self) -> TrueNumbers: ...

    def measure(self, params: Params, phase: str, index: NDArray[np.int64]) -> Floats: ...


@dataclass(frozen=True)
class Trial:
    """A measured schedule: ``responses`` float64 [n, 3] of correct, tokens, thought."""

    params: Params
    responses: Floats
    num_prompts: int

    @cached_property
    def score(self) -> pareto.Objectives:
        """The raw means."""
        return pareto.Objectives(float(self.responses[:, 0].mean()), float(self.responses[:, 1].mean()))

    @cached_property
    def accuracy(self) -> Estimate:
        return estimates.share(self._by_prompt(0), num_responses=len(self.responses))

    @cached_property
    def tokens(self) -> estimates.Limits:
        return estimates.tokens(self._by_prompt(1), num_responses=len(self.responses), cap=math.inf, seed=0)

    def _by_prompt(self, column: int) -> Floats:
        """Response i answers prompt ``i % num_prompts``."""
        prompt = np.arange(len(self.responses)) % self.num_prompts
        sums: Floats = np.bincount(prompt, weights=self.responses[:, column])
        return sums / np.bincount(prompt)


@dataclass(frozen=True)
class State:
    """What a user has after a trial: the pick with what is claimed for it, and the raw non-dominated trials."""

    num_tokens: int
    chosen: Params | None
    claimed: Estimate | None
    claimed_tokens: Estimate | None
    front: list[Params]


class Proposer(Protocol):
    """Ask and tell: a schedule to measure, then what it gave."""

    def ask(self) -> Params: ...

    def tell(self, score: pareto.Objectives) -> None: ...


def state(trials: Sequence[Trial], *, budget: float, num_tokens: int, careful: bool = False) -> State:
    """The pick among ``trials``; a ``careful`` user asks the one-sided 95 % upper bound of the tokens to be within."""
    within = [trial for trial in trials if trial.score.mean_tokens <= budget]
    within.sort(key=lambda trial: (-trial.score.accuracy, trial.score.mean_tokens))
    best = next((trial for trial in within if not careful or trial.tokens.bounds.upper <= budget), None)
    return State(
        num_tokens,
        best.params if best else None,
        best.accuracy if best else None,
        best.tokens.estimate if best else None,
        [trial.params for trial in pareto.front(trials, key=lambda trial: trial.score)],
    )


def trials_of(world: Replay, proposer: Proposer, *, trial_size: int, num_trials: int) -> Iterator[Trial]:
    """Asks, measures and tells."""
    for _ in range(num_trials):
        params = proposer.ask()
        trial = Trial(params, world.measure(params, _SEARCH, np.arange(trial_size)), world.num_prompts)
        proposer.tell(trial.score)
        yield trial


def to_params(point: Mapping[str, float]) -> Params:
    """The schedule at ``lam``, or at ``attention`` and ``ffn``."""
    attention = point.get("attention", point.get("lam", 0.0))
    ffn = point.get("ffn", attention)
    lam, split = (attention + ffn) / 2, attention - ffn
    return {"lam": round(lam, _DECIMALS), "split": round(split, _DECIMALS) + 0.0, **_HELD}  # -0.0 + 0.0 is 0.0


class Grid:
    """Evenly spaced uniform lambdas, both ends included."""

    def __init__(self, size: int) -> None:
        self._left = list(np.linspace(0.0, 1.0, size))

    def ask(self) -> Params:
        return to_params({"lam": float(self._left.pop(0))})

    def tell(self, score: pareto.Objectives) -> None:
        pass


class Asked:
    """An Optuna study in memory. ``goal`` turns a score into the values of the study.

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
    """BoTorch's qLogNEHVI on two SingleTaskGPs of all trials, as AP-BMM proposes, one at a time; Sobol points first."""

    def __init__(self, space: Space, *, full_tokens: float, seed: int) -> None:
        import torch

        self._names = {"uniform": ["lam"], "module": ["attention", "ffn"]}[space]
        self._full_tokens, self._seed = full_tokens, seed
        self._start = torch.quasirandom.SobolEngine(len(self._names), scramble=True, seed=seed).draw(NUM_STARTUP)
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
    weight: float | None = None,
) -> Proposer:
    """What asks for a strategy; only gp, and cmaes without a ``weight``, look at the budget."""
    full_tokens = world.bank.truth(to_params({"lam": 1.0})).mean_tokens
    both: Any = {"goal": lambda score: [score.accuracy, score.mean_tokens], "directions": ("maximize", "minimize")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "grid11":
            _check_uniform(space)
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
            price = cmaes_weight(budget / full_tokens) if weight is None else weight
            evolution = CmaEsSampler(seed=seed, n_startup_trials=0, warn_independent_sampling=False)
            return Asked(
                evolution,
                space,
                lambda score: [score.accuracy - price * score.mean_tokens / full_tokens],
                idle=space == "uniform",
            )
    raise ValueError(f"no strategy {name!r}: one of {', '.join(SETTINGS['uniform'])}")


def cmaes_weight(share: float) -> float:
    """The weight found best for a budget that is ``share`` of the Thinking model's tokens."""
    return CMAES_WEIGHTS[min(CMAES_WEIGHTS, key=lambda known: abs(known - share))]


def _check_uniform(space: Space) -> None:
    if space != "uniform":
        raise ValueError(f"the grid has uniform lambdas only, seen space {space!r}")
