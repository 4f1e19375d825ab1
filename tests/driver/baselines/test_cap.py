"""Thinking with a cap, in a search on the bundled pair: what is measured, what it costs, and that it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from engine import no_engine
from small_search import NAME, answer, capped, capped_config, capped_storage, database, storage_in, texts, without_caps

from autolambda.config import Config
from autolambda.driver.baselines import cap
from autolambda.driver.baselines.all import check_baselines
from autolambda.driver.engine import open_engine
from autolambda.driver.events import Event, Generated
from autolambda.driver.job import open_job
from autolambda.driver.search import confirm, search
from autolambda.engines.base import Fingerprint, Prompt, Sampling, Watch
from autolambda.engines.closing import Closing
from autolambda.errors import ConfigError
from autolambda.merging.method import Method
from autolambda.report.read import read_report
from autolambda.report.report import Report
from autolambda.responses import Capped, Response
from autolambda.statistics.metrics import measure
from autolambda.study.store import Store


@pytest.fixture(scope="module")
def report() -> Report:
    return capped()


@pytest.fixture(scope="module")
def storage(report: Report) -> str:
    return capped_storage()


def test_thinking_is_measured_at_the_tokens_of_the_pick(report: Report) -> None:
    assert report.best is not None and report.cap is not None
    cap, aim = report.cap, report.best.score.mean_tokens
    assert cap.result.parent == "thinking" and cap.result.confirmed and cap.capped.phase == "confirm"
    assert 0.8 * aim < cap.result.score.mean_tokens < 1.2 * aim, "on prompts that did not choose the cap"
    thinking = report.parents["thinking"]
    assert thinking is not None and cap.result.score.accuracy < thinking.score.accuracy
    assert cap.difference.low <= cap.difference.value <= cap.difference.high
    assert cap.difference.value == pytest.approx(cap.result.score.accuracy - report.best.score.accuracy)


def test_only_what_the_cap_changes_is_stored_and_counted(report: Report, storage: str) -> None:
    rows = database(storage)
    kinds = {row[0]: (row[1], row[2]) for row in rows["evaluations"]}
    whole = sum(row[5] for row in rows["responses"] if kinds[row[0]][0] != "cap")
    new = 0
    for row in rows["responses"]:
        kind, key = kinds[row[0]]
        if kind == "cap":
            capped = Capped.from_key(key)
            assert row[5] >= capped.tokens + capped.num_forced
            new += row[5] - capped.tokens - capped.num_forced
    assert report.tokens_generated == whole + new and 0 < new < 0.1 * whole


def test_an_uncut_response_is_the_stored_one_and_a_cut_one_begins_like_it(report: Report, storage: str) -> None:
    assert report.cap is not None
    capped = report.cap.capped
    with closing(Store(storage)) as store:
        (cut,) = (each for each in store.evaluations(NAME, kind="cap") if each.key == capped.key)
        (parent,) = store.evaluations(NAME, kind="parent", key="thinking")
        whole = {each.key: each for each in store.graded(parent)}
        rows = store.graded(cut)
    assert len(rows) == report.cap.num_cut and report.cap.forced_tokens == pytest.approx(
        capped.num_forced * len(rows) / capped.num_responses
    )
    for each in rows:
        thought, closing_text, _ = each.response.text.partition(capped.closing)
        assert closing_text and each.thought and whole[each.key].response.text.startswith(thought)
        assert len(thought) <= capped.tokens < whole[each.key].response.num_tokens


def test_a_report_says_it_in_every_form(report: Report) -> None:
    plain = answer(report)
    cap = plain["cap"]
    assert isinstance(cap, dict) and report.cap is not None
    assert cap["tokens"] == report.cap.capped.tokens and cap["closing"] == "\n</think>\n\n"
    assert set(cap) >= {"forced_tokens", "cut_ratio", "accuracy", "mean_tokens", "accuracy_difference_low", "is_better"}


def test_the_same_search_generates_nothing_again(report: Report, storage: str) -> None:
    assert answer(search(capped_config(), name=NAME, storage=storage, engine=no_engine())) == answer(report)


class Dying:
    """The engine of a job until its call ``dies_at`` for prompts that already hold a closing, which fails."""

    def __init__(self, config: Config, dies_at: int) -> None:
        self._engine, self._left = open_engine(open_job(config)), dies_at
        self.streams, self.in_words = self._engine.streams, self._engine.in_words
        self.asked: list[str] = []

    def set_merge(self, method: Method) -> None:
        self._engine.set_merge(method)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        if all("</think>" in prompt.text for prompt in prompts):
            if self._left == 0:
                raise KeyboardInterrupt
            self._left -= 1
            self.asked += [f"{prompt.seed} {prompt.text}" for prompt in prompts]
        return self._engine.generate(prompts, sampling, watch=watch)

    def fingerprint(self) -> Fingerprint:
        return self._engine.fingerprint()

    def close(self) -> None:
        self._engine.close()


@pytest.mark.parametrize("dies_at", [0, 1, 2, 3])
def test_killed_in_its_midst_it_goes_on_and_asks_nothing_twice(
    report: Report, storage: str, tmp_path: Path, dies_at: int
) -> None:
    """A study of an earlier release gets its cap in the same way."""
    where, asked, events = without_caps(storage_in(tmp_path)), list[str](), list[Event]()
    before = read_report(NAME, where, None)
    assert before.cap is None and before.capped_merge is None and before.verdict is report.verdict
    for left in (dies_at, -1):
        with closing(Dying(capped_config(), left)) as engine:
            try:
                again = search(capped_config(), name=NAME, storage=where, engine=engine, on_event=events.append)
            except KeyboardInterrupt:
                assert left >= 0
            asked += engine.asked
    assert len(asked) == len(set(asked)) > 0 and answer(again) == answer(report)
    told = sum(event.num_tokens for event in events if isinstance(event, Generated))
    assert told == report.tokens_generated - before.tokens_generated, "only answers are generated"
    assert [row[1:] for row in database(where)["responses"]] == [row[1:] for row in database(storage)["responses"]]


def test_without_the_key_nothing_is_cut_and_the_old_baseline_asks_for_it(
    report: Report, storage: str, tmp_path: Path
) -> None:
    where = without_caps(storage_in(tmp_path))
    off = capped_config(cap__measure=False)
    assert search(off, name=NAME, storage=where, engine=no_engine()).cap is None
    found = search(capped_config(cap__measure=False, search__baselines=["cut"]), name=NAME, storage=where)
    assert report.cap is not None and found.cap == report.cap
    assert found.baselines == {f"cut at {report.cap.capped.tokens} tokens": report.cap.result}


def test_another_budget_gets_a_cap_of_its_own(report: Report, storage: str, tmp_path: Path) -> None:
    where = without_caps(storage_in(tmp_path))
    found = confirm(capped_config(), name=NAME, storage=where, budget=80.0)
    assert found.cap is not None and report.cap is not None and found.cap.capped.tokens > report.cap.capped.tokens


def test_another_closing_is_measured_anew(report: Report, tmp_path: Path) -> None:
    where = without_caps(storage_in(tmp_path))
    found = search(capped_config(cap__closing="</think>"), name=NAME, storage=where)
    assert found.cap is not None and found.cap.capped.closing == "</think>" and found.cap.capped.num_forced == 1
    assert search(capped_config(), name=NAME, storage=where).cap == report.cap


def test_what_does_not_fit_is_said(storage: str, tmp_path: Path) -> None:
    where, events = without_caps(storage_in(tmp_path)), list[Event]()
    config = capped_config(search__max_tokens_generated=4000)
    assert search(config, name=NAME, storage=where, engine=no_engine(), on_event=events.append).cap is None
    assert any(text == cap.UNFIT for text in texts(events))


def test_a_closing_without_the_tag_is_refused_before_anything_is_generated() -> None:
    with pytest.raises(ConfigError, match=r"cap\.closing: 'Enough\.' does not hold </think>"):
        check_baselines(open_job(capped_config(cap__closing="Enough.")))


def test_of_two_closings_the_one_that_answers_more_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tokenizer of a small pair knows the general phrase, so two texts in its own characters stand for the two."""
    texts_ = ("\nwait</think>\n\n9", "\n</think>\n\n")
    monkeypatch.setattr(cap, "closings_of", lambda *_, **__: [Closing(text, len(text) - 7) for text in texts_])
    found = search(capped_config(), name=NAME, storage=(where := without_caps(storage_in(tmp_path))))
    assert found.cap is not None
    accuracies: dict[str, list[float]] = {text: [] for text in texts_}
    with closing(Store(where)) as store:
        for each in store.evaluations(NAME, kind="cap"):
            capped_ = Capped.from_key(each.key)
            if (capped_.of, capped_.phase) == ("thinking", "search"):
                accuracies[capped_.closing].append(measure(store.graded(each)).accuracy.value)
    assert all(accuracies.values())
    assert max(accuracies[found.cap.capped.closing]) == max(max(each) for each in accuracies.values())
