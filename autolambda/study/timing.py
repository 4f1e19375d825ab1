"""The times of the engine's calls for each evaluation of a study, and the pace by which a search sizes its trials."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from autolambda.statistics.pace import CallTime, Pace
from autolambda.study.store import Kind
from autolambda.study.trials import Study
from autolambda.tasks.digest import digest


@dataclass(frozen=True)
class EngineTime:
    """The seconds of all finished calls of a study, and those in which they waited for their last responses."""

    seconds: float = 0.0
    idle_seconds: float = 0.0


def calls_of(study: Study, kind: Kind, key: str) -> list[CallTime]:
    """Returns the times of the engine's finished calls for an evaluation, in order."""
    return [CallTime.from_dict(plain) for plain in json.loads(study.kept(_name(kind, key)) or "[]")]


def add_call(study: Study, kind: Kind, key: str, call: CallTime) -> None:
    """Adds the time of a call."""
    calls = [*calls_of(study, kind, key), call]
    study.keep(_name(kind, key), json.dumps([each.to_dict() for each in calls]))
    before = engine_time(study)
    total = EngineTime(before.seconds + call.seconds, before.idle_seconds + call.idle_seconds)
    study.keep("engine time", json.dumps(asdict(total)))


def engine_time(study: Study) -> EngineTime:
    """Returns the time of all calls so far. Studies of earlier releases did not keep it."""
    return EngineTime(**json.loads(study.kept("engine time") or "{}"))


def pace_of(study: Study) -> Pace | None:
    """Returns the pace of the longest call of the first two trials, ``None`` if none shows one.

    These are the ends of the ladder. The pace does not change after them, so a resumed search decides the same.
    """
    calls = [call for trial in ("0", "1") for call in calls_of(study, "trial", trial) if call.pace]
    longest = max(calls, key=lambda call: call.seconds, default=None)
    return longest.pace if longest else None


def _name(kind: Kind, key: str) -> str:
    return f"calls {kind} {digest(key)}"
