"""The baselines on request that choose a schedule: the sweep by hand, and ACM's coefficients of the layers."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from engine import no_engine
from small_search import NAME, answer, copy_finished, database, small_config, storage_in

from autolambda.bundled import FOLDER
from autolambda.driver.baselines import sweep
from autolambda.driver.baselines.acm import schedule_of
from autolambda.driver.search import search
from autolambda.errors import ConfigError
from autolambda.schedule import Schedule


@pytest.fixture
def copied(tmp_path: Path) -> str:
    """The finished study's database, copied: what is done to it stays here."""
    return copy_finished(storage_in(tmp_path))


def test_the_sweep_confirms_what_its_own_numbers_name(copied: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "LAMBDAS", (0.0, 0.3, 1.0))
    config = small_config(search__baselines=["sweep"])
    report = search(config, name=NAME, storage=copied)
    tables = database(copied)
    assert [row[3] for row in tables["evaluations"] if row[1] == "sweep"] == ['{"lambda": 0.3}']  # not the parents
    keys = {row[0]: row[3] for row in tables["evaluations"] if row[1] in ("trial", "sweep")}
    responses = [
        [row for row in tables["responses"] if keys.get(row[0]) == Schedule.uniform(lam).key][:16]
        for lam in (0.0, 0.3, 1.0)
    ]
    means = [(sum(r[7] == "correct" for r in rows) / 16, sum(r[5] for r in rows) / 16) for rows in responses]
    lams = [0.0, 0.3, 1.0]
    within = [(accuracy, lam) for (accuracy, tokens), lam in zip(means, lams, strict=True) if tokens <= config.budget]
    [(name, result)] = report.baselines.items()
    assert name == f"sweep for 30.0 tokens, lambda {max(within)[1]:g}" and result.schedule.lam == max(within)[1]
    assert result.confirmed and result.measured.num_responses == report.confirmed[0].measured.num_responses
    assert answer(search(config, name=NAME, storage=copied, engine=no_engine())) == answer(report)


def test_acm_weighs_the_parent_more_that_changed_a_layer_more(copied: str) -> None:
    schedule = schedule_of([2.0, 1.0, 0.5], [1.0, 1.0, 1.0])
    lams = [schedule.attention.at(layer, 3) for layer in range(3)]
    assert lams[1] == pytest.approx(0.5) and all(one > other for one, other in itertools.pairwise(lams))
    parents = {f"models__{name}": str(FOLDER / name) for name in ("instruct", "thinking", "base")}
    config = small_config(search__baselines=["acm"])
    report = search(config, name=NAME, storage=copied)
    [(name, result)] = report.baselines.items()
    assert name == "acm" and result.schedule.attention.kind == "bands" and len(result.schedule.attention.values) == 6
    assert all(0 < lam < 1 for lam in result.schedule.attention.values)
    assert answer(search(config, name=NAME, storage=copied, engine=no_engine())) == answer(report)
    del parents["models__base"]
    with pytest.raises(ConfigError, match=r"models\.base: acm needs the base model"):
        search(small_config(search__baselines=["acm"], **parents), name=NAME, storage=copied, engine=no_engine())
