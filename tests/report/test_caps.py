"""What reports say of caps on thinking: in sentences, tables, JSON and CSV, and when a cap is to be used."""

from __future__ import annotations

import io
import json
from contextlib import closing
from dataclasses import replace

import pandas
import pytest
from small_search import NAME, capped, capped_storage, finished

from autolambda.report.cap.results import CapResult
from autolambda.report.figures import FIGURES
from autolambda.report.json_csv import report_csv, report_json, report_text
from autolambda.report.report import Report
from autolambda.report.sentences import verdict_sentences
from autolambda.report.snapshot import load_snapshot
from autolambda.statistics.estimates import Difference
from autolambda.statistics.verdict import Verdict
from autolambda.study.store import Store
from autolambda.study.trials import Study


def said(report: Report) -> str:
    return "\n".join(map(str, verdict_sentences(report)))


def cap_of(report: Report) -> CapResult:
    assert report.cap is not None
    return report.cap


def with_difference(cap: CapResult, value: float, reach: float) -> CapResult:
    """The cap as if its accuracy minus the pick's were this."""
    change = Difference(value, 0.01, value - reach, value + reach, value - reach, value + reach, 64)
    return replace(cap, difference=change)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-0.041, "the merge is 4.1 points more accurate (1.1 to 7.1)."),
        (0.05, "the merge is 5.0 points less accurate (2.0 to 8.0)."),
        (0.01, "the merge is as accurate within the error: -1.0 points (-4.0 to +2.0)."),
    ],
)
def test_the_rival_stands_beside_the_pick(value: float, words: str) -> None:
    report = capped()
    cap = with_difference(cap_of(report), value, 0.03)
    lines = said(replace(report, cap=cap)).splitlines()
    tokens, numbers = cap.capped.tokens, cap.result.score
    start = f"Thinking with its reasoning cut at {tokens} tokens: {100 * numbers.accuracy:.1f} % right at "
    (line,) = (line for line in lines if line.startswith(start))
    assert line == f"{start}{numbers.mean_tokens:.1f} tokens; {words}"
    assert (
        lines.index(line) > 0
        and f'each closed by "\\n</think>\\n\\n": {cap.forced_tokens:.1f} forced' in lines[lines.index(line) + 1]
    )


def test_a_cap_that_stays_far_longer_is_not_compared() -> None:
    report = capped()
    assert report.best is not None
    cap = cap_of(report)
    mean = 1.3 * report.best.score.mean_tokens
    measured = cap.result.measured
    long = replace(measured, mean_tokens=replace(measured.mean_tokens, value=mean))
    far = replace(cap, result=replace(cap.result, measured=long), capped=replace(cap.capped, tokens=1))
    (line,) = (line for line in said(replace(report, cap=far)).splitlines() if "reasoning cut" in line)
    right = f"{100 * measured.accuracy.value:.1f} % right at {mean:.1f} tokens"
    start = f"Thinking with its reasoning cut at 1 token: {right}"
    assert line == f"{start}; no cap brings it to the {report.best.score.mean_tokens:.1f} tokens of the merge."


def test_without_a_pick_it_stands_beside_the_nearest_merge() -> None:
    report = capped()
    nearest = replace(report, best=None, nearest=report.best, verdict=Verdict.INFEASIBLE)
    assert "the nearest merge is " in said(nearest)


def test_a_cap_on_a_merge_is_to_be_used_only_if_it_is_better() -> None:
    report = capped()
    merge = replace(with_difference(cap_of(report), 0.03, 0.01), result=report.confirmed[0])
    for is_better, words in ((True, "use this cap"), (False, "not shown to be better than the pick")):
        text = said(replace(report, capped_merge=replace(merge, is_better=is_better)))
        assert f"Trial {merge.result.trial} (" in text and text.count(words) == 1
        assert "3.0 points more accurate (2.0 to 4.0)" in text


def test_the_json_and_the_csv_have_it() -> None:
    report = capped()
    plain, cap = json.loads(report_json(report)), cap_of(report)
    assert plain["cap"] == cap.to_dict() and plain["cap"]["parent"] == "thinking" and plain["cap"]["confirmed"]
    assert json.loads(report_json(finished()))["cap"] is None
    rows = pandas.read_csv(io.StringIO(report_csv(report)))
    own = rows[rows["cap"].notna()]
    assert own["cap"].tolist() == [each.capped.tokens for each in (report.cap, report.capped_merge) if each]
    assert own["confirmed"].all() and not own["pick"].any() and own["accuracy"].iloc[0] == cap.result.score.accuracy
    assert rows["pick"].sum() == 2, "the pick itself, searched and confirmed"


def test_the_table_and_the_figure_have_it() -> None:
    report = capped()
    name = f"Thinking cut at {cap_of(report).capped.tokens}"
    assert name in report_text(report)
    assert name in report.beside and report.beside[name] is cap_of(report).result
    baseline = {"cut at 9 tokens": cap_of(report).result}
    assert next(iter(replace(report, baselines=baseline).beside)) == name, "told once"
    with closing(Store(capped_storage(), with_texts=False)) as store, closing(Study(store, name=NAME)) as study:
        snapshot = load_snapshot(store, study, budget=report.budget)
    (others,) = (trace for trace in FIGURES["front"](snapshot).data if trace.name == "other methods")
    assert any(name in text for text in others.hovertext)
