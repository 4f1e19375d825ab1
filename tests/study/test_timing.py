"""The times of calls in a study's database: each evaluation's own, their total, and the pace of the ladder's ends."""

from contextlib import closing
from pathlib import Path

from autolambda.statistics.pace import CallTime, Pace
from autolambda.study.database import open_database
from autolambda.study.store import Store
from autolambda.study.timing import EngineTime, add_call, calls_of, engine_time, pace_of
from autolambda.study.trials import Study

FAST, SLOW = Pace(6e-3, 3e-5, 4.0), Pace(7e-3, 3e-5, 4.0)


def test_times_are_kept_by_evaluation_and_both_ends_give_the_pace(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    calls = [CallTime(8, 80, 1.0, 0.25), CallTime(64, 6400, 8.0, 2.0, FAST), CallTime(64, 6400, 9.0, 2.5, SLOW)]
    short = CallTime(64, 640, 2.0, 0.5, SLOW)
    with closing(Store(open_database(url))) as store, closing(Study(store, name="one")) as study:
        assert (calls_of(study, "trial", "0"), engine_time(study), pace_of(study)) == ([], EngineTime(), None)
        for call in calls[:2]:
            add_call(study, "trial", "0", call)
        add_call(study, "confirm", "0", calls[2])
        add_call(study, "trial", "1", short)
        add_call(study, "trial", "2", calls[2])  # after the ends of the ladder
    with closing(Store(open_database(url))) as store, closing(Study(store, name="one")) as study:
        assert calls_of(study, "trial", "0") == calls[:2]
        assert calls_of(study, "confirm", "0") == calls[2:]
        assert engine_time(study) == EngineTime(29.0, 7.75)
        assert pace_of(study) == FAST
