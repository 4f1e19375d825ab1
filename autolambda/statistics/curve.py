"""A Think-ratio curve and its reader for CSV files.

The Think ratio is the share of responses that close their thinking. The columns are
``lambda,think_ratio[,num_responses][,accuracy,mean_tokens]`` with shares from 0 to 1. Nothing is guessed: a value out
of range, such as a percentage, is an error with its line.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autolambda.coefficients import check
from autolambda.errors import InputError, in_short, one_line
from autolambda.files import open_text

MOST_ROWS = 10_000

OPTIONAL = ("num_responses", "accuracy", "mean_tokens")  # columns
COLUMNS = ("lambda", "think_ratio", *OPTIONAL)
DEFAULT_RESPONSES = 100.0  # assumed for a point without a count


@dataclass(frozen=True)
class CurvePoint:
    """A Think ratio (0 to 1) measured at ``lam``.

    ``num_responses`` is the effective number if responses are clustered. ``accuracy`` (0 to 1) and ``mean_tokens`` per
    response may be unknown. Raises ``InputError`` for a value out of range.
    """

    lam: float
    think_ratio: float
    num_responses: float | None = None
    accuracy: float | None = None
    mean_tokens: float | None = None

    def __post_init__(self) -> None:
        check(self.lam, "lambda")
        for what, share in (("a Think ratio", self.think_ratio), ("an accuracy", self.accuracy)):
            if share is not None and not 0 <= share <= 1:
                hint = "; it looks like percentages: divide by 100" if 1 < share <= 100 else ""
                raise InputError(f"{what} lies between 0 and 1, seen {share!r}{hint}")
        for what, number in (("a number of responses", self.num_responses), ("mean tokens", self.mean_tokens)):
            if number is not None and not 0 < number < math.inf:
                raise InputError(f"{what} must be above 0, seen {number!r}")


def read_curve(path: str | Path) -> list[CurvePoint]:
    """Returns the points of a CSV file with the columns lambda and think_ratio, and optionally those in ``OPTIONAL``.

    Raises ``InputError`` that names the file and the line.
    """
    points: list[CurvePoint] = []
    try:
        with open_text(Path(path), encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            missing = {"lambda", "think_ratio"} - set(rows.fieldnames or ())
            if missing:
                seen = one_line(", ".join(rows.fieldnames or ()), limit=60) or "an empty file"
                raise InputError(f"{path}: a curve needs the columns lambda and think_ratio, seen {seen}")
            if twice := [name for name in COLUMNS if (rows.fieldnames or []).count(name) > 1]:
                raise InputError(f"{path}: the column {twice[0]} occurs twice; remove one")
            for row in rows:
                points.append(_read_point(row, f"{path}, line {rows.line_num}"))
                if len(points) > MOST_ROWS:
                    raise InputError(f"{path}: a curve has at most {MOST_ROWS:,} rows; pool the rows of each lambda")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV file in UTF-8 ({one_line(error)})") from error
    if not points:
        raise InputError(f"{path}: a curve needs at least 2 rows under its header, seen none")
    return points


def _read_point(row: Mapping[str | None, str | list[str] | None], place: str) -> CurvePoint:
    if None in row:
        raise InputError(f"{place}: more cells than columns (is there a decimal comma?)")
    numbers: dict[str, float] = {}
    for column in COLUMNS:
        text = str(row.get(column) or "").strip()
        if text or column not in OPTIONAL:
            try:
                numbers[column] = float(text if "_" not in text else "")  # Python reads 1_0 as 10
            except ValueError:
                raise InputError(f"{place}: {column} must be a number, seen {in_short(text)}") from None
    try:
        return CurvePoint(
            numbers["lambda"], numbers["think_ratio"], **{name: numbers[name] for name in OPTIONAL if name in numbers}
        )
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
