"""Draws the pictures of this folder from the study `bundled`: its stages and front, and the paper's studies.

python studies/bundled/pictures.py [--storage URL]    in the folder where the study was run; needs chromium
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go

from autolambda import open_study
from autolambda.ablation import figure as ablation
from autolambda.report.figures import FIGURES

WIDTH = 1000  # pixels
TITLE_HEIGHT = 44


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default=None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    findings = open_study("bundled", storage=options.storage).findings
    search = [("Accuracy against tokens", FIGURES["front"](findings)), ("Stages", FIGURES["curve"](findings))]
    save(search, options.out / "search.png")
    save([(each.title, ablation.draw(each)) for each in findings.ablations], options.out / "ablations.png")


def save(figures: Sequence[tuple[str, go.Figure]], path: Path) -> None:
    """Writes figures with their titles, one below the other, as a browser shows them."""
    parts = [
        f"<h3>{title}</h3>" + figure.to_html(full_html=False, include_plotlyjs=number == 0, config={"staticPlot": True})
        for number, (title, figure) in enumerate(figures)
    ]
    style = f"body {{width: {WIDTH - 40}px; margin: 0 20px; font: 15px sans-serif}} h3 {{margin: 12px 0 0}}"
    height = sum(int(figure.layout.height) + TITLE_HEIGHT for _, figure in figures)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(f"<!doctype html><meta charset=utf-8><style>{style}</style>{''.join(parts)}", encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=8000"]
        size = f"--window-size={WIDTH},{height}"
        subprocess.run(["chromium", *options, size, f"--screenshot={path}", page.as_uri()], check=True)


if __name__ == "__main__":
    main()
