"""Draws the paper's Qwen3-4B table: accuracy against mean tokens, one panel for each benchmark.

python studies/paper/picture.py          # needs chromium; writes merges.png
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from plotly.subplots import make_subplots
from read import METHODS, NAMES, TABLE, Row, row_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from pictures import save_png

PICTURE = Path(__file__).with_name("merges.png")
WIDTH, HEIGHT = 1000, 380  # pixels
MERGE, PARENT, OTHER = "#1f77b4", "#111111", "#b0b0b0"
LABELLED = (0.2, 0.4, 0.5, 0.6, 0.8)  # the others lie between
PLACES = {  # of the labels, where they would cover one another
    ("ifeval", "lambda 0.8"): "top center",
    ("ifeval", "lambda 0.6"): "middle left",
    ("ifeval", "Thinking"): "middle right",
    ("ifeval", "lambda 0.5"): "top right",
    ("ifeval", "lambda 0.2"): "top right",
    ("ifeval", "Instruct"): "bottom center",
    ("gpqa_diamond", "lambda 0.8"): "top center",
    ("gpqa_diamond", "lambda 0.6"): "top right",
    ("gpqa_diamond", "lambda 0.5"): "top left",
    ("gpqa_diamond", "Instruct"): "middle right",
    ("gpqa_diamond", "Thinking"): "bottom center",
    ("aime25", "Instruct"): "bottom center",
    ("aime25", "Thinking"): "bottom center",
}


def main() -> None:
    with TABLE.open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    figure = make_subplots(cols=len(NAMES), subplot_titles=list(NAMES.values()), horizontal_spacing=0.06)
    for column, benchmark in enumerate(NAMES, start=1):
        rows = [row_of(plain) for plain in table if plain["benchmark"] == benchmark]
        others = [row for row in rows if row.name in METHODS.values()]
        parents = [row for row in rows if row.lam in (0.0, 1.0)]
        merges = [row for row in rows if row.lam not in (None, 0.0, 1.0)]
        line = [parents[0], *merges, parents[1]]
        where = {"row": 1, "col": column}
        shown = {"showlegend": column == 1}
        figure.add_scatter(
            **_points(line),
            mode="lines",
            line={"color": MERGE, "width": 1},
            showlegend=False,
            hoverinfo="skip",
            **where,
        )
        figure.add_scatter(
            **_points(merges),
            mode="markers+text",
            text=[f"{row.lam:g}" if row.lam in LABELLED else "" for row in merges],
            textposition=[PLACES.get((benchmark, row.name), "bottom right") for row in merges],
            marker={"color": MERGE, "size": 8},
            name="merge, with its lambda",
            **shown,
            **where,
        )
        figure.add_scatter(
            **_points(parents),
            mode="markers+text",
            text=[row.name for row in parents],
            textposition=[PLACES[benchmark, row.name] for row in parents],
            marker={"color": PARENT, "size": 10, "symbol": "diamond"},
            name="the two models",
            **shown,
            **where,
        )
        figure.add_scatter(
            **_points(others),
            mode="markers",
            marker={"color": OTHER, "size": 8, "symbol": "x"},
            name="task arithmetic, TIES",
            **shown,
            **where,
        )
        low, high = (100 * function(row.accuracy for row in line) for function in (min, max))
        figure.update_yaxes(range=[low - 6, high + 4], ticksuffix=" %", **where)
        tokens = [row.mean_tokens for row in line]
        room = 0.22 * (max(tokens) - min(tokens))
        figure.update_xaxes(
            title="mean tokens", tickformat=",", range=[min(tokens) - room, max(tokens) + room], **where
        )
    figure.update_layout(
        margin={"l": 45, "r": 10, "t": 70, "b": 45},
        legend={"orientation": "h", "y": 1.27, "x": 0},
    )
    save_png(figure, PICTURE, width=WIDTH, height=HEIGHT)


def _points(rows: list[Row]) -> dict[str, list[float]]:
    return {"x": [row.mean_tokens for row in rows], "y": [100 * row.accuracy for row in rows]}


if __name__ == "__main__":
    main()
