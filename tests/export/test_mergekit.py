"""A merge as a recipe for mergekit: its weights are the schedule's, and mergekit's own results are ours.

``assets/mergekit`` holds small models and what mergekit 0.1.5 made of them, by studies/merge_export/golden.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from checkpoints import tiny_checkpoint
from paths import ASSETS
from safetensors.torch import load_file
from torch import Tensor

from autolambda.export.mergekit import mergekit_recipe, mergekit_sentence
from autolambda.merging.kernels.sums import pieces_of, ties_limits
from autolambda.merging.merge import Merge, open_merge
from autolambda.merging.method import Method
from autolambda.merging.pair import open_pair
from autolambda.merging.rounding import Rounding
from autolambda.schedule import Profile, Schedule

MERGEKIT = ASSETS / "mergekit"
SCHEDULES = {
    "uniform": Schedule.uniform(0.3),
    "module": Schedule.by_module(attention=0.7, ffn=0.2),
    "depth": Schedule.by_depth(Profile((0.1, 0.9)), other=0.6),
    "bands and modules": Schedule.by_depth_and_module(Profile((0.0, 0.8), "bands"), Profile((1.0, 0.4))),
}
LINEAR = {name: Method.linear(schedule) for name, schedule in SCHEDULES.items()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Base, instruct, thinking: Qwen3-MoE, whose routers and experts have names of their own."""
    place = tmp_path_factory.mktemp("models")
    return [
        tiny_checkpoint(place / name, family="qwen3_moe", tie=False, seed=seed, num_hidden_layers=3)
        for seed, name in enumerate(("base", "instruct", "thinking"))
    ]


def merge_of(folders: list[Path], method: Method) -> Merge:
    pair = open_pair(str(folders[1]), str(folders[2]), rounding=Rounding("nearest"))  # as mergekit rounds
    return open_merge(pair, method)


def setting_of(setting: Any, name: str) -> float:
    """A parameter of mergekit for a tensor: a number, or the first of a list whose filter is a part of the name."""
    if isinstance(setting, float):
        return setting
    return next(each["value"] for each in setting if "filter" not in each or each["filter"] in name)


def sources_of(recipe: dict[str, Any], name: str, num_layers: int) -> Any:
    """The slice that holds a tensor: what is outside the layers is in the first, or after them in the last."""
    if "models" in recipe:
        return recipe["models"], recipe
    number = int(name.split(".")[2]) if ".layers." in name else 0 if "embed_tokens" in name else num_layers - 1
    [found] = [each for each in recipe["slices"] if each["sources"][0]["layer_range"] == [number, number + 1]]
    return found["sources"], found


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_weights_are_those_of_the_schedule(folders: list[Path], name: str) -> None:
    merge = merge_of(folders, LINEAR[name])
    recipe = yaml.safe_load(yaml.safe_dump(mergekit_recipe(merge)))
    assert (recipe["merge_method"], recipe["dtype"], recipe["out_dtype"]) == ("linear", "float32", "bfloat16")
    assert recipe["parameters"] == {"normalize": False} and ("models" in recipe) is (name == "uniform")
    for tensor in merge.infos:
        sources, _ = sources_of(recipe, tensor, 3)
        assert [source["model"] for source in sources] == ["./instruct", "./thinking"]
        weights = [setting_of(source["parameters"]["weight"], tensor) for source in sources]
        lam = merge.coefficients_of(tensor).lam
        assert weights == [1 - lam, lam], tensor


@pytest.mark.parametrize("name", SCHEDULES)
def test_slerp_has_one_t_for_both(folders: list[Path], name: str) -> None:
    merge = merge_of(folders, Method("slerp", SCHEDULES[name]))
    recipe = mergekit_recipe(merge)
    assert recipe["merge_method"] == "slerp" and recipe["base_model"] == "./instruct"
    for tensor in merge.infos:
        _, holder = sources_of(recipe, tensor, 3)
        assert setting_of(holder["parameters"]["t"], tensor) == merge.coefficients_of(tensor).lam


def test_methods_around_a_base(folders: list[Path]) -> None:
    recipe = mergekit_recipe(merge_of(folders, Method("task_arithmetic", base=str(folders[0]))))
    assert recipe["base_model"] == "./base"
    assert [each["parameters"] for each in recipe["models"]] == [{"weight": 0.7}] * 2
    recipe = mergekit_recipe(merge_of(folders, Method("ties", base=str(folders[0]))))
    assert [each["parameters"] for each in recipe["models"]] == [{"weight": 1.0, "density": 0.2}] * 2
    assert recipe["parameters"] == {"normalize": True, "lambda": 0.5}


def test_a_scale_is_task_arithmetic_and_a_third_parent_is_a_third_model(folders: list[Path]) -> None:
    base, instruct, thinking = map(str, folders)
    pair = open_pair(instruct, thinking, base=base, third=base, rounding=Rounding("nearest"))
    recipe = mergekit_recipe(open_merge(pair, Schedule.uniform(0.25).beyond(scale=1.2)))
    assert recipe is not None and (recipe["merge_method"], recipe["base_model"]) == ("task_arithmetic", "./base")
    weights = [each["parameters"]["weight"] for each in recipe["models"]]
    assert weights == pytest.approx([0.9, 0.3]) and recipe["parameters"] == {"normalize": False}
    recipe = mergekit_recipe(open_merge(pair, Schedule.uniform(0.25).beyond(third=0.1)))
    assert recipe is not None and recipe["merge_method"] == "linear" and "base_model" not in recipe
    assert [each["parameters"]["weight"] for each in recipe["models"]] == pytest.approx([0.65, 0.25, 0.1])
    by_module = open_merge(pair, SCHEDULES["module"].beyond(scale=1.2))
    assert mergekit_recipe(by_module) is None
    assert mergekit_sentence(by_module).startswith("There is no recipe for mergekit: with a scale")


def test_mergekits_task_arithmetic_is_a_scaled_schedule() -> None:
    """To within one bfloat16 step, for mergekit's own result with the weights 0.7 and 0.7."""
    pair = open_pair(*(str(MERGEKIT / model) for model in ("instruct", "thinking")), base=str(MERGEKIT / "base"))
    merge = open_merge(replace(pair, rounding=Rounding("nearest")), Schedule.uniform(0.5).beyond(scale=1.4))
    theirs = load_file(MERGEKIT / "task_arithmetic.safetensors")
    for tensor, values in theirs.items():
        ours = merge.tensor(tensor)
        assert ((steps_apart(ours, values) <= 1) | ((ours.float() - values.float()).abs() < 1e-6)).all(), tensor


def test_how_far_mergekits_rounding_is_apart_is_said_for_each_rounding() -> None:
    method = LINEAR["uniform"]
    nearest = merge_of([MERGEKIT / model for model in ("base", "instruct", "thinking")], method)
    dithered = replace(nearest, pair=replace(nearest.pair, rounding=Rounding()))
    beside = sum(int((dithered.tensor(name) != nearest.tensor(name)).sum()) for name in dithered.infos)
    share = f"{100 * beside / dithered.pair.num_parameters:.0f} % of the weights, by one step of bfloat16."
    assert mergekit_sentence(dithered) == f"mergekit rounds to nearest: its merge differs from this one in {share}"
    assert mergekit_sentence(nearest) == "mergekit rounds to nearest, like this merge."
    whole = replace(dithered, method=Method.linear(Schedule.uniform(1.0)))
    assert mergekit_sentence(whole) == "mergekit rounds to nearest, which makes no difference for this merge."


def steps_apart(one: Tensor, other: Tensor) -> Tensor:
    """How many bfloat16 values lie between two tensors' values."""
    found = []
    for tensor in (one, other):
        places = tensor.view(torch.int16).int()
        found.append(torch.where(places < 0, -(places & 0x7FFF), places))
    return (found[0] - found[1]).abs()


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *((f"linear {name}", method) for name, method in LINEAR.items()),
        ("slerp", Method("slerp", SCHEDULES["module"])),
        ("task_arithmetic", Method("task_arithmetic", base=str(MERGEKIT / "base"))),
        ("ties", Method("ties", base=str(MERGEKIT / "base"))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mergekits_own_result_is_ours(name: str, method: Method) -> None:
    """To within one bfloat16 step; of changes that are as large as the least one kept its TIES keeps some, ours all."""
    merge = merge_of([MERGEKIT / model for model in ("base", "instruct", "thinking")], method)
    recipe = yaml.safe_load((MERGEKIT / f"{name.replace(' ', '_')}.yml").read_text())
    assert recipe == mergekit_recipe(merge)
    theirs = load_file(MERGEKIT / f"{name.replace(' ', '_')}.safetensors")
    assert theirs.keys() == merge.infos.keys()
    for tensor, values in theirs.items():
        ours = merge.tensor(tensor)
        small = (ours.float() - values.float()).abs() < 1e-6  # near 0 steps are no measure
        alike = (steps_apart(ours, values) <= 1) | small
        if method.name == "ties":
            alike |= at_the_limit(merge, tensor)
        assert alike.all(), tensor


def at_the_limit(merge: Merge, name: str) -> Tensor:
    """Where a model's change is as large as the least one that TIES keeps."""
    base, *models = (model.read(name).float() for model in merge.models.values())
    limits = ties_limits(pieces_of(base, *models), num_values=base.numel())
    first, second = ((model - base).abs() == limit for model, limit in zip(models, limits, strict=True))
    return first | second
