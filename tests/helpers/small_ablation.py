"""Small ablations of the bundled pair through the real engine, for every test that needs some."""

from __future__ import annotations

import functools
from typing import Any

from shared import made_once, shared_folder
from small_search import small_config, storage_in

from autolambda.ablation.results import Ablation, Result
from autolambda.ablation.run import ablate
from autolambda.config import Config

NAME = "small"
ROWS: dict[str, Any] = {
    "lambdas": [0.0, 0.5, 1.0],
    "partial_lambda": 0.5,
    "decoding_lambdas": [0.5],
    "temperatures": [0.3],
    "top_ps": [0.7],
    "backbone_lambdas": [0.0, 1.0],
    "responses": 16,
}


def ablation_config(**changes: object) -> Config:
    """The config of ablations that take seconds; ``changes`` are dotted keys with ``__`` for the dot."""
    return small_config(**{"ablation": ROWS, **changes})


def ablated_storage() -> str:
    """The URL of the ablations' database, once ``ablated()`` was called."""
    return storage_in(shared_folder() / "ablated")


@functools.cache
def ablated() -> tuple[Ablation, ...]:
    """All studies, run to their end; the database is at ``ablated_storage()`` (do not write)."""
    ablations: tuple[Ablation, ...] = made_once(
        "ablated", lambda folder: ablate(ablation_config(), name=NAME, storage=storage_in(folder))
    )
    return ablations


def results(ablations: tuple[Ablation, ...] | None = None) -> dict[str, dict[str, Result]]:
    """Each study's results by their labels."""
    found = ablated() if ablations is None else ablations
    return {each.name: {result.label: result for result in each.results} for each in found}
