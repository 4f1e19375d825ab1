"""A study's pick through a server: kept and not kept, forms of prompts, refusals, resuming, and clear errors."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from completions import Completions, CompletionsHandler
from engine import FakeEngine
from local_server import served
from shared import made_once, shared_folder
from small_search import NAME, answer, database, small_config, storage_in, texts

from autolambda.config import Config
from autolambda.driver.events import Event, Generated
from autolambda.driver.followup.served import ROUNDS, check, check_limit
from autolambda.driver.job import open_job
from autolambda.driver.search import search
from autolambda.engines.base import Prompt, Sampling
from autolambda.engines.chat import ChatFormat
from autolambda.engines.served import client
from autolambda.errors import ConfigError, EngineError, StudyError
from autolambda.export.provenance import Provenance
from autolambda.export.served import served_section
from autolambda.merging.method import Method
from autolambda.optimizer.space import PARENTS
from autolambda.report.followup.served import Served, read_served
from autolambda.report.read import read_report
from autolambda.report.report import Report
from autolambda.responses import Response, Sample
from autolambda.schedule import Schedule
from autolambda.statistics.paired import Kept
from autolambda.study.store import Store
from autolambda.study.trials import Study
from autolambda.study_view import StudyView
from autolambda.tasks.base import Slice
from autolambda.tasks.requests import requests_on

BUDGET = 22.0


def steady(method: Method, prompt: Prompt, sampling: Sampling) -> Response:
    """The fake engine's response with one seed, so that a server with other seeds gives the same."""
    found: Response = FakeEngine()._made_up(method, Prompt(prompt.text, 0), sampling)
    return found


def engine_at(schedule: Schedule) -> FakeEngine:
    engine = FakeEngine(respond=steady)
    engine.set_merge(Method.linear(schedule))
    return engine


def config() -> Config:
    return small_config(budget=BUDGET, confirm__limit=200, search__max_tokens_generated=100_000)


@functools.cache
def studied() -> Report:
    """The report of a search with an engine that answers in the same way whatever the seed."""
    engine = FakeEngine(respond=steady)
    report: Report = made_once(
        "steady", lambda folder: search(config(), name=NAME, storage=storage_in(folder), engine=engine)
    )
    return report


@pytest.fixture
def storage(tmp_path: Path) -> str:
    studied()
    target = tmp_path / "study.db"
    source = storage_in(shared_folder() / "steady").removeprefix("sqlite:///")
    target.write_bytes(Path(source).read_bytes())
    return f"sqlite:///{target}"


@functools.cache
def chat() -> ChatFormat:
    return open_job(config()).models.chat


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Completions]:
    """A server of the pick, of another merge, and of both parents."""
    best = studied().best
    assert best is not None and best.parent is None
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.001)
    schedules = {"pick": best.schedule, "other": Schedule.uniform(0.9), **PARENTS}
    engines: dict[str, Any] = {name: engine_at(schedule) for name, schedule in schedules.items()}
    with ExitStack() as stack:
        yield stack.enter_context(served(Completions(engines, chat()), CompletionsHandler))


def run(storage: str, server: Completions, events: list[Event] | None = None, **more: Any) -> tuple[Served, ...]:
    on_event = (lambda event: None) if events is None else events.append
    settings = {"model": "pick", "budget": BUDGET, "concurrency": 8} | more
    return check(config(), server.url, name=NAME, storage=storage, on_event=on_event, **settings)


def test_the_same_model_is_kept_and_its_numbers_are_the_studys(storage: str, server: Completions) -> None:
    events: list[Event] = []
    (found,) = run(storage, server, events)
    assert found.kept is Kept.KEPT and found.measured == found.own
    best = studied().best
    assert best is not None and found.own.num_responses == best.measured.num_responses
    body = server.bodies[-1]
    assert body["model"] == "pick" and isinstance(body["prompt"], list) and body["top_k"] == 0
    assert body["skip_special_tokens"] is False and body["max_tokens"] == 64
    assert len({each["seed"] for each in server.bodies[1:]}) == found.measured.num_responses
    assert any(text.startswith("Forecast: ") for text in texts(events))
    assert found.check.server_tokens and found.check.date


def test_another_merge_is_not_kept_and_the_parents_are_checked_too(storage: str, server: Completions) -> None:
    pick, instruct, thinking = run(storage, server, model="other", parents=("instruct", "thinking"))
    assert pick.kept is Kept.NOT_KEPT and pick.change.tokens.low > 1.1
    assert [each.check.role for each in (instruct, thinking)] == ["instruct", "thinking"]
    assert instruct.measured.mean_tokens.value < pick.measured.mean_tokens.value
    report = read_report(NAME, storage, BUDGET)
    assert report.served == (pick, instruct, thinking)
    plain: Any = answer(report)["served"]
    assert [each["kept"] for each in plain] == [pick.kept, instruct.kept, thinking.kept]
    assert plain[0]["model"] == "other" and plain[0] == json.loads(json.dumps(pick.to_dict()))
    assert "Not kept (mean tokens)" in StudyView(NAME, storage, BUDGET).page


def test_a_checked_model_is_not_asked_again_unless_it_has_another_label(storage: str, server: Completions) -> None:
    first = run(storage, server)
    num_asked, before, events = len(server.bodies), database(storage), list[Event]()
    assert run(storage, server, events) == first and len(server.bodies) == num_asked
    assert database(storage) == before and any("--label" in text for text in texts(events))
    (again,) = run(storage, server, label="fp8")
    assert again.check.label == "fp8" and len(server.bodies) == 2 * num_asked
    assert len(read_report(NAME, storage, BUDGET).served) == 2


def test_a_server_that_ends_loses_no_stored_response(storage: str, server: Completions) -> None:
    server.dies_after = 40
    events: list[Event] = []
    with pytest.raises(EngineError, match=r"does not answer any more \(503: shutting down\); every stored response"):
        run(storage, server, events, concurrency=1)
    assert not read_report(NAME, storage, BUDGET).served
    kept = sum(event.num_responses for event in events if isinstance(event, Generated))
    assert kept >= 40 - ROUNDS - 1  # the first request was the probe
    server.dies_after, server.bodies[:] = None, []
    events.clear()
    (found,) = run(storage, server, events)
    assert found.kept is Kept.KEPT and len(server.bodies) == found.measured.num_responses - kept + 1
    (forecast,) = [text for text in texts(events) if text.startswith("Forecast: ")]
    assert f"; {kept} are stored from this address; name another way of serving with --label" in forecast


def test_a_smaller_limit_after_a_check_that_ended_compares_no_more_than_it(storage: str, server: Completions) -> None:
    server.dies_after = 40
    with pytest.raises(EngineError):
        run(storage, server, concurrency=1)
    server.dies_after, server.bodies[:] = None, []
    (few,) = run(storage, server, limit=20)
    assert not server.bodies and few.measured.num_responses == few.own.num_responses == 20
    assert read_report(NAME, storage, BUDGET).served == (few,) and "compared" not in few.to_dict()
    server.dies_after = 20  # a larger one ends too, and the smaller one is still the last whole one
    with pytest.raises(EngineError):
        run(storage, server, concurrency=1)
    assert read_report(NAME, storage, BUDGET).served == (few,)
    server.dies_after = None
    (whole,) = run(storage, server)
    assert whole.measured.num_responses > 60 and read_report(NAME, storage, BUDGET).served == (whole,)


@pytest.mark.parametrize(
    ("takes", "form"), [(("tokens", "text"), "tokens"), (("text",), "text"), (("messages",), "messages")]
)
def test_prompts_are_sent_as_the_server_takes_them(
    storage: str, server: Completions, takes: tuple[str, ...], form: str
) -> None:
    server.takes = takes
    (found,) = run(storage, server, limit=20)
    assert found.check.form == form and found.measured.num_responses == 20 and found.measured == found.own
    assert any("chat template" in sentence for sentence in found.sentences()) is (form == "messages")


def test_refused_parameters_are_left_out_and_told(storage: str, server: Completions) -> None:
    server.refuses = ("top_k", "repeat_penalty")
    events: list[Event] = []
    (found,) = run(storage, server, events, limit=20)
    assert found.check.left_out == ("top_k",) and "min_p" in server.bodies[-1]
    assert "the server refuses top_k: its responses are drawn without" in texts(events)


def test_a_server_that_counts_other_tokens_is_told(storage: str, server: Completions) -> None:
    server.counts_end = False
    (found,) = run(storage, server, limit=20)
    assert found.miscounts and any("do not compare" in sentence for sentence in found.sentences())


def test_a_limit_that_leaves_out_a_task_is_refused() -> None:
    samples = [Sample(str(number), ({"role": "user", "content": f"{number}?"},), "1", {}) for number in range(12)]
    parts = [Slice("large", "math", tuple(samples), 1), Slice("small", "math", tuple(samples[:2]), 1)]
    requests = requests_on([*parts, Slice("guard", "math", tuple(samples[:1]), 1, max_drop=0.1)])
    weights = {"large": 0.5, "small": 0.5, "guard": 0.0}
    with pytest.raises(ConfigError, match="--limit: at least 4, so that every task has a response, seen 3"):
        check_limit(3, requests, weights)
    check_limit(4, requests, weights)
    check_limit(None, requests, weights)


def test_a_check_that_lacks_a_task_leaves_the_study_readable(storage: str, server: Completions) -> None:
    (found,) = run(storage, server, limit=20)
    with closing(Store(storage)) as store, closing(Study(store, name=NAME)) as study:
        assert read_served(store, study, weights={"arithmetic": 1.0, "guard": 0.0}) == (found,)
        assert not read_served(store, study, weights={"arithmetic": 0.5, "other": 0.5})


def test_errors_name_what_is_wrong(storage: str, server: Completions, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--model: 'qwen' is not served there; served: 'pick', 'other'"):
        run(storage, server, model="qwen")
    with pytest.raises(ConfigError, match="--model: name the model; served: 'pick'"):
        run(storage, server, model=None)
    with pytest.raises(ConfigError, match="--parents: 'base' is not served there"):
        run(storage, server, parents=("base", "thinking"))
    with pytest.raises(StudyError, match="is not confirmed, so there is nothing to compare with"):
        unconfirmed = next(
            each for each in studied().trials if each.trial not in {e.trial for e in studied().confirmed}
        )
        run(storage, server, trial=unconfirmed.trial)
    with pytest.raises(ConfigError, match="--concurrency: a number above 0, seen 0"):
        run(storage, server, concurrency=0)
    server.key = "sk-secret-key"
    with pytest.raises(ConfigError, match=re.escape("wants an API key; set OPENAI_API_KEY (401)")):
        run(storage, server)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-key")
    with pytest.raises(ConfigError, match="refuses the API key in OPENAI_API_KEY") as refused:
        run(storage, server)
    assert "sk-" not in str(refused.value)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-key")
    (found,) = run(storage, server, limit=20)
    assert found.measured.num_responses == 20 and "sk-secret" not in str(database(storage))


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("http://127.0.0.1:9", "no server answers at 'http://127.0.0.1:9/v1'"),
        ("ftp://there", "an address such as http"),
        ("http://me:secret@there/v1", "without a password"),
        ("http://", "an address such as http"),
    ],
)
def test_an_address_without_a_server(storage: str, endpoint: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        check(config(), endpoint, name=NAME, storage=storage)
    assert "secret" not in str(refused.value)


def test_an_export_tells_of_a_check_without_its_address(storage: str, server: Completions) -> None:
    (found,) = run(storage, server, limit=20)
    assert server.url in json.dumps(found.to_dict()) and "127.0.0.1" not in json.dumps(found.for_others())
    measurement = Provenance.of(read_report(NAME, storage, BUDGET))
    card = "\n".join(served_section(measurement))
    assert f"| pick | {found.check.date} |" in card and "127.0.0.1" not in card and f"| {found.kept} |" in card
    assert measurement.to_dict()["served"] == [found.for_others()]
    assert not list(served_section(replace(measurement, served=())))
