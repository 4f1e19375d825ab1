"""The report on the screen: readable at 80 columns, no markup and no control sequences from outside."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType
from small_search import BUDGET, finished

from autolambda.cli.progress import trial_line
from autolambda.config import parse_config
from autolambda.driver.events import EvaluationEnded
from autolambda.report.report import Alike, Report
from autolambda.report.results import ScheduleResult
from autolambda.report.terminal import (
    front_table,
    in_lines,
    measured_view,
    printable,
    progress_view,
    report_view,
    verdict_lines,
)
from autolambda.report.terminal_tasks import task_table
from autolambda.schedule import Profile, Schedule
from autolambda.statistics.estimates import Difference
from autolambda.statistics.guards import Drop
from autolambda.statistics.metrics import Estimate
from autolambda.statistics.verdict import Verdict

DEEP = Schedule.by_depth_and_module(Profile((0.134, 0.395, 0.622)), Profile((0.0, 0.201, 0.428)), other=0.3)


def shown(view: RenderableType, *, width: int, terminal: bool = False) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=terminal, color_system="truecolor" if terminal else None).print(view)
    return file.getvalue()


def scaled(value: Estimate, factor: float) -> Estimate:
    numbers = {name: getattr(value, name) * factor for name in ("value", "standard_error", "low", "high")}
    return replace(value, **numbers)


@pytest.fixture
def wide() -> Report:
    """A report at its widest: a deep schedule, thousands of tokens, some of them cut."""
    report = finished()
    measured = report.trials[1].measured
    long = replace(
        measured,
        mean_tokens=scaled(measured.mean_tokens, 12_345 / measured.mean_tokens.value),
        accuracy=replace(measured.accuracy, value=0.995, high=0.999),
        truncated_ratio=scaled(measured.accuracy, 0.3),
    )
    entry = ScheduleResult(27, DEEP, long, confirmed=True)
    return replace(report, confirmed=(*report.confirmed, entry), best=entry)


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_too_long_and_no_word_is_broken(wide: Report, width: int) -> None:
    lines = shown(front_table(wide, wide.front, title="t"), width=width).splitlines()
    text = "\n".join(lines)
    assert max(len(line.rstrip()) for line in lines) <= width
    for word in ("→ 27", "0.13/0.40/0.62", "0.00/0.20/0.43", "other 0.3", "12,345", "Instruct as is", "accuracy %"):
        assert word in text, text
    if width == 120:  # a line for each part of a schedule, such as attention, ffn and other
        assert len(lines) == 3 + 2 + sum(len(entry.schedule.to_dict()) for entry in wide.front)


def test_an_ordinary_front_has_one_line_a_schedule_at_80_columns() -> None:
    report = finished()
    uniform = tuple(entry for entry in report.confirmed if entry.schedule.lam is not None)
    lines = shown(front_table(replace(report, confirmed=uniform), uniform, title="t"), width=80).splitlines()
    assert uniform and len(lines) == 3 + 2 + len(replace(report, confirmed=uniform).front)


def test_the_cut_column_appears_with_the_first_cut_response(wide: Report) -> None:
    assert "cut" in shown(front_table(wide, wide.front, title="t"), width=80)
    report = replace(finished(), parents=dict.fromkeys(("instruct", "thinking")), confirmed=finished().confirmed[:1])
    assert all(entry.measured.truncated_ratio.value == 0 for entry in report.front)
    assert "cut" not in shown(front_table(report, report.front, title="t"), width=80)


def test_the_pick_is_marked_once() -> None:
    report = finished()
    assert report.best is not None
    lines = shown(front_table(report, report.front, title="t"), width=80).splitlines()
    assert [line for line in lines if "→" in line] == [line for line in lines if f"→ {report.best.trial}" in line] != []


def test_only_a_terminal_gets_escape_codes() -> None:
    assert "\x1b" not in shown(report_view(finished()), width=80)
    assert "\x1b[1m" in shown(report_view(finished()), width=80, terminal=True)


def said(report: Report, storage: str | None = None) -> str:
    return re.sub(r"\[/?[a-z ]*\]", "", "\n".join(verdict_lines(report, storage=storage)))


def test_a_feasible_verdict_says_what_to_pick_and_what_it_costs() -> None:
    report = finished()
    best = report.best
    assert best is not None
    text = said(report)
    assert text.startswith(f"Feasible within 30 tokens: {best.schedule} (trial {best.trial}), accuracy ")
    assert f"{best.measured.mean_tokens.low:.1f} to {best.measured.mean_tokens.high:.1f}" in text
    assert re.search(r"Beside the Thinking model as is: [+-]\d+\.\d points of accuracy, \d+% of its tokens\.", text)
    assert text.splitlines()[-1] == "Export it: autolambda export small OUT --budget 30"


def test_the_commands_name_the_storage_that_was_given() -> None:
    last = said(finished(), storage="sqlite:///my studies/x.db").splitlines()[-1]
    assert last == "Export it: autolambda export small OUT --budget 30 --storage 'sqlite:///my studies/x.db'"
    last = said(finished(), storage="postgresql://me:secret@host/x").splitlines()[-1]
    words, _, command = last.partition(": ")
    assert words == "Export it (for *** give the password, or leave it out and have it in PGPASSWORD or ~/.pgpass)"
    assert command == "autolambda export small OUT --budget 30 --storage 'postgresql://me:***@host/x'"


@pytest.mark.parametrize(
    ("verdict", "start", "remedy"),
    [
        (Verdict.INFEASIBLE, "Infeasible within 1.5 tokens; the nearest: ", "What may help: a higher budget"),
        (Verdict.UNCERTAIN, "Uncertain within 1.5 tokens; the nearest: ", "What may help: more prompts"),
    ],
)
def test_no_pick_shows_the_nearest(verdict: Verdict, start: str, remedy: str) -> None:
    nearest = finished().confirmed[0]
    text = said(replace(finished(), verdict=verdict, budget=1.5, best=None, nearest=nearest))
    assert text.startswith(start) and f"{nearest.schedule} (trial {nearest.trial})" in text and remedy in text


def test_those_that_cannot_be_told_apart_from_the_pick_are_named() -> None:
    entry = finished().confirmed[0]
    alike = (Alike(entry, Difference(-0.0123, 0.02, -0.05, 0.03, -0.04, 0.02, 32)),)
    line = next(line for line in said(replace(finished(), alike=alike)).splitlines() if "told apart" in line)
    assert line.startswith(f"Trial {entry.trial} cannot be told apart from it: -1.2 points (-5.0 to +3.0) of accuracy")
    assert line.endswith(f"at {entry.score.mean_tokens:.1f} tokens.")


def test_without_a_verdict_the_next_command_is_confirm() -> None:
    report = finished()
    assert said(replace(report, budget=None, verdict=None)).endswith("autolambda confirm small --budget TOKENS")
    text = said(replace(report, verdict=None, best=report.trials[0]))
    assert "Not confirmed yet. By the search alone: lambda 0" in text
    assert text.endswith("autolambda confirm small --budget 30")
    assert "[" not in text


def test_a_cheaper_pick_names_the_one_it_was_picked_over() -> None:
    report = finished()
    assert "is picked over lambda 1 (trial 1)" in said(replace(report, cheaper_than=report.trials[1]))
    assert "shown to lose less than 1 points" in said(replace(report, cheaper_than=report.trials[1]))


def test_a_budget_that_cannot_bind_is_in_the_verdict() -> None:
    assert "A budget of 4000 tokens cannot bind here" in said(replace(finished(), budget=4000.0))
    assert "cannot bind" not in said(finished())


def test_markup_and_control_sequences_from_outside_are_shown_not_obeyed() -> None:
    notes = ("[bold]loud[/bold] \x1b[31mred",)
    report = replace(finished(), study="[red]x", stages=replace(finished().stages, notes=notes))
    text = shown(report_view(report), width=200, terminal=True)
    assert "[bold]loud[/bold]" in text and "\x1b[31mred" not in text and "\\x1b[31mred" in text
    assert "Front of [red]x," in re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_printable() -> None:
    assert printable("a é → [b]") == "a é → [b]"
    assert printable("\x1b[2J\n\t\udcff") == "\\x1b[2J\\n\\t\\udcff"


@pytest.mark.parametrize(
    ("schedule", "lines"),
    [
        (Schedule.uniform(0.59375), ["lambda 0.5938"]),
        (Schedule.by_module(attention=0.25, ffn=1.0), ["attention 0.25", "ffn 1"]),
        (Schedule.by_depth(Profile((0.0, 0.5), kind="bands")), ["lambda bands 0.00/0.50"]),
        (DEEP, ["attention 0.13/0.40/0.62", "ffn 0.00/0.20/0.43", "other 0.3"]),
    ],
)
def test_a_schedule_in_lines(schedule: Schedule, lines: list[str]) -> None:
    assert in_lines(schedule).splitlines() == lines


def test_one_measured_schedule() -> None:
    entry = finished().trials[1]
    event = EvaluationEnded("trial 1", "trial", entry.schedule, entry.measured)
    line = trial_line(event)
    assert line.startswith("trial 1 ") and line.endswith("on    16  lambda 1") and "\n" not in line
    assert trial_line(replace(event, stopped="off the front")) == f"{line}  (stopped: off the front)"
    assert trial_line(replace(event, measured=None, stopped="over the budget")).split(maxsplit=2) == [
        "trial",
        "1",
        "stopped: over the budget  lambda 1",
    ]
    assert f"{entry.measured.mean_tokens.value:.1f}" in line
    text = shown(measured_view(entry.schedule, entry.measured), width=80)
    assert "lambda 1" in text and "cut %" in text and len(text.splitlines()) == 6


def test_an_unconfirmed_parent_is_not_called_as_is_and_two_lambdas_make_a_curve() -> None:
    report = finished()
    first, second = report.trials[:2]
    parents = {"instruct": first, "thinking": second}
    text = shown(
        report_view(replace(report, trials=(first, second), smoothed=(), confirmed=(), parents=parents)), width=80
    )
    assert "as is" not in text.partition("\n\n")[0] and "lambda 1" in text and "Reasoning" in text
    parents = {"instruct": first, "thinking": None}
    single = replace(report, trials=(first,), smoothed=(first,), confirmed=(), parents=parents)
    text = shown(progress_view(single), width=80)
    assert text.count("lambda 0 ") == 1 and "Reasoning" not in text and "The curve" not in text


def test_the_smoothed_front_stands_below_the_confirmed_one():
    """The confirmation measures a few; the rest of the front is what the surrogate makes of all trials."""
    report = finished()
    text = shown(progress_view(report), width=100)
    confirmed, smoothed = text.index("confirmed on prompts"), text.index("smoothed over all trials")
    assert confirmed < smoothed
    below = text[smoothed:]
    for entry in report.smoothed_front:
        assert f"{100 * entry.score.accuracy:.1f}" in below


DROP = Drop(0.004, -0.012, 0.02, 0.02, True)


def guarded(report: Report, kept: bool | None, *, verdict: Verdict = Verdict.FEASIBLE) -> Report:
    """The report as if the first confirmed entry, within the budget, were the answer and had a guard."""
    entry = replace(report.confirmed[0], drops={"rules": replace(DROP, kept=kept)})
    assert entry.measured.mean_tokens.high <= BUDGET
    places = {"best": entry} if verdict is Verdict.FEASIBLE else {"best": None, "nearest": entry}
    return replace(report, verdict=verdict, confirmed=(entry,), cheaper_than=None, alike=(), **places)


def test_a_pick_with_a_guard_says_what_it_loses() -> None:
    lines = said(guarded(finished(), True)).splitlines()
    assert lines[1] == "Guard rules is kept: -0.4 points against the better parent (-2.0 to +1.2), 2 may be lost."
    assert "Guard" not in said(finished())


@pytest.mark.parametrize(
    ("verdict", "kept", "start", "words"),
    [
        (Verdict.INFEASIBLE, False, "Infeasible within 30 tokens because of a guard;", "is broken: -0.4 points"),
        (Verdict.UNCERTAIN, None, "Uncertain within 30 tokens because of a guard;", "is not shown to be kept: -0.4"),
    ],
)
def test_a_verdict_says_that_a_guard_stands_against_it(
    verdict: Verdict, kept: bool | None, start: str, words: str
) -> None:
    text = said(guarded(finished(), kept, verdict=verdict))
    assert text.startswith(start) and words in text and "a larger guard.max_drop" in text
    tight = said(replace(guarded(finished(), kept, verdict=verdict), budget=1.5))  # its tokens stand against it
    assert "because of" not in tight and "max_drop" not in tight and words in tight


@pytest.mark.parametrize(("kept", "word"), [(True, "kept"), (False, "broken"), (None, "unsure")])
def test_a_front_says_what_is_known_of_the_guards(kept: bool | None, word: str) -> None:
    report = guarded(finished(), kept)
    text = shown(front_table(report, report.front, title="t"), width=80)
    assert "guards" in text.splitlines()[2] and word in text.splitlines()[-1]
    assert "guards" not in shown(front_table(finished(), finished().front, title="t"), width=80)


def several_tasks() -> Report:
    """As if the entries had a second task, a guard, with their numbers on the first."""
    report = finished()

    def double(entry: ScheduleResult) -> ScheduleResult:
        tasks = {"arithmetic": entry.measured.tasks["arithmetic"], "\x1b[2J": entry.measured.tasks["arithmetic"]}
        return replace(entry, measured=replace(entry.measured, tasks=tasks))

    plain = report.config.model_dump()
    [task] = plain["tasks"]
    plain["tasks"] = [task, {"path": "x.jsonl", "label": "\x1b[2J", "guard": {"max_drop": 0.02}}]
    assert report.best is not None
    return replace(
        report,
        config=parse_config(plain),
        best=double(report.best),
        trials=tuple(map(double, report.trials)),
        parents={name: double(entry) for name, entry in report.parents.items() if entry},
    )


def test_several_tasks_have_a_row_each() -> None:
    report = several_tasks()
    lines = shown(report_view(report), width=80).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("By task"))
    header, first, second = lines[start + 1 : start + 4]
    assert report.best is not None and header.split() == [
        "task",
        "weight",
        "Instruct",
        "Thinking",
        "→",
        str(report.best.trial),
    ]
    accuracy, tokens = report.best.measured.accuracy.value, report.best.measured.mean_tokens.value
    assert first.split()[:2] == ["arithmetic", "100%"] and first.split()[-2:] == [
        f"{100 * accuracy:.1f}",
        f"{tokens:.1f}",
    ]
    assert "guard" in second and "\x1b" not in second and "x1b[2J" in second
    assert "By task" not in shown(report_view(finished()), width=80)


def test_a_pick_that_is_not_confirmed_has_the_numbers_that_were_measured_of_each_task() -> None:
    report = several_tasks()
    trial = report.trials[2]
    smoothed = replace(report.smoothed[2], measured=replace(report.smoothed[2].measured, tasks={}))
    table = task_table(replace(report, best=smoothed, verdict=None))
    assert table is not None
    last = shown(table, width=80).splitlines()[2].split()[-2:]
    assert last == [f"{100 * trial.measured.accuracy.value:.1f}", f"{trial.measured.mean_tokens.value:.1f}"]
