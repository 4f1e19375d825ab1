"""The smoke test of vLLM (studies/vllm_engine): its table, its time, its exit code, and the steps without vLLM."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import smoke_table
from paths import ROOT
from smoke import STEPS, run
from smoke_table import LEFT_OUT, Expect, Step, affordable, as_json, exit_code, run_all, table
from vllm_engines import needs_vllm

SMOKE = ROOT / "studies/vllm_engine/smoke.py"


class FakeBench:
    def __init__(self) -> None:
        self.num_closed = 0

    def close(self) -> None:
        self.num_closed += 1


def step(number: str, run: Any, *expects: Expect, seconds: float = 1.0) -> Step:
    return Step(number, f"step {number}", run, {"cpu": seconds}, expects)


def fail(bench: Any) -> dict[str, Any]:
    raise RuntimeError("two\nlines | and a bar")


def hang(bench: Any) -> dict[str, Any]:
    try:
        time.sleep(60)
    except Exception:  # as an engine may do, which must not keep the step going
        time.sleep(60)
    return {}


def test_a_step_that_fails_hangs_or_differs_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke_table, "SLACK", 0.1)
    bench, told = FakeBench(), []
    steps = [
        step("1", fail),
        step("2", hang, seconds=0.01),
        step("3", lambda bench: {"bits": 3}, Expect("bits", "==", 0)),
        step("4", lambda bench: {"said": "all is well"}, Expect("said", "has", "well"), Expect("gpu", "==", 1, "cuda")),
        step("5", lambda bench: {}, Expect("missing", "<=", 1)),
        Step("6", "for a GPU", fail, {"cuda": 1.0}),
    ]
    outcomes = run_all(steps, bench, device="cpu", seconds=60, on_outcome=told.append)
    assert told == outcomes and bench.num_closed == 2
    assert [each.status for each in outcomes] == [
        "FAILED", "TIMED OUT", "NOT AS EXPECTED", "as expected", "NOT AS EXPECTED",
    ]  # fmt: skip
    assert outcomes[1].seconds < 5
    lines = table(outcomes, "cpu").splitlines()
    assert len(lines) == 7 and {line.count("|") for line in lines} == {7}
    assert "RuntimeError: two lines / and a bar" in lines[2] and "no end after" in lines[3]
    assert "| bits == 0 | bits 3 | NOT AS EXPECTED |" in lines[4] and "gpu" not in lines[5]
    plain = json.loads(as_json(outcomes, "cpu"))
    assert plain["steps"][3] | {"seconds": 0} == {
        "number": "4", "title": "step 4", "expected": ["said has well"], "found": {"said": "all is well"},
        "status": "as expected", "reason": "", "seconds": 0,
    }  # fmt: skip
    assert [exit_code(some) for some in (outcomes, outcomes[3:4], outcomes[:1], [])] == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("seconds", "left_out"),
    [(70, ()), (69, ("16",)), (55, ("16", "10")), (30, ("16", "10", "12", "9")), (0, LEFT_OUT)],
)
def test_steps_are_left_out_in_the_stated_order_until_the_others_fit(seconds: float, left_out: tuple[str, ...]) -> None:
    steps = [step(number, fail, seconds=10) for number in ("4", "9", "10", "11b", "12", "15", "16")]
    kept = [each.number for each in affordable(steps, "cpu", seconds)]
    assert kept == [each.number for each in steps if each.number not in left_out]


def test_what_the_time_does_not_allow_is_left_out_and_does_not_count() -> None:
    steps = [step("1", lambda bench: {}), step("10", fail, seconds=100)]
    outcomes = run_all(steps, FakeBench(), device="cpu", seconds=50, on_outcome=lambda outcome: None)
    assert [each.status for each in outcomes] == ["as expected", "left out"] and exit_code(outcomes) == 0
    assert exit_code(outcomes[1:]) == 1  # nothing ran


@pytest.mark.parametrize("ending", ["json", "md"])
def test_steps_of_torch_alone_run_on_any_machine(tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"smoke.{ending}"
    chosen = [each for each in STEPS if each.number in ("1", "1b", "2")]
    assert run(chosen, "cpu", seconds=60, out=out) == 0
    text = out.read_text()
    if ending == "json":
        found = [each["found"] for each in json.loads(text)["steps"]]
        assert [each["rows_differ"] for each in found] == [0, 0] and found[0]["values"] > 10**7
    else:
        assert text.count("| as expected |") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "1,99"], "no such step: 99; known: 0, 1, 1b, "),
        (["--cpu", "--out", "a.txt"], "a file that ends in .md or .json"),
    ],
)
def test_a_wrong_option_is_one_line(arguments: list[str], message: str) -> None:
    done = subprocess.run([sys.executable, str(SMOKE), *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr.splitlines()[-1]


@needs_vllm
def test_every_step_has_its_function() -> None:
    """Steps are imported when they run, so a wrong name would be seen on a GPU only."""
    numbers = [each.number for each in STEPS]
    assert len(set(numbers)) == len(numbers) and {*LEFT_OUT} < {*numbers}
    for each in STEPS:
        module, name = each.run.args  # type: ignore[attr-defined]  # a partial of smoke.call
        assert callable(getattr(import_module(f"smoke_steps_{module}"), name))
