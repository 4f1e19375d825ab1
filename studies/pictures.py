"""Saves a plotly figure as a PNG, drawn by chromium."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any


def save_png(figure: Any, path: Path, *, width: int, height: int) -> None:
    """Writes ``figure`` as a picture of ``width`` x ``height`` pixels. Needs chromium."""
    figure.update_layout(width=width - 10, height=height - 10, template="plotly_white")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(figure.to_html(include_plotlyjs=True, config={"staticPlot": True}), encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=8000"]
        size = f"--window-size={width},{height}"
        subprocess.run(["chromium", *options, size, f"--screenshot={path}", page.as_uri()], check=True)
