"""The commands. Each parses its arguments, calls one function and prints.

A new one is a function in the file of its kind and its name here.
"""

from __future__ import annotations

import click

from autolambda.commands import measure, merge, search, study

COMMANDS: tuple[click.Command, ...] = (
    search.search,
    search.resume,
    search.confirm,
    study.list_studies,
    study.status,
    study.report,
    merge.export,
    merge.merge,
    merge.validate,
    measure.evaluate,
    measure.ablate,
    measure.stages,
)
