"""The bundled pair, its base model and the splits of its task. ``studies/bundled_pair`` makes them."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
