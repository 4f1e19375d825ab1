"""The slices of a config, as a job opens them."""

from __future__ import annotations

from autolambda.config import Config
from autolambda.tasks.slices import Slices, open_slices


def slices_of(config: Config) -> Slices:
    return open_slices(config.tasks, config.confirm_size, seed=config.search.seed)
