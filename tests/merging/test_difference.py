"""How parents differ: steps between known values, how far merges rounded to nearest move, samples, sentences."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoints import edit_tensors, tiny_checkpoint
from torch import Tensor

from autolambda.bundled import FOLDER
from autolambda.merging.difference import measure
from autolambda.merging.difference.measure import (
    LAMBDAS,
    measure_difference,
    order,
    sampled_rows,
    share_beside_nearest,
)
from autolambda.merging.difference.values import ParentDifference, percent
from autolambda.merging.merge import open_merge
from autolambda.merging.method import Method
from autolambda.merging.modules import llama_location
from autolambda.merging.pair import Pair, open_pair
from autolambda.merging.rounding import Rounding, matrix_shape
from autolambda.schedule import Schedule

NEAREST = Rounding("nearest")
EDGE = {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}  # the step above 1

Steps = Callable[[str, Tensor], Tensor | int]
"""Takes a tensor's name and the numbers of its values; returns by how many steps the parents differ there."""


def pair_of(folder: Path, steps: Steps, *, dtype: torch.dtype = torch.bfloat16, sign: float = 1.0, **config) -> Pair:
    """Parents whose values lie between 1 and 2, so that all steps are equal; odd and even values alternate."""

    def fill(tensors: dict[str, Tensor], *, is_thinking: bool) -> None:
        for name, tensor in tensors.items():
            place = torch.arange(tensor.numel())
            moved = place % 2 + (steps(name, place) if is_thinking else 0)
            tensor.copy_((sign * (1 + moved * EDGE.get(dtype, 2.0**-7))).view(tensor.shape))

    for name in ("instruct", "thinking"):
        tiny_checkpoint(folder / name, dtype=dtype, **config)
        edit_tensors(
            folder / name / "model.safetensors", lambda each, name=name: fill(each, is_thinking=name != "instruct")
        )
    return open_pair(str(folder / "instruct"), str(folder / "thinking"))


def bundled(rounding: Rounding = Rounding()) -> Pair:  # noqa: B008
    return open_pair(str(FOLDER / "instruct"), str(FOLDER / "thinking"), rounding=rounding)


def at(difference: ParentDifference, lam: float, part: str = "whole") -> float:
    return difference.moved[part][difference.lambdas.index(lam)]


@pytest.mark.parametrize("dtype", EDGE)
def test_order_counts_the_values_between_two_values(dtype: torch.dtype) -> None:
    least = torch.tensor([1], dtype=torch.int16).view(dtype)
    ascending = torch.tensor([-2, -1 - EDGE[dtype], -1, 0, 1, 1 + EDGE[dtype], 2 - EDGE[dtype], 2], dtype=dtype)
    places = order(ascending)
    mantissas = round(1 / EDGE[dtype])
    assert places.diff()[[1, 4, 6]].tolist() == [1, 1, 1] and places[-1] - places[4] == mantissas
    assert places[3] == 0 and places[0] == -places[-1]
    assert order(torch.tensor([-0.0, 0.0], dtype=dtype)).tolist() == [0, 0]
    assert order(torch.cat([-least, least])).tolist() == [-1, 1]


def module_of(name: str) -> str:
    location = llama_location(name)
    assert location is not None
    return location.module


@pytest.mark.parametrize(("dtype", "sign"), [(torch.bfloat16, 1.0), (torch.bfloat16, -1.0), (torch.float16, 1.0)])
def test_steps_are_counted_by_module(tmp_path: Path, dtype: torch.dtype, sign: float) -> None:
    def steps(name: str, place: Tensor) -> Tensor | int:
        module = module_of(name)
        return 0 if module == "attention" else 1 if module == "ffn" else torch.where(place % 4 < 2, 2, 7)

    pair = pair_of(tmp_path, steps, dtype=dtype, sign=sign)
    found = measure_difference(pair)
    assert found.dtype == str(dtype).removeprefix("torch.") and found.rounding == "dithered"
    assert (found.num_weights, found.is_sample) == (pair.num_parameters, False)
    assert found.basis == f"all {pair.num_parameters:,} weights" and found.steps is not None
    sizes = {"attention": 0, "ffn": 0, "other": 0}
    for name, info in pair.tensors.items():
        sizes[module_of(name)] += info.num_values
    assert found.steps["attention"] == (1, 0, 0, 0, 0, 0) and found.steps["ffn"] == (0, 1, 0, 0, 0, 0)
    assert found.steps["other"] == (0, 0, 0.5, 0, 0, 0.5)
    whole = [sizes["attention"], sizes["ffn"], sizes["other"] / 2, 0, 0, sizes["other"] / 2]
    assert found.steps["whole"] == pytest.approx([each / pair.num_parameters for each in whole], abs=1e-6)
    assert found.moved.keys() == {"whole", "ffn", "other"}  # equal modules do not move
    assert [at(found, lam, "ffn") for lam in (0.1, 0.49, 0.5, 0.51, 0.9)] == [0, 0, 0.5, 1, 1]


def test_one_step_makes_a_staircase_at_a_half_and_two_steps_at_the_quarters(tmp_path: Path) -> None:
    one = measure_difference(pair_of(tmp_path / "one", lambda name, place: 1))
    assert one.distorts and one.lambdas == LAMBDAS
    assert one.moved["whole"] == tuple(0.5 if lam == 0.5 else float(lam > 0.5) for lam in LAMBDAS)
    assert one.sentences() == (
        "All weights differ by at most one step of bfloat16.",
        "Rounded to nearest, merges at lambda 0.49, 0.5 and 0.51 would have moved 0.00, 0.50 and 1.00 of the way; "
        "dithered rounding moves them by 0.49, 0.5 and 0.51.",
    )
    two = measure_difference(pair_of(tmp_path / "two", lambda name, place: 2))
    assert [at(two, lam) for lam in (0.2, 0.25, 0.3, 0.7, 0.75, 0.8)] == [0, 0.25, 0.5, 0.5, 0.75, 1]
    assert "at lambda 0.2, 0.25 and 0.3 would have moved 0.00, 0.25 and 0.50" in two.sentences()[1]


def test_a_single_module_that_is_distorted_is_named(tmp_path: Path) -> None:
    def steps(name: str, place: Tensor) -> int:
        return 1 if module_of(name) == "attention" else 100

    found = measure_difference(pair_of(tmp_path, steps))
    assert found.distorts and abs(at(found, 0.49) - 0.49) < 0.01
    assert "the attention weights of merges at lambda 0.49, 0.5 and 0.51 would have moved 0.00" in found.sentences()[1]


def test_the_sentences_fit_the_rounding_of_the_pair(tmp_path: Path) -> None:
    pair = pair_of(tmp_path / "close", lambda name, place: place // 2 % 2)
    found = measure_difference(replace(pair, rounding=NEAREST))
    assert found.rounding == "nearest" and found.sentences() == (
        "All weights differ by at most one step of bfloat16.",
        "Rounded to nearest, merges at lambda 0.49, 0.5 and 0.51 move 0.00, 0.50 and 1.00 of the way; "
        "merge.rounding: dithered moves them by lambda.",
    )
    equal = measure_difference(pair_of(tmp_path / "equal", lambda name, place: 0))
    assert equal.moved == {} and not equal.distorts
    assert equal.sentences()[1] == "The parents hold equal weights, so every merge equals them."
    assert list(equal.lines()) == list(equal.sentences())


def test_parents_far_apart_are_said_to_need_no_care() -> None:
    for rounding in (Rounding(), NEAREST):
        found = measure_difference(bundled(rounding))
        assert not found.distorts and found.rounding == rounding.name
        assert found.sentences()[1] == "How merges are rounded makes no difference to speak of for this pair."
        assert max(abs(at(found, lam) - lam) for lam in LAMBDAS) < 0.01


def test_float32_has_no_steps(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, lambda name, place: 1, dtype=torch.float32)
    found = measure_difference(pair)
    assert (found.steps, found.moved, found.num_weights, found.distorts) == (None, {}, 0, False)
    assert list(found.lines()) == ["The parents are float32: their merges are not rounded."]
    assert found.step_rows() == found.moved_rows() == []
    assert share_beside_nearest(open_merge(pair, Schedule.uniform(0.3))) == 0


def test_the_plain_form_is_read_back(tmp_path: Path) -> None:
    found = [measure_difference(bundled()), measure_difference(pair_of(tmp_path, lambda name, place: place % 3))]
    found.append(replace(found[0], steps=None, moved={}, lambdas=()))
    for each in found:
        plain = json.loads(json.dumps(each.to_dict()))
        assert ParentDifference.from_dict(plain) == each
        assert plain.keys() == {"dtype", "rounding", "weights", "sampled", "steps", "moved"}
    row = found[0].to_dict()["moved"][7]
    assert row.keys() == {"lambda", "whole", "attention", "ffn", "other"} and row["lambda"] == 0.5


def test_a_sample_is_spread_evenly_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = bundled()
    whole = measure_difference(pair)
    monkeypatch.setattr(measure, "MOST_WEIGHTS", pair.num_parameters // 7)
    found = measure_difference(pair)
    assert found == measure_difference(pair) and found.is_sample
    assert found.num_weights < pair.num_parameters / 6 and found.basis == f"a sample of {found.num_weights:,} weights"
    assert whole.steps is not None and found.steps is not None
    for part, shares in whole.steps.items():
        assert found.steps[part] == pytest.approx(shares, abs=0.03), part
        assert found.moved[part] == pytest.approx(whole.moved[part], abs=0.01), part
    for name, rows in sampled_rows(pair.tensors).items():
        num_rows = matrix_shape(pair.tensors[name].shape)[0]
        assert len(rows) == -(-num_rows // 8) and 0 <= rows[0] < 8 and num_rows - 16 < rows[-1] < num_rows
        assert (rows.diff() > 0).all() and (len(rows) == 1 or rows.diff().max() < 16)


def test_a_head_that_only_one_parent_ties_is_compared_too(tmp_path: Path) -> None:
    tied = tiny_checkpoint(tmp_path / "tied", tie=True)
    pair = open_pair(str(tied), str(tiny_checkpoint(tmp_path / "untied", tie=False, seed=1)))
    assert measure_difference(pair).num_weights == pair.num_parameters > open_pair(str(tied), str(tied)).num_parameters


@pytest.mark.parametrize(
    "method",
    [
        Method.linear(Schedule.uniform(0.3)),
        Method.linear(Schedule.by_module(attention=1.0, ffn=0.6)),
        Method("slerp", Schedule.uniform(0.6)),
        Method("task_arithmetic", base=str(FOLDER / "base")),
        Method("ties", base=str(FOLDER / "base")),
    ],
    ids=str,
)
def test_weights_beside_the_nearest_are_those_of_the_whole_merge(method: Method) -> None:
    dithered, nearest = open_merge(bundled(), method), open_merge(bundled(NEAREST), method)
    beside = sum(int((dithered.tensor(name) != nearest.tensor(name)).sum()) for name in dithered.infos)
    share = share_beside_nearest(dithered)
    assert share == beside / dithered.pair.num_parameters and 0.05 < share < 0.5
    assert share_beside_nearest(nearest) == 0


@pytest.mark.parametrize("sizes", [(264, 320), (320, 264)])
def test_padding_rows_of_either_parent_are_not_compared(tmp_path: Path, sizes: tuple[int, int]) -> None:
    folders = [tiny_checkpoint(tmp_path / f"{i}", vocab_size=size, seed=i) for i, size in enumerate(sizes)]
    pair = open_pair(*map(str, folders))
    assert measure_difference(pair).num_weights == pair.num_parameters - 32 * (sizes[1] - 264)
    assert 0 < share_beside_nearest(open_merge(pair, Schedule.uniform(0.4))) < 1


def test_a_parent_is_the_nearest_itself() -> None:
    assert share_beside_nearest(open_merge(bundled(), Schedule.uniform(1.0))) == 0


def test_an_engine_that_merged_in_this_thread_is_no_hindrance() -> None:
    """It computes in inference mode, which marks the buffers that it leaves behind."""
    merge = open_merge(bundled(), Schedule.uniform(0.3))
    name = next(iter(merge.infos))
    with torch.inference_mode():
        merge.tensor(name)
    assert share_beside_nearest(merge) > 0


def test_a_sample_tells_about_the_weights_beside_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    for method in (Schedule.uniform(0.3), Method("ties", base=str(FOLDER / "base"))):
        merge = open_merge(bundled(), method)
        whole = share_beside_nearest(merge)
        with monkeypatch.context() as patch:
            patch.setattr(measure, "MOST_WEIGHTS", 100_000)
            assert share_beside_nearest(merge) == pytest.approx(whole, abs=0.01)


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "0 %"), (0.001, "less than 1 %"), (0.374, "37 %"), (0.999, "more than 99 %"), (1.0, "100 %")],
)
def test_percentages_never_round_to_none_or_all(share: float, words: str) -> None:
    assert percent(share) == words
