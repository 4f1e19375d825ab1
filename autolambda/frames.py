"""A study's responses as a pandas frame, for notebooks and whoever wants other numbers than the report's.

It only reads: a study may run meanwhile.
"""

from __future__ import annotations

import json
from typing import Any

import pandas

from autolambda.arguments import opened_store
from autolambda.store import Kind, StoredEvaluation

KINDS: tuple[Kind, ...] = ("trial", "confirm", "parent", "baseline")


def responses(name: str, *, storage: str | None = None) -> pandas.DataFrame:
    """All stored responses of a study, a row each, in the order in which they were stored within an evaluation.

    ``kind`` and ``key`` name the evaluation: a ``trial`` of that number answers the search slice; a ``confirm``ation,
    a ``parent`` as it is and a ``baseline`` answer prompts that the search never saw. ``lambda`` is missing where the
    schedule is not uniform. ``num_tokens`` counts the end token, and is a lower bound where ``finish_reason`` is not
    ``stop``. ``storage`` is a database URL, the study's own by default. Raises ``StudyError`` where there is none.
    """
    with opened_store(name, storage) as store:
        evaluations = [each for kind in KINDS for each in store.evaluations(name, kind=kind)]
        rows = [
            {
                **_of_evaluation(evaluation),
                "task": graded.task,
                "sample_id": graded.sample_id,
                "repeat": graded.repeat,
                "grade": graded.grade.value,
                "answer": graded.answer,
                "thought": graded.thought,
                "num_tokens": graded.response.num_tokens,
                "finish_reason": graded.response.finish_reason,
                "text": graded.response.text,
            }
            for evaluation in evaluations
            for graded in store.graded(evaluation)
        ]
    return pandas.DataFrame(rows, columns=[*COLUMNS]).astype(COLUMNS)


COLUMNS: dict[str, Any] = {
    "kind": "str",
    "key": "str",
    "schedule": "str",
    "lambda": "float64",
    "task": "str",
    "sample_id": "str",
    "repeat": "int64",
    "grade": "str",
    "answer": "str",
    "thought": "bool",
    "num_tokens": "int64",
    "finish_reason": "str",
    "text": "str",
}


def _of_evaluation(evaluation: StoredEvaluation) -> dict[str, object]:
    return {
        "kind": evaluation.kind,
        "key": evaluation.key,
        "schedule": json.dumps(evaluation.schedule.to_dict()),
        "lambda": evaluation.schedule.lam,
    }
