"""What is refused before anything slow is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from autolambda.bundled import FOLDER, LONGEST_MEAN
from autolambda.config import Config
from autolambda.config_file import load_config
from autolambda.errors import CheckpointError, NoModelsError, TaskError, error_line
from autolambda.project.checks import check_inputs, check_models_are_meant, input_problems

PARENTS = {f"models.{name}": str(FOLDER / name) for name in ("instruct", "thinking")}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def config(**keys: object) -> Config:
    return load_config(None, overrides={key.replace("__", "."): value for key, value in keys.items()})


def test_every_missing_file_and_folder_is_named() -> None:
    tasks = [{"path": "a.jsonl"}, {"name": "gsm8k", "confirm_on": {"path": "b.csv"}}]
    found = load_config(None, overrides={**PARENTS, "models.instruct": "./gone", "tasks": tasks})
    problems = list(input_problems(found))
    assert [str(problem) for problem in problems] == [
        "task file 'a.jsonl' does not exist",
        "task file 'b.csv' does not exist",
        "no folder './gone'; give an existing folder or a hub id such as Qwen/Qwen3-4B",
    ]
    with pytest.raises(TaskError, match=r"a\.jsonl"):
        check_inputs(found)
    with pytest.raises(TaskError, match=r"task file 'more\.jsonl' does not exist"):
        check_inputs(config(), ["gsm8k", "more.jsonl"])


def test_a_model_that_is_neither_here_nor_reachable(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    def unreachable(*arguments: object, **options: object) -> None:
        raise OSError("[Errno -2] Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    found = load_config(None, overrides={**PARENTS, "models.thinking": "Qwen/Q"})
    with pytest.raises(CheckpointError) as caught:
        check_inputs(found)
    said = (
        "no folder 'Qwen/Q' here, and the hub cannot be reached (no connection: OSError); on a machine with a network"
    )
    assert str(caught.value) == f"{said} run: hf download Qwen/Q --local-dir DIR; then give DIR"
    (here / "cache" / "models--Qwen--Q").mkdir(parents=True)
    check_inputs(found)  # it is in the cache


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"budget": 4000}, "no models given; the demo pair takes budgets below 84 tokens, seen 4,000"),
        ({"budget": LONGEST_MEAN}, "takes budgets below 84 tokens, seen 84"),
        ({}, "no models given"),
        ({"budget": 40, "tasks": [{"path": "mine.jsonl"}]}, "no models given for the task 'mine'"),
        ({"budget": 40, "tasks": [{"name": "gsm8k"}, {"name": "arithmetic"}]}, "no models given for the task 'gsm8k'"),
    ],
)
def test_the_demo_is_not_what_is_meant(keys: dict[str, object], why: str) -> None:
    with pytest.raises(NoModelsError) as caught:
        check_models_are_meant(config(**keys), is_search=True)
    first, *ways = error_line(caught.value).splitlines()
    assert first.startswith("error: ") and why in first and len(ways) == 3
    task = "mine.jsonl" if "mine" in why else "my.jsonl"
    assert f"autolambda init INSTRUCT THINKING --task {task}" in ways[0]
    assert f"--budget {keys.get('budget', 4000):g}" in ways[1] and "autolambda demo" in ways[2]
    assert max(map(len, ways)) <= 80


def test_the_demo_and_models_of_ones_own_are_meant() -> None:
    check_models_are_meant(config(budget=LONGEST_MEAN - 1), is_search=True)
    check_models_are_meant(config())
    check_models_are_meant(load_config(None, overrides={**PARENTS, "budget": 4000}), is_search=True)


def test_the_longest_mean_of_the_bundled_pair_is_what_its_curve_says() -> None:
    """studies/bundled has the measured pair; its Thinking parent as is needs the most."""
    from small_search import finished

    thinking = finished().parents["thinking"]
    assert thinking is not None
    assert 0.5 * LONGEST_MEAN < thinking.measured.mean_tokens.value < LONGEST_MEAN  # cut at 64 tokens there
