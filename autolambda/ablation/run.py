"""Measures the missing rows of the paper's studies, on the prompts and with the seeds of the confirmation.

Rows with other backbones or methods come last, one engine at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby

from autolambda.ablation.results import Ablation, read_ablations
from autolambda.ablation.rows import AblationRow, name_of, references_of, rows_of
from autolambda.config import ABLATIONS, AblationName, Config
from autolambda.driver.baselines.merges import baseline_method
from autolambda.driver.engine import open_engine
from autolambda.driver.evaluation import EvaluationRequest
from autolambda.driver.events import EvaluationEnded, Noted, OnEvent, ignore
from autolambda.driver.job import Job
from autolambda.driver.models import base_folder
from autolambda.driver.run import Run
from autolambda.driver.search import running
from autolambda.engines.base import Engine
from autolambda.errors import AutolambdaError, ConfigError, PairError
from autolambda.merging.method import AROUND_BASE, METHOD_TITLES
from autolambda.merging.pair import Pair, open_pair
from autolambda.statistics.metrics import measure
from autolambda.study.reader import open_for_reading
from autolambda.tasks.requests import requests_on

OpenEngine = Callable[[], Engine]


def ablate(
    config: Config,
    *,
    name: str,
    storage: str,
    only: Sequence[AblationName] = ABLATIONS,
    engine: Engine | None = None,
    on_event: OnEvent = ignore,
) -> tuple[Ablation, ...]:
    """Runs or resumes the paper's studies on the pair, in the study ``name``. Its search is not affected.

    Raises like ``search``.
    """
    with running(config, name=name, storage=storage, engine=engine, on_event=on_event) as run:
        measure_ablations(run, only, on_event)
    with open_for_reading(name, storage, with_texts=False) as reader:
        return read_ablations(reader, only=only)


def _size(job: Job) -> int:
    """Returns the responses of a row: as configured, else as many as the tasks' own repeats give."""
    whole = sum(part.num_responses for part in job.confirm)
    sources = [(part, task.confirm_on or task) for part, task in zip(job.confirm, job.config.tasks, strict=True)]
    usual = sum(len(part.samples) * (job.config.confirm.repeats or source.own_repeats) for part, source in sources)
    return min(job.config.ablation.responses or usual, whole)


def measure_ablations(run: Run, only: Sequence[AblationName], on_event: OnEvent) -> None:
    """Measures the rows of these studies that are not complete in the database. Raises as ``Evaluator.run`` does."""
    planned, pairs = _plan(run.job, only, on_event)
    size = _size(run.job)
    wanted = requests_on(run.job.confirm)[:size]
    num_missing = run.num_missing("ablation", {row.key: wanted for row in planned})
    missing = [row for row in planned if num_missing[row.key]]
    if missing:
        on_event(Noted(f"ablations: {len(missing)} of {len(planned)} rows to measure, {size:,} responses each"))
    number = 0
    for (backbone, method), rows in groupby(missing, key=lambda row: (row.backbone, row.method)):
        with _backbone_engine(run, pairs.get(backbone or "")) as engine:
            for row in rows:
                progress, number = (number / len(missing), 1 / len(missing)), number + 1
                try:
                    _measure(run, row, size, engine, on_event, progress)
                except (PairError, ConfigError) as error:
                    if method is None:
                        raise
                    on_event(Noted(f"{METHOD_TITLES[method]} is left out: {_in_a_line(error)}"))


def _plan(job: Job, only: Sequence[AblationName], on_event: OnEvent) -> tuple[list[AblationRow], Mapping[str, Pair]]:
    """All rows, references first, grouped by engine, and the backbones' pairs. Raises ``ConfigError`` without rows."""
    config = job.config.ablation
    pairs = dict(_backbones(job, on_event)) if "backbones" in only else {}
    rows: list[AblationRow] = []
    for name in only:
        found = rows_of(name, config, num_layers=job.models.pair.num_layers, backbones=list(pairs))
        if name == "methods" and base_folder(job.config.models) is None:
            found = [row for row in found if row.method not in AROUND_BASE]
            on_event(
                Noted(
                    "methods: task arithmetic and TIES are left out; give models.base, the base model of both parents"
                )
            )
        rows += [replace(row, weights=pairs[row.backbone].instruct.digest()) if row.backbone else row for row in found]
    if not rows:
        raise ConfigError(f"nothing to measure for {', '.join(only)}: give models.base, or ablation.backbones")
    ordered = sorted([*references_of(rows), *rows], key=lambda row: (row.backbone or "", row.method or ""))
    return list(dict.fromkeys(ordered)), pairs


def _backbones(job: Job, on_event: OnEvent) -> Iterator[tuple[str, Pair]]:
    """Yields each backbone, paired with the Thinking model. Sends a note for each one that cannot be merged."""
    base = base_folder(job.config.models)
    sources = job.config.ablation.backbones or ((base,) if base else ())
    if not sources:
        on_event(Noted("backbones are left out; give models.base or ablation.backbones"))
    for source in sources:
        try:
            study = job.models.pair
            pair = open_pair(source, study.thinking, across_configs=True, rounding=study.rounding, vision=study.vision)
        except PairError as error:
            on_event(Noted(f"backbone {name_of(source)} is left out: {_in_a_line(error)}"))
            continue
        for warning in pair.warnings:
            on_event(Noted(f"backbone {name_of(source)}: {warning}"))
        yield source, pair


@contextmanager
def _backbone_engine(run: Run, pair: Pair | None) -> Iterator[OpenEngine | None]:
    """Opens the engine of a backbone in this process, because workers hold the study's pair only.

    ``None`` is the run's own engine.
    """
    if pair is None:
        yield None
        return
    opened: list[Engine] = []
    engine_config = run.job.config.engine.model_copy(update={"workers": 1})
    config = run.job.config.model_copy(update={"engine": engine_config})
    job = replace(run.job, config=config, models=replace(run.job.models, pair=pair))

    def engine() -> Engine:
        if not opened:
            run.engine.close()
            opened.append(open_engine(job))
        return opened[0]

    try:
        yield engine
    finally:
        for each in opened:
            each.close()


def _measure(
    run: Run, row: AblationRow, size: int, engine: OpenEngine | None, on_event: OnEvent, progress: tuple[float, float]
) -> None:
    job = run.job
    lam = job.config.ablation.partial_lambda
    merge = None if row.method is None else baseline_method(job, row.method, lam=lam)
    label = row.label(job.models.pair.num_layers)
    request = EvaluationRequest(
        label,
        "ablation",
        row.key,
        row.schedule,
        phase="confirm",
        stop=size,
        done=progress[0],
        share=progress[1],
        merge=merge,
        chat=job.models.own_chats[row.parent] if row.parent else None,
        sampling=row.sampling(job.models.sampling),
        engine=engine,
    )
    graded = run.evaluator.run(request)
    measured = measure(graded, weights=job.config.weights)
    on_event(EvaluationEnded(label, request.kind, row.schedule, measured))


def _in_a_line(error: AutolambdaError) -> str:
    return "; ".join(line.strip().removeprefix("- ") for line in str(error).splitlines())
