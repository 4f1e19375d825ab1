"""Prints the tables of this study and draws its picture, from the lines of ``sweep.py`` and ``staircase.py``.

python studies/rounding/results.py          # needs chromium for the picture
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plotly.subplots import make_subplots

from autolambda.statistics.curve import CurvePoint
from autolambda.statistics.stages import detect_stages, sentence

sys.path.insert(0, str(Path(__file__).parents[1]))
from pictures import save_png

HERE = Path(__file__).parent
KINDS = ("nearest", "dithered", "float32")
NAMES = {"nearest": "bf16, to nearest", "dithered": "bf16, dithered", "float32": "float32, not rounded"}
COLOURS = {"nearest": "#c0392b", "dithered": "#1f77b4", "float32": "#7f7f7f"}
WIDTH, HEIGHT = 1000, 400  # pixels


@dataclass(frozen=True)
class Point:
    """One merge. The errors are standard errors over prompts."""

    count: int
    accuracy: float
    tokens: float
    think: float
    accuracy_error: float
    tokens_error: float
    think_error: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", type=Path, default=HERE / "sweep.jsonl")
    parser.add_argument("--staircase", type=Path, default=HERE / "staircase.jsonl")
    parser.add_argument("--picture", type=Path, default=HERE / "dial.png")
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.sweep.read_text().splitlines()]
    curves = {kind: curve_of(lines, kind) for kind in KINDS}
    print("\n".join(table(curves)))
    print()
    for kind, curve in curves.items():
        points = [CurvePoint(lam, point.think, point.count) for lam, point in curve.items()]
        print(f"- {NAMES[kind]}: {sentence(detect_stages(points))}")
    print()
    print("\n".join(seeds(lines)))
    print()
    print("\n".join(staircase([json.loads(line) for line in arguments.staircase.read_text().splitlines()])))
    draw(curves, arguments.picture)


def curve_of(lines: Sequence[Mapping[str, object]], kind: str, seed: int = 0) -> dict[float, Point]:
    """Returns the points of a rounding by lambda, ascending. Both ends serve every rounding."""
    found: dict[float, Point] = {}
    lams = {line["lambda"] for line in lines if (line["rounding"], line["seed"]) == (kind, seed)} | {0.0, 1.0}
    for lam in sorted(lams):  # type: ignore[type-var]
        wanted = "nearest" if lam in (0.0, 1.0) else kind
        own = [
            line
            for line in lines
            if (line["rounding"], line["lambda"], line["seed"]) == (wanted, lam, 0 if wanted != kind else seed)
        ]
        found[float(lam)] = point_of(own)  # type: ignore[arg-type]
    return found


def point_of(lines: Sequence[Mapping[str, object]]) -> Point:
    values = {key: [value for line in lines for value in line[key]] for key in ("correct", "tokens", "thinks")}  # type: ignore[attr-defined]
    means = {key: sum(each) / len(each) for key, each in values.items()}
    errors = {
        key: math.sqrt(sum((value - means[key]) ** 2 for value in each) / (len(each) - 1) / len(each))
        for key, each in values.items()
    }
    return Point(
        len(values["tokens"]),
        means["correct"],
        means["tokens"],
        means["thinks"],
        errors["correct"],
        errors["tokens"],
        errors["thinks"],
    )


def table(curves: Mapping[str, Mapping[float, Point]]) -> Iterator[str]:
    """Yields accuracy, tokens and Think ratio by lambda, as Markdown."""
    yield f"| lambda | prompts | {' | '.join(NAMES[kind] for kind in KINDS)} |"
    yield "|---|---|---|---|---|"
    for lam in sorted({lam for curve in curves.values() for lam in curve}):
        points = [curves[kind].get(lam) for kind in KINDS]
        count = max(point.count for point in points if point)
        yield f"| {lam:g} | {count} | {' | '.join(cell(point) for point in points)} |"


def cell(point: Point | None) -> str:
    return f"{point.accuracy:.3f} / {point.tokens:.1f} / {point.think:.2f}" if point else ""


def seeds(lines: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """Yields how far the seeds of dithered rounding lie apart, beside the sampling error, on the first 128 prompts."""
    first = [line for line in lines if line["chunk"] == 0 and line["rounding"] == "dithered"]
    numbers = sorted({int(line["seed"]) for line in first})  # type: ignore[call-overload]
    yield f"| lambda | {' | '.join(f'seed {seed}' for seed in numbers)} | sampling error |"
    yield "|" + "---|" * (len(numbers) + 2)
    lams = {line["lambda"] for line in first if line["seed"] == numbers[-1]} if len(numbers) > 1 else set()
    for lam in sorted(lams):  # type: ignore[type-var]
        points = [point_of([line for line in first if (line["lambda"], line["seed"]) == (lam, n)]) for n in numbers]
        one = points[0]
        error = f"{one.accuracy_error:.3f} / {one.tokens_error:.1f} / {one.think_error:.2f}"
        yield f"| {lam:g} | {' | '.join(map(cell, points))} | {error} |"


def staircase(lines: Sequence[Mapping[str, float | str]]) -> Iterator[str]:
    """Yields tokens and Think ratio of the bundled pair by bits and lambda; dithered is the range over seeds."""
    for bits in sorted({int(line["bits"]) for line in lines}):
        own = [line for line in lines if line["bits"] == bits]
        yield f"| {bits} bits: lambda | {' | '.join(KINDS)} |"
        yield "|---|---|---|---|"
        for lam in sorted({float(line["lambda"]) for line in own}):
            at = [line for line in own if line["lambda"] == lam]
            cells = [spread([line for line in at if line["rounding"] == kind]) for kind in KINDS]
            yield f"| {lam:g} | {' | '.join(cells)} |"
        yield ""


def spread(lines: Sequence[Mapping[str, float | str]]) -> str:
    if not lines:
        return ""
    parts = []
    for key, form in (("accuracy", ".3f"), ("mean_tokens", ".1f"), ("think_ratio", ".2f")):
        low, high = (function(float(line[key]) for line in lines) for function in (min, max))
        parts.append(f"{low:{form}}" if len(lines) == 1 else f"{low:{form}} to {high:{form}}")
    return " / ".join(parts)


def draw(curves: Mapping[str, Mapping[float, Point]], path: Path) -> None:
    """Draws Think ratio and mean tokens over lambda, with 95 % intervals."""
    figure = make_subplots(cols=2, subplot_titles=["Think ratio", "mean tokens per response"], horizontal_spacing=0.07)
    for kind in ("float32", "dithered", "nearest"):
        curve = curves[kind]
        for column, key in ((1, "think"), (2, "tokens")):
            figure.add_scatter(
                x=list(curve),
                y=[getattr(point, key) for point in curve.values()],
                error_y={
                    "array": [1.96 * getattr(point, f"{key}_error") for point in curve.values()],
                    "thickness": 1,
                    "width": 2,
                },
                name=NAMES[kind],
                mode="lines+markers",
                line={"color": COLOURS[kind], "dash": "dot" if kind == "float32" else "solid"},
                showlegend=column == 1,
                row=1,
                col=column,
            )
    figure.update_xaxes(title="lambda", range=[0.37, 0.63])  # nothing changes outside of it
    figure.update_layout(
        margin={"l": 40, "r": 10, "t": 60, "b": 45},
        legend={"orientation": "h", "y": 1.22, "x": 0},
    )
    save_png(figure, path, width=WIDTH, height=HEIGHT)


if __name__ == "__main__":
    main()
