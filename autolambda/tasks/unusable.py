"""What is said of rows that cannot be used: a note if they are few, else an error with every kind of problem.

Each kind is told by its first row in full, the number of such rows, and the places of the first three.
"""

from __future__ import annotations

from collections.abc import Sequence

from autolambda.errors import TaskError, one_line
from autolambda.tasks.config import SourceConfig, benchmark_of
from autolambda.tasks.rows import UnusableRow

NUM_NAMED = 3  # rows of a kind in a message
_MOST_KINDS = 5


def left_out(problems: Sequence[UnusableRow], source: SourceConfig, num_rows: int, name: str) -> list[str]:
    """Returns a note on the rows that are left out. Raises ``TaskError`` with all kinds if they are too many."""
    if not problems:
        return []
    share, num, kinds = source.unusable_share, len(problems), dict[str, list[UnusableRow]]()
    for problem in sorted(problems, key=lambda each: int(each.row.number)):
        kinds.setdefault(problem.kind, []).append(problem)
    told = [_told(of_kind) for of_kind in list(kinds.values())[:_MOST_KINDS]]
    if len(kinds) > _MOST_KINDS:
        told.append(f"and {len(kinds) - _MOST_KINDS} kinds more")
    if num <= share * num_rows and num < num_rows:
        return [f"{name}: {num} of {num_rows:,} rows cannot be used and are left out: {'; '.join(told)}"]
    known = benchmark_of(source.hub) if source.hub else None
    advice = f"; it is the benchmark {known}: take name: {known}" if known else ""
    if num_rows > 1:
        advice += f". {num:,} of {num_rows:,} rows cannot be used; at most {share:.0%} are left out (max_unusable)"
    raise TaskError(f"{problems[0].row.source}, {'; '.join(told)}{advice}")


def _told(problems: Sequence[UnusableRow]) -> str:
    """Returns the first of some rows with one problem in full, and the places of the first three."""
    first = problems[0]
    text = one_line(f"{first.row.place}: {first.kind}{first.detail}", limit=480)
    if len(problems) == 1:
        return text
    places = ", ".join(problem.row.place for problem in problems[:NUM_NAMED])
    dots = ", ..." if len(problems) > NUM_NAMED else ""
    return f"{text} ({len(problems):,} such rows: {places}{dots})"
