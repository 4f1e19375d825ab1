"""The command that puts swapped models right."""

from __future__ import annotations

import os

import pytest

from autolambda.cli.arguments import turned
from autolambda.errors import SwappedError


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["search", "b", "org/a", "--task", "my file.jsonl"], "autolambda search org/a b --task 'my file.jsonl'"),
        (["search", "--budget", "40", "./b", "org/a"], "autolambda search --budget 40 org/a ./b"),
        (["search", "--config", "own.yaml"], None),
    ],
)
def test_models_that_the_command_names_are_exchanged_in_it(words: list[str], command: str | None) -> None:
    error = SwappedError("swapped", instruct=os.path.abspath("b"), thinking="org/a", kept="a-swapped")
    said = str(turned(error, words))
    assert said.startswith("swapped.") and "study 'a-swapped'" in said and "models.allow_swapped=true" in said
    assert said.endswith(f" Run: {command}") if command else "THINKING is 'org/a': exchange them" in said
