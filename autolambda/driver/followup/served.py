"""Checks a study's pick, and its parents, where they are served: on the confirmation's prompts, beside the study.

The server is an engine of the evaluation: responses are graded and stored in the order of the prompts, and a failure
loses at most those of the batch that runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from autolambda.config import Config
from autolambda.driver.cost import rounded
from autolambda.driver.evaluation import EvaluationRequest
from autolambda.driver.events import EvaluationEnded, Noted, OnEvent, ignore
from autolambda.driver.run import Run
from autolambda.driver.search import running
from autolambda.engines.served.client import Server, look
from autolambda.engines.served.engine import ServedEngine
from autolambda.errors import ConfigError, StudyError
from autolambda.optimizer.space import PARENTS
from autolambda.report.followup.served import Check, Served, keep_check, known_check, own_responses, served_of
from autolambda.report.read import build_report, positive_budget
from autolambda.report.results import ScheduleResult
from autolambda.responses import Graded
from autolambda.statistics.metrics import mean_tokens, measure
from autolambda.tasks.requests import Request, requests_on

CONCURRENCY = 32  # requests at a time by default
TIMEOUT = 3600.0  # seconds of a request by default
ROUNDS = 4  # responses of a batch for each request at a time: few are lost, and the server is seldom idle


def check(
    config: Config,
    endpoint: str,
    *,
    name: str,
    storage: str,
    model: str | None = None,
    parents: tuple[str, str] | None = None,
    label: str | None = None,
    budget: float | None = None,
    trial: int | None = None,
    limit: int | None = None,
    concurrency: int = CONCURRENCY,
    timeout: float = TIMEOUT,
    on_event: OnEvent = ignore,
) -> tuple[Served, ...]:
    """Asks a server the confirmation's prompts, at most ``limit`` responses a model, ``concurrency`` at a time.

    ``model`` is the served name of the pick for ``budget``, or of the ``trial``; ``parents`` are those of Instruct and
    Thinking. ``label`` tells one way of serving a model from another. Raises ``ConfigError`` for a wrong address, model
    or key, ``StudyError`` without a confirmed pick, and ``EngineError`` if the server ends; a later call goes on.
    """
    if budget is not None:
        positive_budget(budget)
    for option, value in (("--limit", limit), ("--concurrency", concurrency), ("--timeout", timeout)):
        if value is not None and not value > 0:
            raise ConfigError(f"{option}: a number above 0, seen {value:g}")
    server = look(endpoint)
    names = {"pick": server.model(model)}
    for role, served in zip(PARENTS, parents or (), strict=False):
        names[role] = server.model(served, option="--parents")
    with running(config, name=name, storage=storage, engine=None, on_event=on_event) as run:
        pick = build_report(run.store, run.study, budget=budget).result(trial)
        checks = [_check(role, served, pick, server, label) for role, served in names.items()]
        own = {each.role: own_responses(run.store, run.study, each) for each in checks}
        for role, responses in own.items():
            if not responses:
                what = f"trial {pick.trial}" if role == "pick" else role.capitalize()
                raise StudyError(
                    f"study '{name}': {what} is not confirmed, so there is nothing to compare with; confirm it for a "
                    f"budget: autolambda confirm {name} --budget TOKENS"
                )
        on_event(Noted(f"server: {server.software}; a response may take {timeout:g} s"))
        for responses in own.values():
            check_limit(limit, requests_on(run.job.confirm)[: len(responses)], run.job.config.weights)
        checker = _Checker(run, server, limit, concurrency, timeout, on_event)
        on_event(Noted(checker.forecast(checks, own)))
        return tuple(
            checker.measure(each, own[each.role], (number / len(checks), 1 / len(checks)))
            for number, each in enumerate(checks)
        )


def check_limit(limit: int | None, requests: Sequence[Request], weights: Mapping[str, float]) -> None:
    """Raises ``ConfigError`` if the first ``limit`` requests lack a task with a weight, which the numbers need."""
    firsts: dict[str, int] = {}
    for number, request in enumerate(requests, start=1):
        firsts.setdefault(request.task, number)
    least = max((first for task, first in firsts.items() if weights.get(task)), default=1)
    if limit is not None and limit < least:
        raise ConfigError(f"--limit: at least {least}, so that every task has a response, seen {limit}")


def _check(role: str, served: str, pick: ScheduleResult, server: Server, label: str | None) -> Check:
    schedule, trial = (pick.schedule, pick.trial) if role == "pick" else (PARENTS[role], None)
    return Check(role, schedule, server.url, served, server.software, label, trial)


class _Checker:
    """Measures models of one server on the prompts of a study's confirmation."""

    def __init__(
        self, run: Run, server: Server, limit: int | None, concurrency: int, timeout: float, on_event: OnEvent
    ) -> None:
        self._run, self._server, self._limit = run, server, limit
        self._concurrency, self._timeout, self._on_event = concurrency, timeout, on_event
        size = ROUNDS * concurrency  # for the server, not for the study's own engine
        engine = run.job.config.engine.model_copy(update={"batch_size": size})
        job = replace(run.job, config=run.job.config.model_copy(update={"engine": engine}))
        self._evaluator = run.evaluator_on(job)

    def forecast(self, checks: Sequence[Check], own: Mapping[str, Sequence[Graded]]) -> str:
        """Returns the responses that are missing, and their tokens if the server keeps the study's lengths.

        Says how many are stored already: the server may be another one by now.
        """
        sizes = {each.role: self._size(own[each.role]) for each in checks}
        wanted = {each.key: requests_on(self._run.job.confirm)[: sizes[each.role]] for each in checks}
        num_missing = self._run.num_missing("served", wanted)
        missing = {each.role: num_missing[each.key] for each in checks}
        weights = self._run.job.config.weights
        tokens = sum(num * mean_tokens(own[role], weights=weights).value for role, num in missing.items())
        total = sum(missing.values())
        if not total:
            return "every response is stored already; to measure another way of serving, name it with --label"
        said = f"Forecast: {total:,} responses are missing, about {rounded(tokens)} tokens"
        if stored := sum(sizes.values()) - total:
            said += f"; {stored:,} are stored from this address; name another way of serving with --label"
        return said

    def measure(self, check: Check, own: list[Graded], progress: tuple[float, float]) -> Served:
        """Returns a check, with responses that were stored and new ones. Raises like ``Evaluator.run``."""
        run, check, size = self._run, known_check(self._run.study, check), self._size(own)
        chat = run.job.models.own_chats[check.role] if check.role in PARENTS else run.job.models.chat
        samples = [sample for part in run.job.confirm for sample in part.samples]
        engine = ServedEngine(
            self._server,
            check.model,
            chat,
            messages={chat.render(sample): sample.messages for sample in samples},
            concurrency=self._concurrency,
            timeout=self._timeout,
            on_note=lambda note: self._on_event(Noted(note)),
        )
        keep_check(run.study, check)
        title = f"served, {check.role}"
        request = EvaluationRequest(title, "served", check.key, check.schedule, "confirm", stop=size, chat=chat)
        done, share = progress
        request = replace(request, done=done, share=share, engine=lambda: engine)
        graded = self._evaluator.run(request)
        if engine.counted.num_responses:
            check = replace(check, **engine.found(), date=datetime.now(UTC).date().isoformat())
        check = replace(check, compared=tuple(each.key for each in graded))
        keep_check(run.study, check)
        found = served_of(check, graded, own, weights=run.job.config.weights)
        self._on_event(
            EvaluationEnded(title, "served", check.schedule, measure(graded, weights=run.job.config.weights))
        )
        return found

    def _size(self, own: Sequence[Graded]) -> int:
        return len(own) if self._limit is None else min(len(own), self._limit)
