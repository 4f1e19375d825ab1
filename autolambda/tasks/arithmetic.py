"""The bundled task: left-to-right arithmetic modulo 10, on which the bundled pair was trained.

Its search, confirm and test rows are disjoint, and no model was trained on them. studies/bundled_pair/ makes them.
"""

from __future__ import annotations

import json

from autolambda.bundled import FOLDER
from autolambda.responses import Sample
from autolambda.tasks.base import Phase


def read_samples(phase: Phase) -> list[Sample]:
    """Returns the prompts of a phase, with 2 to 6 operators (the difficulty) in equal shares."""
    rows = map(json.loads, (FOLDER / f"{phase}.jsonl").read_text(encoding="utf-8").splitlines())
    return [
        Sample(
            row["id"], ({"role": "user", "content": row["question"]},), row["answer"], {"difficulty": row["difficulty"]}
        )
        for row in rows
    ]
