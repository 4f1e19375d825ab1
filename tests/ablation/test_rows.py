"""The rows of the paper's studies: what is interpolated in each, what it is called, and its key in the database."""

from __future__ import annotations

import json

import pytest

from autolambda.ablation.rows import AblationRow, references_of, rows_of, uniform_row
from autolambda.coefficients import Module
from autolambda.config import ABLATIONS, AblationConfig, AblationName, parse_config
from autolambda.engines.base import Sampling
from autolambda.errors import ConfigError
from autolambda.schedule import Location, Schedule

BACKBONES = ["/models/a-base", "owner/hybrid"]
MODULES: tuple[Module, ...] = ("attention", "ffn")


def rows(study: AblationName, *, num_layers: int = 36, **config: object) -> list[AblationRow]:
    return rows_of(study, AblationConfig.model_validate(config), num_layers=num_layers, backbones=BACKBONES)


def everything() -> list[AblationRow]:
    return [row for study in ABLATIONS for row in rows(study)]


def lams(schedule: Schedule, module: Module, num_layers: int) -> list[float]:
    return [schedule.at(Location(layer, module), num_layers=num_layers).lam for layer in range(num_layers)]


@pytest.mark.parametrize(
    ("num_layers", "spans"),
    [
        (36, [(0, 11), (12, 23), (24, 35), (0, 23), (12, 35)]),  # as in the paper's table 3
        (6, [(0, 1), (2, 3), (4, 5), (0, 3), (2, 5)]),
        (32, [(0, 10), (11, 21), (22, 31), (0, 21), (11, 31)]),
        (3, [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2)]),
    ],
)
def test_thirds_of_the_layers_are_interpolated_and_all_else_is_instruct(
    num_layers: int, spans: list[tuple[int, int]]
) -> None:
    found = rows("layers", num_layers=num_layers)
    for row, (first, last) in zip(found, spans, strict=True):
        expected = [0.8 if first <= layer <= last else 0.0 for layer in range(num_layers)]
        assert all(lams(row.schedule, module, num_layers) == expected for module in MODULES)
        assert row.schedule.other == 0.0
        expected_name = f"only layers {first} to {last}" if first < last else f"only layer {first}"
        assert row.label(num_layers) == expected_name
    assert [row.label() for row in found][::4] == ["only third 1 of the layers", "only thirds 2 and 3 of the layers"]


def test_a_third_without_a_layer_is_no_row() -> None:
    assert [row.label(2) for row in rows("layers", num_layers=2)] == [
        "only layer 0",
        "only layer 1",
        "only layers 0 to 1",
        "only layer 1",
    ]


@pytest.mark.parametrize(("place", "label", "expected"), [(0, "attention", (0.0, 0.7)), (1, "ffn", (0.7, 0.0))])
def test_a_module_that_is_left_out_is_instructs(place: int, label: str, expected: tuple[float, float]) -> None:
    row = rows("modules", partial_lambda=0.7)[place]
    assert row.label() == f"without {label}"
    assert tuple(lams(row.schedule, module, 1)[0] for module in MODULES) == expected
    assert row.schedule.other == 0.7


def test_decoding_changes_the_sampling_and_nothing_else_of_it() -> None:
    own = Sampling(1.0, 1.0, 20, 0.1, 0.5, ("stop",), 99)
    found = rows("decoding", decoding_lambdas=[0.5], temperatures=[0.6, 1.0], top_ps=[0.8, 0.95])
    assert [(row.temperature, row.top_p) for row in found] == [(0.6, 0.8), (0.6, 0.95), (1.0, 0.8), (1.0, 0.95)]
    assert found[0].sampling(own) == Sampling(0.6, 0.8, 20, 0.1, 0.5, ("stop",), 99)
    assert uniform_row(0.5).sampling(own) == own


def test_every_row_has_a_key_of_its_own_that_says_what_it_is() -> None:
    found = everything()
    keys = [row.key for row in found]
    assert len(set(keys)) == len(keys) == 11 + 2 + 5 + 2 + 8 + 8 + 3
    for row, key in zip(found, keys, strict=True):
        again = AblationRow.from_dict(json.loads(key))
        assert again.key == key and again.label(36) == row.label(36) and len(key) <= 512


def test_a_key_holds_the_backbones_contents_and_not_its_place() -> None:
    one = AblationRow("backbones", Schedule.uniform(0.4), backbone="/here/base", weights="a" * 64)
    moved = AblationRow("backbones", Schedule.uniform(0.4), backbone="/there/base", weights="a" * 64)
    changed = AblationRow("backbones", Schedule.uniform(0.4), backbone="/here/base", weights="b" * 64)
    assert one.key == moved.key != changed.key


def test_rows_are_compared_with_the_uniform_merge_at_their_lambda() -> None:
    assert {row.study: row.reference.lam for row in everything() if row.study not in ("decoding", "backbones")} == {
        "uniform": 1.0,
        "layers": 0.8,
        "modules": 0.8,
        "methods": 0.8,
    }
    assert [row.schedule.lam for row in references_of(rows("layers"))] == [0.0, 0.8]
    assert [row.schedule.lam for row in references_of(rows("decoding"))] == [0.4, 0.8]
    assert [row.schedule.lam for row in references_of(rows("backbones"))] == [0.0, 0.4, 0.6, 0.8]


def test_repeated_values_are_one_row() -> None:
    assert len(rows("uniform", lambdas=[0.5, 0.5])) == 2 + 1
    assert len(rows("methods", methods=["slerp", "slerp"])) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lambdas": [1.2]}, "ablation.lambdas.0: input should be less than or equal to 1, seen 1.2"),
        ({"lambdas": []}, "ablation.lambdas: tuple should have at least 1 item"),
        ({"partial_lambda": 0}, "ablation.partial_lambda: input should be greater than 0"),
        ({"top_ps": [0]}, "ablation.top_ps.0"),
        ({"methods": ["linear"]}, "ablation.methods.0"),
        ({"response": 3}, "unknown key 'ablation.response'; did you mean 'responses'?"),
    ],
)
def test_a_bad_value_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        parse_config({"ablation": changes})
