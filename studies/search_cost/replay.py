"""Replays searches, ours and those of today's tools, on the bank or on the paper's table, against generated tokens.

python studies/search_cost/replay.py run OUT.jsonl [--bank PATH] [--seeds 20] [--strategies ours,gp,...] [--worlds bank]
python studies/search_cost/replay.py table OUT.jsonl
python studies/search_cost/replay.py plot OUT.jsonl           (needs matplotlib)

``run`` adds a JSON line a search: what it chose, what it claimed, and what is true. ``table`` prints Markdown. Seeds
start at 100: the settings of the others were chosen on worlds below.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ours
import rivals
from bank import Bank, Params, World
from paper import BENCHMARKS, PaperBank, PaperWorld

from autolambda.config import Config, parse_config
from autolambda.optimizer.space import uniform_params
from autolambda.statistics.pareto import Objectives, hypervolume

FOLDER = Path(__file__).parent
BUDGETS = (25.0, 40.0, 60.0)
PAPER_BUDGETS = {"aime25": (16000.0,), "ifeval": (1500.0,), "gpqa_diamond": (6000.0,)}
FULL_SIZES = (2000, 8000)  # responses of the search slice: 1,000 prompts, 2 or 8 repeats
NUM_KNOTS = 3
NEAR = 2.0  # points of accuracy
OURS_SPACES = {"uniform": ["uniform"], "module": ["uniform", "module"]}
FIRST_SEED = 100


def our_config(budget: float, space: str) -> Config:
    """The defaults, in the spaces that the world knows."""
    return parse_config({"tasks": [{"name": "arithmetic"}], "budget": budget, "search": {"spaces": OURS_SPACES[space]}})


def run_ours(world: Any, budget: float, space: str, full: int) -> dict[str, Any]:
    """One search of ours at a full size, its confirmation counted in."""
    started = time.process_time()
    found = ours.search(world, our_config(budget, space), full=full, num_confirm=8 * world.num_prompts)
    return {
        "settings": f"full {full}",
        "tokens": found.num_tokens,
        "verdict": str(found.verdict),
        "chosen": dict(found.chosen) if found.verdict == "feasible" else None,
        "nearest": dict(found.chosen),
        "claimed": [found.accuracy.value, found.accuracy.low, found.accuracy.high],
        "claimed_tokens": [found.mean_tokens.value, found.mean_tokens.low, found.mean_tokens.high],
        "boundaries": {
            name: None if each is None else [each.lam, each.low, each.high]
            for name, each in (("emergence", found.stages.emergence), ("saturation", found.stages.saturation))
        },
        "front": [dict(params) for params in found.front],
        "trials": found.num_trials,
        "stopped": found.num_stopped,
        "stop_reason": found.stop_reason,
        "loop_s": found.seconds,
        "cpu_s": time.process_time() - started,
    }


def run_rival(world: Any, plan: dict[str, Any], seed: int, kept: dict[Any, Any]) -> dict[str, Any]:
    """One search of another strategy with its own best settings: it does not confirm.

    ``kept`` holds the trials of those that do not look at the budget, which are the same for all budgets.
    """
    (trial_size, num_trials), name = plan["size"], plan["strategy"]
    key = (plan["world"], plan["space"], name, plan["size"])
    if key not in kept or name in rivals.BY_BUDGET:
        started = time.process_time()
        proposer = rivals.proposer_of(
            name, world, budget=plan["budget"], space=plan["space"], num_trials=num_trials, seed=seed
        )
        trials = list(rivals.trials_of(world, proposer, trial_size=trial_size, num_trials=num_trials))
        kept[key] = trials, world.num_tokens, time.process_time() - started
    trials, num_tokens, seconds = kept[key]
    last = rivals.state(trials, budget=plan["budget"], num_tokens=num_tokens, careful=plan["careful"])
    return {
        "settings": f"{num_trials} x {trial_size}",
        "tokens": last.num_tokens,
        "chosen": dict(last.chosen) if last.chosen else None,
        "claimed": [last.claimed.value, last.claimed.low, last.claimed.high] if last.claimed else None,
        "claimed_tokens": [last.claimed_tokens.value, last.claimed_tokens.low, last.claimed_tokens.high]
        if last.claimed_tokens
        else None,
        "front": [dict(params) for params in last.front],
        "cpu_s": seconds,
    }


def with_truth(row: dict[str, Any], bank: Any, budget: float) -> dict[str, Any]:
    """What is true of the choice: accuracy, tokens, and the hypervolume of the front below the budget."""
    chosen: Params | None = row["chosen"]
    if chosen:
        truth = bank.truth(chosen)
        row |= {"accuracy": truth.accuracy, "mean_tokens": truth.mean_tokens, "within": truth.mean_tokens <= budget}
    scores = [Objectives(truth.accuracy, truth.mean_tokens) for truth in map(bank.truth, row.pop("front"))]
    row["hypervolume"] = hypervolume(scores, reference_tokens=budget) / budget
    if nearest := row.pop("nearest", None):
        truth = bank.truth(nearest)
        row["reported"] = [truth.accuracy, truth.mean_tokens]
    return row


def searches(args: argparse.Namespace) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """(bank, a function of a seed that makes a world, what to run)."""
    names = args.strategies.split(",")
    settings: Any = rivals.CAREFUL_SETTINGS if args.careful else rivals.SETTINGS
    worlds: list[tuple[str, Any, Any, tuple[float, ...], list[str]]] = []
    if "bank" in args.worlds:
        bank = Bank(args.bank)
        worlds.append(("bank", bank, World, BUDGETS, args.spaces.split(",")))
    if "paper" in args.worlds:
        for benchmark in BENCHMARKS:
            worlds.append((benchmark, PaperBank(benchmark), PaperWorld, PAPER_BUDGETS[benchmark], ["uniform"]))
    for world, bank, make, budgets, spaces in worlds:
        for space in spaces:
            for budget in budgets:
                for name in names:
                    sizes: list[Any] = [int(size) for size in args.full.split(",")] if name == "ours" else []
                    if name != "ours" and name in settings[space]:
                        chosen = [settings[space][name][int(i)] for i in args.allowances.split(",")]
                        sizes = list(dict.fromkeys(chosen))
                    for size in sizes:
                        plan = {"world": world, "space": space, "budget": budget, "strategy": name, "size": size}
                        plan["careful"] = args.careful
                        yield bank, make, plan


def run(args: argparse.Namespace) -> None:
    """Seed by seed over all that was asked for, so that a stopped run is a smaller one."""
    done = set()
    if args.out.exists():
        done = {tuple(map(str, json.loads(line)["key"])) for line in args.out.read_text().splitlines()}
    with args.out.open("a") as out:
        for seed in range(FIRST_SEED + args.skip, FIRST_SEED + args.skip + args.seeds):
            kept: dict[Any, Any] = {}
            for bank, make, plan in searches(args):
                key = [plan[name] for name in ("world", "space", "budget", "strategy", "size")] + [seed]
                if tuple(map(str, key)) in done:
                    continue
                world, budget, space = make(bank, seed), plan["budget"], plan["space"]
                row = (
                    run_ours(world, budget, space, plan["size"])
                    if plan["strategy"] == "ours"
                    else run_rival(world, plan, seed, kept)
                )
                out.write(json.dumps({"key": key, **with_truth(row, bank, budget)}) + "\n")
                out.flush()


def best_of(bank: Any, space: str, budget: float) -> float:
    """The highest true accuracy within the budget."""
    lams = np.linspace(0, 1, 401 if space == "uniform" else 101)
    splits = [0.0] if space == "uniform" else np.linspace(-1, 1, 81)
    truths = [
        bank.truth({**uniform_params(float(lam), num_knots=NUM_KNOTS), "split": float(split)})
        for lam in lams
        for split in splits
        if lam - abs(split) / 2 >= 0 and lam + abs(split) / 2 <= 1
    ]
    return max(truth.accuracy for truth in truths if truth.mean_tokens <= budget)


def crossing(bank: Any, level: float) -> float:
    """The lambda at which the true Think ratio passes a level."""
    lams = np.linspace(0, 1, 1001)
    ratios = [bank.truth(uniform_params(float(lam), num_knots=NUM_KNOTS)).think_ratio for lam in lams]
    return float(lams[np.argmax(np.maximum.accumulate(ratios) >= level)])


def table(args: argparse.Namespace) -> None:
    """A row for each strategy at each size; over all its budgets, then the coverage of our intervals."""
    rows = [json.loads(line) for line in args.out.read_text().splitlines()]
    banks: dict[str, Any] = {name: PaperBank(name) for name in BENCHMARKS}
    if any(row["key"][0] == "bank" for row in rows):
        banks["bank"] = Bank(args.bank)
    best = {tuple(row["key"][:3]): 0.0 for row in rows}
    best = {key: best_of(banks[key[0]], key[1], key[2]) for key in best}
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[(row["key"][0], row["key"][1], row["key"][3], row["settings"])].append(row)
    columns = [
        "world",
        "space",
        "strategy",
        "settings",
        "tokens",
        "lost",
        "within",
        "chosen",
        "hypervolume",
        "claim",
        "CPU-s",
        "n",
    ]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for (world, space, name, settings), found in sorted(
        groups.items(), key=lambda item: (*item[0][:2], _tokens(item[1]))
    ):
        made = [row for row in found if row["chosen"]]
        lost = [100 * (best[tuple(row["key"][:3])] - row["accuracy"]) for row in made if row["within"]]
        error = np.std(lost) / max(len(lost), 1) ** 0.5
        claims = [100 * (row["claimed"][0] - row["accuracy"]) for row in made]
        print(
            f"| {world} | {space} | {name} | {settings} | {_tokens(found):,.0f} | {np.mean(lost):.2f} ± {error:.2f} "
            f"| {np.mean([row['within'] for row in made]):.0%} | {len(made) / len(found):.0%} "
            f"| {np.mean([row['hypervolume'] for row in found]):.4f} | {np.mean(claims):+.2f} "
            f"| {np.mean([row['cpu_s'] for row in found]):.1f} | {len(found)} |"
        )
    print()
    _by_budget([row for row in rows if row["key"][0] == "bank"], best)
    print()
    _coverage([row for row in rows if row["key"][3] == "ours"], banks)


def _by_budget(rows: list[dict[str, Any]], best: dict[tuple[Any, ...], float]) -> None:
    """The share of searches that end in a schedule truly within the budget and near the best, beside ours.

    Fisher's exact test, two-sided, against our search at the size whose tokens are nearest.
    """
    from scipy.stats import fisher_exact

    groups: dict[tuple[str, float], dict[tuple[str, str], list[dict[str, Any]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in rows:
        groups[row["key"][1], row["key"][2]][row["key"][3], row["settings"]].append(row)
    print("| space | budget | strategy | settings | tokens | good | ours | p |\n|---|---|---|---|---|---|---|---|")
    for (space, budget), found in sorted(groups.items()):
        good = {
            name: [_is_good(row, best[tuple(row["key"][:3])]) for row in each] for name, each in sorted(found.items())
        }
        own = {name: _tokens(found[name]) for name in found if name[0] == "ours"}
        for name, each in found.items():
            if name[0] == "ours" or not own:
                continue
            mine = good[min(own, key=lambda size: abs(np.log(own[size] / _tokens(each))))]
            theirs = good[name]
            p = fisher_exact([[sum(side), len(side) - sum(side)] for side in (theirs, mine)]).pvalue
            print(
                f"| {space} | {budget:g} | {name[0]} | {name[1]} | {_tokens(each):,.0f} "
                f"| {np.mean(theirs):.0%} | {np.mean(mine):.0%} | {p:.3f} |"
            )


def _is_good(row: dict[str, Any], best: float) -> bool:
    """Whether a search chose a schedule truly within the budget and at most ``NEAR`` points below the best."""
    return bool(row["chosen"] and row["within"] and 100 * (best - row["accuracy"]) <= NEAR)


def _coverage(rows: list[dict[str, Any]], banks: dict[str, Any]) -> None:
    """How often our intervals hold the truth."""
    held: dict[str, list[bool]] = defaultdict(list)
    widths: dict[str, list[float]] = defaultdict(list)
    passes = {
        (world, name): crossing(banks[world], level)
        for world in {row["key"][0] for row in rows}
        for name, level in (("emergence", 0.05), ("saturation", 0.95))
    }
    for row in rows:
        for name, claim, truth in zip(
            ("accuracy", "tokens"), (row["claimed"], row["claimed_tokens"]), row["reported"], strict=True
        ):
            held[name].append(claim[1] <= truth <= claim[2])
            widths[name].append((claim[2] - claim[1]) / (truth if name == "tokens" else 1))
        for name, boundary in row["boundaries"].items():
            if boundary:
                held[name].append(boundary[1] <= passes[row["key"][0], name] <= boundary[2])
                widths[name].append(boundary[2] - boundary[1])
        if row["verdict"] == "feasible":
            held["feasible is true"].append(row["within"])
    print("| claim | true in | median width | n |\n|---|---|---|---|")
    for name, each in held.items():
        width = f"{np.median(widths[name]):.3f}" if widths[name] else ""
        print(f"| {name} | {np.mean(each):.1%} | {width} | {len(each)} |")


def _tokens(rows: list[dict[str, Any]]) -> float:
    return float(np.mean([row["tokens"] for row in rows]))


def plot(args: argparse.Namespace) -> None:
    """Points lost against tokens for every strategy, how many of its choices are truly within the budget beside it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [json.loads(line) for line in args.out.read_text().splitlines()]
    bank = Bank(args.bank)
    best = {(key[1], key[2]): best_of(bank, key[1], key[2]) for key in {tuple(row["key"][:3]) for row in rows}}
    figure, axes = pyplot.subplots(1, 2, figsize=(9.6, 4.0), sharey=True, layout="constrained")
    for axis, space in zip(axes, ("uniform", "module"), strict=True):
        for number, name in enumerate(("ours", "gp", "grid11", "tpe", "cmaes", "nsga2", "random")):
            sizes: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for row in rows:
                if row["key"][1] == space and row["key"][3] == name:
                    sizes[row["settings"]].append(row)
            if not sizes:
                continue
            found = sorted(sizes.values(), key=_tokens)
            made = [[row for row in each if row["chosen"]] for each in found]
            lost = [
                float(np.mean([100 * (best[space, row["key"][2]] - row["accuracy"]) for row in each if row["within"]]))
                for each in made
            ]
            within = [float(np.mean([row["within"] for row in each])) for each in made]
            tokens = [_tokens(each) for each in found]
            strong = name == "ours"
            line = axis.plot(
                tokens,
                lost,
                "-o",
                lw=2.5 if strong else 1.2,
                ms=8 if strong else 5,
                label=name,
                color=f"C{number}",
                zorder=3 if strong else 2,
            )[0]
            for x, y, share in zip(tokens, lost, within, strict=True):
                axis.annotate(
                    f"{share:.0%}",
                    (x, y),
                    xytext=(5, 4),
                    textcoords="offset points",
                    fontsize=8,
                    color=line.get_color(),
                )
        axis.set(
            xscale="log",
            xlabel="generated tokens, all counted",
            title=f"{space} lambda" if space == "uniform" else "attention x ffn",
        )
        axis.grid(alpha=0.3)
        axis.set_xticks([1e5, 2e5, 5e5, 1e6], ["100k", "200k", "500k", "1M"])
        axis.minorticks_off()
    axes[0].set_ylabel("accuracy points below the best\n(choices within the budget)")
    axes[0].set_ylim(bottom=0)
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle("Percentages: how many of the choices are truly within the budget", fontsize=10)
    figure.savefig(args.picture, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["run", "table", "plot"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--bank", type=Path, default=FOLDER / "bank.npz")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--strategies", default="ours,grid11,random,tpe,nsga2,cmaes,gp,nehvi")
    parser.add_argument("--worlds", default="bank")
    parser.add_argument("--spaces", default="uniform,module")
    parser.add_argument("--full", default=",".join(map(str, FULL_SIZES)))
    parser.add_argument("--allowances", default="1,3", help="which of rivals.ALLOWANCES to compare at")
    parser.add_argument("--careful", action="store_true", help="others pick by the upper bound of the tokens")
    parser.add_argument("--picture", type=Path, default=FOLDER / "quality.png")
    args = parser.parse_args()
    {"run": run, "table": table, "plot": plot}[args.what](args)


if __name__ == "__main__":
    main()
