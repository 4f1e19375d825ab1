"""Prompts with names in braces.

``{question}`` and ``{COLUMN}`` are filled in, and ``{{word}}`` gives ``{word}``. The arguments of LaTeX commands, as in
``\\frac{a}{b}`` and ``x^{n}``, stay, and so do braces around anything but a word, as in ``{"json": 1}``. Any other name
is an error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping

from autolambda.errors import TaskError, one_line
from autolambda.tasks.rows import Row, is_empty

OWN_NAMES = ("question", "choices", "letters")  # filled in inside LaTeX too

_WORD = re.compile(r"[^\W\d][\w.-]*")
_WORDS = re.compile(r"[\w .-]+")
_LATEX = re.compile(r"(?:\\(?![nt]\{)[A-Za-z]+\*?|[\^_])(?:\[[^\][{}]*\])?(?:\{[^{}]*\})+")
_FORMAT = re.compile(r"\s*([^!:\[\]]+?)\s*(?:![rsa](?::.*)?|:\S+|\[[^\]]+\])")
_BRACES = re.compile(r"\{\{\{([^{}]*)\}\}\}|\{\{([^{}]*)\}\}|\{([^{}]*)\}")


def filled_in(prompt: str, values: Mapping[str, str]) -> str:
    """Returns the template with ``{name}`` replaced by each value, and ``{{word}}`` by ``{word}``."""

    def replaced(match: re.Match[str]) -> str:
        inner, doubled, name = match.groups()
        if inner in values:
            return f"{{{values[inner]}}}"
        if doubled is not None and (doubled in values or _WORD.fullmatch(doubled.strip())):
            return f"{{{doubled}}}"
        return values.get(name, match[0])

    def in_latex(match: re.Match[str]) -> str:
        return re.sub(r"\{(\w+)\}", lambda each: values[each[1]] if each[1] in own else each[0], match[0])

    own = {name for name in OWN_NAMES if name in values}
    pieces, end = [], 0
    for latex in _LATEX.finditer(prompt):
        pieces += [_BRACES.sub(replaced, prompt[end : latex.start()]), in_latex(latex)]
        end = latex.end()
    return "".join([*pieces, _BRACES.sub(replaced, prompt[end:])])


def names_of(prompt: str) -> list[str]:
    """Returns the names in single braces that may be columns, once each; inside LaTeX only the task's own names."""
    inside = [name for latex in _LATEX.findall(prompt) for name in re.findall(r"\{(\w+)\}", latex) if name in OWN_NAMES]
    found = [inner or name for inner, _, name in _BRACES.findall(_LATEX.sub(" ", prompt))]
    return list(dict.fromkeys([*inside, *filter(str.strip, found)]))


def columns_in(prompt: str, columns: Collection[str], *, own: Collection[str], answer: str) -> list[str]:
    """Returns the columns that a prompt names, apart from the task's ``own`` names.

    Raises ``TaskError`` for a name that is none of the ``columns``, with the nearest, and for the ``answer`` column.
    """
    wanted = []
    for name in names_of(prompt):
        if name in own:
            continue
        if name == answer:
            raise TaskError(f"prompt: {{{name}}} would show the answer to the model; double the braces to keep them")
        if name in columns or ("." in name and name.partition(".")[0] in columns):
            wanted.append(name)
            continue
        nearest = _WORDS.fullmatch(name) and difflib.get_close_matches(
            name.strip().casefold(), [each.casefold() for each in columns], 1, 0.8
        )
        if nearest or _WORD.fullmatch(name.strip()):
            meant = next((each for each in columns if nearest and each.casefold() == nearest[0]), None)
            hint = f"did you mean {{{meant}}}? " if meant else ""
            known = one_line(", ".join(dict.fromkeys([*own, *columns])))
            raise TaskError(
                f"prompt: {{{name[:60]}}} is no column; {hint}known: {known}; "
                f"for these braces themselves write {{{{{name[:60].strip()}}}}}"
            )
    return wanted


def latex_columns(prompt: str, columns: Collection[str]) -> list[str]:
    """Returns the columns that are named inside LaTeX, where nothing but the task's own names is filled in."""
    names = [name for latex in _LATEX.findall(prompt) for name in re.findall(r"\{([^{}]+)\}", latex)]
    return [name for name in dict.fromkeys(names) if name in columns and name not in OWN_NAMES]


def doubled_columns(prompt: str, columns: Collection[str], *, answer: str) -> list[str]:
    """Returns the columns in double braces, which may be meant to be filled in, apart from the ``answer`` column."""
    names = [doubled.strip() for _, doubled, _ in _BRACES.findall(_LATEX.sub(" ", prompt))]
    return [name for name in dict.fromkeys(names) if name in columns and name != answer]


def formatted_columns(prompt: str, columns: Collection[str]) -> list[str]:
    """Returns what stands in braces as a column with a format of Python, as ``Body!r`` or ``Body:>9``: it stays."""
    names = [name for *_, name in _BRACES.findall(_LATEX.sub(" ", prompt))]
    found = [name for name in names if (format := _FORMAT.fullmatch(name)) and format[1] in columns]
    return [name for name in dict.fromkeys(found) if name not in columns]


def others(row: Row, columns: Iterable[str]) -> dict[str, str]:
    """Returns the texts of the columns that a prompt names; an empty cell is an empty text."""
    cells = {name: row.cell(name) for name in columns}
    return {name: "" if is_empty(cell) else row.as_text(cell, repr(name)) for name, cell in cells.items()}
