"""Tensors of a checkpoint that generation does not compute, so that no engine has a place for them.

They are merged in files and exports. An engine says how many there are. Any other tensor without a place is an error.
"""

from __future__ import annotations

from collections.abc import Sequence

from autolambda.errors import EngineError
from autolambda.merging.modules import is_uncomputed


def check_unplaced(names: Sequence[str], *, num_layers: int, model: str) -> None:
    """Raises ``EngineError`` of one line if a tensor without a place in ``model`` (a class) would be computed."""
    if lost := sorted(name for name in names if not is_uncomputed(name, num_layers=num_layers)):
        others = f" and for {len(lost) - 1} more tensors" if len(lost) > 1 else ""
        raise EngineError(
            f"{model} has no place for '{lost[0]}'{others} of the checkpoints, so it would not compute what they hold; "
            "use another engine.name, or checkpoints of a family that it knows"
        )


def in_words(names: Sequence[str]) -> str:
    """Returns what to add to an engine's description; empty if every tensor has a place."""
    if not names:
        return ""
    return f"; {len(names)} tensors are merged in files only, as no token depends on them (such as '{min(names)}')"
