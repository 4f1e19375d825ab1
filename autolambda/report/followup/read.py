"""Reads what a study measured after its answer: the pick on other tasks, and models as servers serve them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autolambda.report.followup.served import Served, read_served
from autolambda.report.followup.transfer import Transfer, read_transfers
from autolambda.statistics.stages import Stages
from autolambda.study.store import Store
from autolambda.study.trials import Study


@dataclass(frozen=True)
class Followups:
    """Picks on other tasks (``transfers``), and models as servers serve them (``served``), oldest first."""

    transfers: tuple[Transfer, ...]
    served: tuple[Served, ...]


def read_followups(store: Store, study: Study, stages: Stages, *, weights: Mapping[str, float]) -> Followups:
    """Returns what is complete. ``stages`` are those of the study's own prompts, ``weights`` those of its tasks."""
    own = stages.emergence
    return Followups(read_transfers(store, study, own=own), read_served(store, study, weights=weights))
