"""The families that open: their table in the documents, and each one merged, run and exported as a miniature."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import write_merge
from families import FAMILIES, Family, save_family
from paths import ROOT
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from autolambda.engines.chat import load_tokenizer
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.errors import EngineError
from autolambda.merging.fingerprint import digest_of_hashes
from autolambda.merging.merge import open_merge
from autolambda.merging.method import Method
from autolambda.merging.pair import Pair, open_pair
from autolambda.schedule import Schedule

PAGE = ROOT / "autolambda" / "engines" / "README.md"
HEAD = "| family | example pair | spaces | engines, and how they were tried |\n|---|---|---|---|\n"
MIXED = Schedule.by_module(attention=0.3, ffn=0.7)


def test_the_table_of_families_is_that_of_the_tests() -> None:
    rows = [f"| `{each.model_type}` | {each.pair} | {each.spaces} | {each.tried} |\n" for each in FAMILIES.values()]
    assert HEAD + "".join(rows) in PAGE.read_text(encoding="utf-8"), HEAD + "".join(rows)
    assert len(rows) >= 34


def parents(folder: Path, family: Family) -> tuple[Path, Path]:
    instruct, thinking = (save_family(folder / str(seed), family, seed=seed) for seed in (0, 1))
    return instruct, thinking


def opened(pair: Pair) -> TransformersEngine:
    return TransformersEngine(pair, tokenizer=load_tokenizer(pair.thinking.folder), device="cpu")


@torch.inference_mode()
def logits(model: torch.nn.Module) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=torch.tensor([[65, 66, 67, 80, 81, 90, 70]]), use_cache=False).logits
    return found


def loaded(folder: Path, family: Family) -> torch.nn.Module:
    auto = AutoModelForImageTextToText if family.nested else AutoModelForCausalLM
    model, report = auto.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return model.eval()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_merged_run_and_exported(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    folders = parents(tmp_path, family)
    pair = open_pair(*map(str, folders))
    assert ("all" if pair.modules.locations else "uniform") == family.spaces
    merge = open_merge(pair, MIXED if pair.modules.locations else Schedule.uniform(0.4))
    (tmp_path / "out").mkdir()
    written = digest_of_hashes(write_merge(tmp_path / "out", merge))
    exported = logits(loaded(tmp_path / "out", family))
    if not family.runs:
        with pytest.raises(EngineError, match="cannot generate in batches of independent rows"):
            opened(pair)
        return
    engine = opened(pair)
    for lam, folder in ((0.0, folders[0]), (1.0, folders[1])):
        engine.set_merge(Method.linear(Schedule.uniform(lam)))
        assert torch.equal(logits(engine._model), logits(loaded(folder, family))), lam
    engine.set_merge(merge.method)
    found = engine.fingerprint()
    assert found.whole and found.digest == written
    assert torch.equal(logits(engine._model), exported)
    engine.close()
