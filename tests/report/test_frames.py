"""A study's responses as a frame: all of them, with the types that pandas users expect, and the report's numbers."""

import pandas
import pytest
from small_search import NAME, finished, finished_storage, storage_in

from autolambda.errors import StudyError
from autolambda.report.dataframes import COLUMNS, responses


@pytest.fixture(scope="module")
def frame():
    finished()
    return responses(NAME, storage=finished_storage())


def test_every_response_is_a_row_with_the_types_that_were_promised(frame):
    assert list(frame.columns) == list(COLUMNS)
    assert frame.num_tokens.sum() == finished().tokens_generated
    assert set(frame.kind) == {"trial", "confirm", "parent"}
    assert not frame.duplicated(["kind", "key", "task", "sample_id", "repeat"]).any()
    assert frame.num_tokens.dtype == "int64" and frame.thought.dtype == "bool"


def test_the_reports_numbers_come_out_of_it(frame):
    result = finished().confirmed[0]
    numbers = [set(group.key) for _, group in frame[frame.kind == "confirm"].groupby("schedule")]
    assert all(len(keys) == 1 for keys in numbers)
    confirmed = frame[(frame.kind == "confirm") & (frame.key == result.schedule.key)]
    assert (confirmed.grade == "correct").mean() == pytest.approx(result.measured.accuracy.value)
    assert confirmed.num_tokens.mean() == pytest.approx(result.measured.mean_tokens.value)


def test_what_is_missing_is_missing_and_not_a_word(frame):
    unparsed = frame[frame.grade == "unparsed"]
    assert unparsed.answer.isna().all()
    assert frame[frame["lambda"].notna()]["lambda"].between(0, 1).all()
    assert pandas.isna(frame["lambda"]).any() == any(result.schedule.lam is None for result in finished().trials)


def test_a_study_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(StudyError, match="no study database"):
        responses(NAME, storage=storage_in(tmp_path))
