"""The replays of studies/search_cost: their truths, their searches, their rows and their table."""

import json
from pathlib import Path

import cases
import numpy as np
import pytest
from bank import BANK, PHASES, Bank, Truth
from cases import find_cases
from gpu import CACHE_TOKENS, MAX_ROWS, ROW, STEP, call_seconds, saturated_speed
from replay import main
from scores import Facts, facts_of, is_worth_finding, lost_of, num_wasted
from seconds import main as seconds
from table import is_significant, read_rows

from autolambda.errors import InputError
from autolambda.optimizer.space import uniform_params

KEYS = {
    *("world", "budget", "strategy", "lost_all", "lost_feasible", "behind_provable", "feasible", "within"),
    *("tokens_share", "trials", "wasted", "claim", "allowance", "seeds"),
}
TINY = {
    "name": "tiny",
    "budgets": [500],
    "direct": [[0, 0.4], [1, 0.5]],
    "think": [[0, 0.5], [1, 0.8]],
    "short": [[0, 100], [1, 200]],
    "long": [[0, 500], [1, 1000]],
    "num_prompts": 60,
    "repeats": 2,
}
INSTRUCT, THINKING = Truth(0.4, 100, 0.0), Truth(0.8, 1000, 1.0)
FACTS = Facts(0.6, 0.55, INSTRUCT, THINKING)


def params(lam: float, split: float = 0.0) -> dict[str, float]:
    return {**uniform_params(lam, num_knots=3), "split": split}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps([TINY]))
    return path


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the uniform lambdas of the bundled bank as a bank of its own."""
    monkeypatch.setattr("cases.RECORDED", tmp_path)
    with np.load(BANK) as arrays:
        keep = ~arrays["params"][:, 1:].any(axis=1)
        few = {name: arrays[name][keep][:, :200] for name in ("tokens", "flags")}
        np.savez(tmp_path / "lines.npz", params=arrays["params"][keep], **few)
    plain = {"name": "lines", "budgets": [40], "num_prompts": 50, "repeats": 2, "has_module": False}
    (tmp_path / "lines.json").write_text(json.dumps(plain))
    return tmp_path


@pytest.mark.parametrize("name", ["thirty", "split", "bank100", "paper:aime25"])
@pytest.mark.parametrize(("lam", "split"), [(0.0, 0.0), (0.3, 0.0), (0.6, 0.4), (1.0, 0.0)])
def test_truths_are_the_means_of_many_responses(name: str, lam: float, split: float) -> None:
    case = find_cases([name])[0]
    place = params(lam, split if case.has_module else 0.0)
    world = case.world(1, num_search=10, num_confirm=4000)
    outcomes = world.measure(place, "confirm", np.arange(8000))
    by_prompt = outcomes.reshape(2, 4000, 3).mean(axis=0)
    truth = case.truths.truth(place)
    expected = truth.accuracy, truth.mean_tokens, truth.think_ratio
    errors = by_prompt.std(axis=0) / 4000**0.5 + 1e-4
    assert (np.abs(by_prompt.mean(axis=0) - expected) < 4 * errors).all()
    assert world.num_tokens == pytest.approx(outcomes[:, 1].sum(), abs=1)
    spread = case.truths.token_spread(place)
    expected_error = truth.mean_tokens * ((spread.between + spread.within / 2) / 4000) ** 0.5
    assert errors[1] == pytest.approx(expected_error, rel=0.25)


@pytest.mark.parametrize("name", ["thirty", "bank100", "paper:ifeval"])
def test_a_response_depends_on_its_number_alone(name: str) -> None:
    case = find_cases([name])[0]
    for phase in PHASES:
        world = case.world(3, num_search=7, num_confirm=5)
        assert [world.prompts(each) for each in PHASES] == [7, 5]
        every = world.measure(params(0.4), phase, np.arange(16 * world.prompts(phase)))
        again = case.world(3, num_search=7, num_confirm=5).measure(params(0.4), phase, np.array([30, 2, 79]))
        assert (again == every[[30, 2, 79]]).all()
        other = case.world(4, num_search=7, num_confirm=5).measure(params(0.4), phase, np.arange(len(every)))
        assert (other != every).any()


def test_pairs_do_not_share_the_luck_of_prompts() -> None:
    one, other = (case.world(0, num_search=50, num_confirm=50) for case in find_cases(["dip", "dip100"]))
    left, right = (world.measure(params(0.0), "search", np.arange(50)) for world in (one, other))
    assert (left != right).any()


def test_a_bank_of_uniform_lambdas_is_interpolated_between_its_neighbours(recorded: Path) -> None:
    (case,) = find_cases(["recorded"])
    bank = case.truths
    assert isinstance(bank, Bank)
    assert not case.has_module
    assert (case.name, case.budgets, case.num_prompts, case.repeats) == ("lines", (40.0,), 50, 2)
    low, middle, high = (bank.truth(params(lam)).mean_tokens for lam in (0.5, 0.52, 0.55))
    assert middle == pytest.approx(0.6 * low + 0.4 * high)
    assert bank.truth(params(1.2)) == bank.truth(params(1.0))
    with pytest.raises(ValueError, match="uniform lambdas only"):
        bank.truth(params(0.5, 0.2))
    (recorded / "lines.json").write_text(json.dumps({"name": "lines"}))
    cases._recorded_case.cache_clear()
    with pytest.raises(InputError, match=r"lines\.json: lacks 'num_prompts'"):
        find_cases(["recorded"])


def test_the_given_cases_are_twenty_five() -> None:
    given = find_cases(["given"])
    assert sum(len(case.budgets) for case in given) == 25
    assert [case.budgets for case in find_cases(["bank@40", "bank"])] == [(40.0, 25.0, 60.0)]


def test_the_facts_of_a_pair(tiny: Path) -> None:
    (case,) = find_cases([str(tiny)])
    facts = facts_of(case, 500.0)
    assert facts.instruct.accuracy == pytest.approx(0.4)
    assert facts.thinking.mean_tokens == pytest.approx(1000)
    assert facts.best is not None
    assert facts.provable is not None
    assert 0.4 < facts.provable < facts.best < 0.8
    assert is_worth_finding(facts, 500.0)
    assert not is_worth_finding(facts, 1e6)
    assert facts_of(case, 1.0).best is None


@pytest.mark.parametrize(
    ("chosen", "parent", "budget", "lost"),
    [
        (Truth(0.57, 400, 0.5), None, 500, 3.0),
        (None, None, 500, 20.0),
        (None, "instruct", 500, 20.0),
        (None, None, 50, 48.0),
        (Truth(0.7, 600, 0.5), None, 500, 20.0),
        (None, "thinking", 500, 20.0),
        (Truth(0.7, 60, 0.5), None, 50, 48.0),
    ],
    ids=["feasible", "uncertain", "parent", "no parent within", "over", "parent over", "over, no parent within"],
)
def test_what_a_search_loses(chosen: Truth | None, parent: str | None, budget: float, lost: float) -> None:
    assert lost_of(FACTS, budget, chosen=chosen, parent=parent) == pytest.approx(lost)


def test_an_answer_over_the_budget_loses_five_points_at_least() -> None:
    over = Truth(0.45, 600, 0.5)
    assert lost_of(Facts(0.41, 0.4, INSTRUCT, THINKING), 500, chosen=over, parent=None) == 5
    assert lost_of(Facts(None, None, INSTRUCT, THINKING), 50, chosen=over, parent=None) == 5
    assert lost_of(Facts(None, None, INSTRUCT, THINKING), 50, chosen=None, parent=None) == 0


def test_trials_near_an_earlier_one_are_wasted(tiny: Path) -> None:
    (case,) = find_cases([str(tiny)])
    assert num_wasted(case.truths, [params(0.0), params(0.5), params(0.501), params(1.0), params(0.001)]) == 2


@pytest.mark.parametrize(
    ("differences", "significant"),
    [([1.0], False), ([0.0, 0.0], False), ([2.0, 2.0], True), ([1, 1.1, 0.9], True), ([3, -2, 1], False)],
)
def test_paired_differences(differences: list[float], significant: bool) -> None:
    assert is_significant(differences) == significant


def test_searches_are_replayed_once_and_make_a_table(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tiny.with_name("out.jsonl")
    command = ["run", str(out), "--worlds", str(tiny), "--strategies", "ours,grid11,tpe", "--seeds"]
    assert main([*command, "0:1"]) == 0
    first = out.read_text()
    out.write_text(first + '{"key": ["tiny", 500.0, "ours", 1.')  # as after a kill
    assert main([*command, "0:2"]) == 0
    assert "left out" in capsys.readouterr().err
    rows = read_rows(out)
    assert out.read_text().startswith(first)
    assert [tuple(row["key"][2:]) for row in rows] == [
        (name, 1.0, seed) for seed in (0, 1) for name in ("ours", "grid11", "tpe")
    ]
    assert [row["trials"] for row in rows[1:3]] == [11, 24]
    assert main(["table", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [set(each) for each in found] == [KEYS] * 3
    assert {each["seeds"] for each in found} == {2}
    assert all(0 < each["tokens_share"] < 1.5 for each in found)
    assert main(["table", str(out)]) == 0
    assert "| tpe | 1 | " in capsys.readouterr().out


def test_less_tokens_for_a_smaller_allowance(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tiny.with_name("out.jsonl")
    command = ["run", str(out), "--worlds", str(tiny), "--strategies", "grid11", "--seeds", "0"]
    assert main([*command, "--allowance", "0.5,1"]) == 0
    half, whole = read_rows(out)
    assert half["allowance"] == pytest.approx(whole["allowance"] / 2)
    assert half["tokens"] <= whole["tokens"]


def test_a_failed_search_is_told_and_does_not_stop_the_others(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr("ours.search", fail)
    out = tiny.with_name("out.jsonl")
    assert main(["run", str(out), "--worlds", str(tiny), "--strategies", "ours,grid11", "--seeds", "0"]) == 1
    assert "failed: ['tiny', 500.0, 'ours', 1.0, 0]: RuntimeError: no luck" in capsys.readouterr().err
    assert len(read_rows(out)) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--worlds", "nowhere"], "no world 'nowhere'"),
        (["--worlds", "bank@41"], "bank has the budgets 25, 40, 60"),
        (["--worlds", "missing.json"], "missing.json: cannot be read"),
        (["--worlds", "unknown.json"], "pair 'tiny': unknown keys hight; known are name, budgets"),
        (["--worlds", "lacking.json"], "pair 0: lacks name, direct"),
        (["--worlds", "wrong.json"], "pair 'tiny': "),
        (["--worlds", "same.json,tiny.json"], "two worlds are called tiny"),
        (["--strategies", "ours,magic"], "no strategy 'magic'"),
        (["--seeds", "9:9"], "holds no seed"),
        (["--allowance", "0"], "above 0"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_exit_2(
    arguments: list[str], expected: str, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.parent)
    lacking = {key: value for key, value in TINY.items() if key not in ("name", "direct")}
    files = {
        "unknown": TINY | {"hight": 1},
        "lacking": lacking,
        "wrong": TINY | {"short": 3},
        "same": TINY | {"cap": 9e3},
    }
    for name, pair in files.items():
        Path(f"{name}.json").write_text(json.dumps([pair]))
    assert main(["run", "out.jsonl", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert expected in error
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([100], 100 * (STEP + ROW)),
        ([100, 300], 100 * (STEP + 2 * ROW) + 200 * (STEP + ROW)),
        ([10] * (2 * MAX_ROWS), 2 * 10 * (STEP + MAX_ROWS * ROW)),  # the second half waits for the first
        ([], 0.0),
    ],
)
def test_the_seconds_of_a_call_follow_from_its_rows(lengths: list[float], expected: float) -> None:
    assert call_seconds(lengths) == pytest.approx(expected)


def test_a_full_cache_sends_the_youngest_rows_back_and_no_token_is_lost() -> None:
    """40 rows of 30,000 tokens take more than the cache holds, so they cannot all run to their end at once."""
    lengths = [30_000.0] * 40
    assert sum(lengths) > CACHE_TOKENS
    alone = 30_000 * (STEP + 40 * ROW)
    assert call_seconds(lengths) > 1.3 * alone
    assert call_seconds(lengths, most_tokens=40_000.0) == pytest.approx(1_000 * (STEP + 40 * ROW))


def test_a_long_queue_is_as_fast_as_its_rows_allow() -> None:
    rows = MAX_ROWS / (STEP + MAX_ROWS * ROW)  # all of them the whole time
    assert 0.9 * rows < saturated_speed([100.0, 200.0, 300.0]) < 1.02 * rows


def test_rungs_by_pace_take_less_of_a_gpus_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert seconds(["--worlds", "paper:ifeval", "--seeds", "0:1"]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    fixed, paced = (float(row[4].replace(",", "")) for row in rows)
    assert [row[1] for row in rows] == ["fixed", "by pace"] and paced < 0.8 * fixed
    assert seconds(["--worlds", "dip"]) == 2
