"""Prints the tables of this study from its banks and searches, and draws its picture.

python studies/real_pair/results.py          # needs chromium for the picture
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from plotly.subplots import make_subplots

from autolambda.schedule import Schedule
from autolambda.statistics.curve import CurvePoint
from autolambda.statistics.stages import detect_stages, sentence

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "search_cost"))
from bank import Bank, Truth
from pictures import save_png

HERE = Path(__file__).parent
TITLES = {
    "mixed": "Instruct shows some steps",
    "instruct": "Instruct answers at once",
    "verbose": "Instruct as it was published",
}
WIDTH, HEIGHT = 1200, 380  # pixels
MERGE, PARENT, PICK = "#1f77b4", "#111111", "#c0392b"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, default=HERE / "merges.png")
    arguments = parser.parse_args()
    banks = {name: Bank(path) for name in TITLES if (path := HERE / f"{name}.npz").exists()}
    searches = [json.loads(line) for line in (HERE / "searches.jsonl").read_text().splitlines()]
    for name, bank in banks.items():
        print(f"\n### {TITLES[name]}\n")
        print("\n".join(curve(bank)))
        if bank.has_module:
            print("\n".join(modules(bank)))
    print("\n### Searches\n")
    print("\n".join(judged(banks, searches)))
    print("\n".join(held(banks, searches)))
    draw(banks, searches, arguments.picture)


def node(bank: Bank, index: int) -> tuple[float, Truth]:
    """Returns the mean lambda and the recorded means of one merge."""
    return float(bank.params[index, 0]), Truth(*map(float, bank.means[index]))


def uniform(bank: Bank) -> list[tuple[float, Truth]]:
    """Lambda and the recorded means of every uniform merge, ascending."""
    return [node(bank, i) for i in np.argsort(bank.params[:, 0]) if not bank.params[i, 1:].any()]


def apart(bank: Bank) -> list[tuple[float, Truth]]:
    """Returns the mean lambda and the recorded means of the merges whose attention and ffn differ."""
    return [node(bank, i) for i, params in enumerate(bank.params) if params[1]]


def curve(bank: Bank) -> Iterator[str]:
    """Yields the uniform merges as Markdown, and the stages."""
    yield "| lambda | accuracy | mean tokens | Think ratio |"
    yield "|---|---|---|---|"
    rows = uniform(bank)
    for lam, truth in rows:
        yield f"| {lam:g} | {truth.accuracy:.3f} | {truth.mean_tokens:.1f} | {truth.think_ratio:.3f} |"
    yield ""
    # clusters by prompt: the repeats of a prompt are no new prompts
    yield sentence(detect_stages([CurvePoint(lam, truth.think_ratio, bank.num_prompts) for lam, truth in rows]))


def modules(bank: Bank) -> Iterator[str]:
    """Yields attention x ffn: accuracy, mean tokens and Think ratio."""
    places = {
        (round(float(lam + split / 2), 3), round(float(lam - split / 2), 3)): Truth(*map(float, means))
        for (lam, split), means in zip(bank.params[:, :2], bank.means, strict=True)
    }
    grid = sorted({attention for attention, ffn in places if attention != ffn})
    yield ""
    yield f"| attention, down; ffn, across | {' | '.join(f'{ffn:g}' for ffn in grid)} |"
    yield "|" + "---|" * (len(grid) + 1)
    for attention in grid:
        cells = [places.get((attention, ffn)) for ffn in grid]
        yield f"| {attention:g} | {' | '.join(cell(truth) for truth in cells)} |"


def cell(truth: Truth | None) -> str:
    return f"{truth.accuracy:.2f} / {truth.mean_tokens:.0f} / {truth.think_ratio:.2f}" if truth else ""


def judged(banks: Mapping[str, Bank], searches: list[dict[str, Any]]) -> Iterator[str]:
    """Yields each search beside the bank: its pick, the same merge there, and the best uniform lambda within."""
    yield "| pair | budget | verdict and pick | its interval | bank there | bank's best | minutes |"
    yield "|---|---|---|---|---|---|---|"
    for line in searches:
        pair, dtype, rounding, budget = line["name"].split(":")
        report = line["report"]
        bank, best = banks[pair], report["best"] or report["nearest"]
        there = truth_of(bank, best["schedule"])
        within = [(truth, lam) for lam, truth in dense(bank) if truth.mean_tokens <= float(budget)]
        top, lam = max(within, key=lambda each: each[0].accuracy)
        interval = (
            f"{100 * best['accuracy_low']:.1f} to {100 * best['accuracy_high']:.1f} %, "
            f"{best['mean_tokens_low']:.1f} to {best['mean_tokens_high']:.1f}"
        )
        yield (
            f"| {pair}, {dtype}, {rounding} | {budget} | {report['verdict']}: {Schedule.from_dict(best['schedule'])}: "
            f"{100 * best['accuracy']:.1f} % at {best['mean_tokens']:.1f} | {interval} | "
            f"{in_short(there)} | "
            f"lambda {lam:g}: {in_short(top)} | {line['seconds'] / 60:.1f} |"
        )


def held(banks: Mapping[str, Bank], searches: list[dict[str, Any]]) -> Iterator[str]:
    """Yields how many of the fronts' 95 % intervals hold the bank's value, whose own error is left out.

    Merges that the bank does not know, such as those by module without a grid, are left out.
    """
    yield ""
    yield "| search | front | merges | accuracy held | tokens held | Think ratio held |"
    yield "|---|---|---|---|---|---|"
    for line in searches:
        bank = banks[line["name"].split(":")[0]]
        for name in ("smoothed", "confirmed"):
            front = [each for each in line["report"]["fronts"][name] if truth_of(bank, each["schedule"])]
            truths = [truth_of(bank, each["schedule"]) for each in front]
            counts = [
                sum(
                    each[f"{key}_low"] <= getattr(truth, key) <= each[f"{key}_high"]
                    for each, truth in zip(front, truths, strict=True)
                )
                for key in ("accuracy", "mean_tokens", "think_ratio")
            ]
            yield f"| {line['name']} | {name} | {len(front)} | {' | '.join(map(str, counts))} |"


def dense(bank: Bank) -> list[tuple[float, Truth]]:
    """Uniform merges in steps of .005, between the recorded ones by straight lines."""
    return [(lam, bank.truth({"lam": lam, "split": 0.0})) for lam in np.linspace(0, 1, 201).round(3).tolist()]


def truth_of(bank: Bank, plain: Mapping[str, Any]) -> Truth | None:
    """The bank's numbers of a schedule; ``None`` if it holds uniform lambdas alone and the schedule is none.

    A curve over depth counts by its means.
    """
    schedule = Schedule.from_dict(plain)
    if schedule.lam is None and not bank.has_module:
        return None
    attention, ffn = schedule.attention.mean(), schedule.ffn.mean()
    return bank.truth({"lam": (attention + ffn) / 2, "split": attention - ffn})


def in_short(truth: Truth | None) -> str:
    return f"{100 * truth.accuracy:.1f} % at {truth.mean_tokens:.1f}" if truth else ""


def draw(banks: Mapping[str, Bank], searches: list[dict[str, Any]], path: Path) -> None:
    """Draws accuracy against mean tokens, a panel for each pair, and the picks with their intervals."""
    figure = make_subplots(cols=len(banks), subplot_titles=[TITLES[name] for name in banks], horizontal_spacing=0.06)
    for column, (name, bank) in enumerate(banks.items(), start=1):
        rows, where, shown = uniform(bank), {"row": 1, "col": column}, {"showlegend": column == 1, "cliponaxis": False}
        ends, merges = [rows[0], rows[-1]], rows[1:-1]
        figure.add_scatter(**points(rows), mode="lines", line={"color": MERGE, "width": 1}, showlegend=False, **where)
        figure.add_scatter(
            **points(merges),
            mode="markers+text",
            text=[f"{lam:g}" if lam * 10 % 1 < 1e-9 else "" for lam, _ in merges],
            textposition="top left",
            marker={"color": MERGE, "size": 8},
            name="merge with one lambda",
            **shown,
            **where,
        )
        figure.add_scatter(
            **points(apart(bank)),
            mode="markers",
            marker={"color": MERGE, "size": 8, "symbol": "circle-open"},
            name="attention and feed-forward apart",
            **shown,
            **where,
        )
        figure.add_scatter(
            **points(ends),
            mode="markers+text",
            text=["Instruct", "Thinking"],
            textposition=["bottom center", "top right"],
            marker={"color": PARENT, "size": 10, "symbol": "diamond"},
            name="the two models",
            **shown,
            **where,
        )
        picks = [
            best
            for line in searches
            if line["name"].startswith(f"{name}:float32") and (best := line["report"]["best"]) is not None
        ]
        figure.add_scatter(
            x=[best["mean_tokens"] for best in picks],
            y=[100 * best["accuracy"] for best in picks],
            error_x=errors(picks, "mean_tokens", 1.0),
            error_y=errors(picks, "accuracy", 100.0),
            mode="markers",
            marker={"color": PICK, "size": 9, "symbol": "star"},
            name="found by autolambda on other prompts, 95 % intervals",
            **shown,
            **where,
        )
        shares = [100 * truth.accuracy for _, truth in rows]
        lengths = [truth.mean_tokens for _, truth in rows]
        figure.update_yaxes(ticksuffix=" %", range=[min(shares) - 15, max(shares) + 8], **where)
        margin = 0.12 * (max(lengths) - min(lengths))
        figure.update_xaxes(title="mean tokens", range=[min(lengths) - margin, max(lengths) + margin], **where)
    figure.update_layout(margin={"l": 45, "r": 10, "t": 70, "b": 45}, legend={"orientation": "h", "y": 1.27, "x": 0})
    save_png(figure, path, width=WIDTH, height=HEIGHT)


def points(rows: list[tuple[float, Truth]]) -> dict[str, list[float]]:
    return {"x": [truth.mean_tokens for _, truth in rows], "y": [100 * truth.accuracy for _, truth in rows]}


def errors(picks: list[dict[str, Any]], key: str, factor: float) -> dict[str, object]:
    return {
        "array": [factor * (best[f"{key}_high"] - best[key]) for best in picks],
        "arrayminus": [factor * (best[key] - best[f"{key}_low"]) for best in picks],
        "thickness": 1,
    }


if __name__ == "__main__":
    main()
