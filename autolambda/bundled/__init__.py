"""The bundled pair, its base model and the splits of its task. ``studies/bundled_pair`` makes them."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent

LONGEST_MEAN = 84.0
"""Mean tokens per response of the pair's longest parent, Thinking, on its task: from here on a budget is no limit."""
