"""The baselines: an engine holds in place what the formulas give, and a base that does not fit is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from checkpoints import edit_json, edit_tensors, tiny_checkpoint, tiny_tokenizer
from small_search import small_config
from torch import Tensor

from autolambda.config import BaselineName
from autolambda.driver.baselines.all import check_baselines
from autolambda.driver.baselines.merges import baseline_method
from autolambda.driver.engine import open_engine
from autolambda.driver.job import Job, open_job
from autolambda.engines.base import Prompt
from autolambda.engines.chat import ChatFormat
from autolambda.errors import CheckpointError, ConfigError, PairError
from autolambda.merging import arithmetic
from autolambda.merging.arithmetic import task_arithmetic
from autolambda.merging.checkpoint import open_checkpoint
from autolambda.merging.kernels.sums import pieces_of, slerp_weights, ties_limits
from autolambda.merging.merge import open_merge
from autolambda.merging.method import ROUNDINGS, Method, RoundingName
from autolambda.merging.rounding import Draws
from autolambda.schedule import Schedule

SINGLE, NORM = "model.safetensors", "model.norm.weight"


def ties(base: Tensor, instruct: Tensor, thinking: Tensor, *, draws: Draws | None) -> Tensor:
    limits = ties_limits(pieces_of(base, instruct, thinking), num_values=base.numel())
    return arithmetic.ties(base, instruct, thinking, limits=limits, draws=draws)


def slerp(base: Tensor, instruct: Tensor, thinking: Tensor, *, draws: Draws | None) -> Tensor:
    weights = slerp_weights(pieces_of(instruct, thinking), 0.3)
    return arithmetic.slerp(instruct, thinking, 0.3, weights=weights, draws=draws)


MERGES: dict[BaselineName, Callable[..., Tensor]] = {
    "task_arithmetic": task_arithmetic,
    "ties": ties,
    "slerp": slerp,
}
CHAT = ChatFormat(tiny_tokenizer(), "")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    for seed, name in enumerate(("base", "instruct", "thinking")):
        for tie in (True, False):
            tiny_checkpoint(folder / f"{name}-{'tied' if tie else 'untied'}", tie=tie, seed=seed)
        tiny_checkpoint(folder / f"{name}-moe", family="qwen3_moe", tie=False, seed=seed)
    return folder


def job_of(originals: Path, kinds: str | tuple[str, str] = "tied", **changes: object) -> Job:
    one, other = (kinds, kinds) if isinstance(kinds, str) else kinds
    names = {"models__instruct": originals / f"instruct-{one}", "models__thinking": originals / f"thinking-{other}"}
    return open_job(small_config(**{key: str(path) for key, path in names.items()}, **changes))


def method_of(method: BaselineName, base: Path) -> Method:
    if method == "slerp":
        return Method("slerp", Schedule.uniform(0.3))
    assert method != "cut"
    return Method(method, base=str(base))


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("method", MERGES)
@pytest.mark.parametrize(
    "kinds",
    [
        ("tied", "tied", "tied"),
        ("untied", "untied", "untied"),
        ("untied", "tied", "tied"),
        ("tied", "untied", "untied"),
        ("tied", "tied", "untied"),
        ("moe", "moe", "moe"),
    ],
    ids=lambda kinds: "-".join(kinds),
)
def test_a_merge_is_its_formula_tensor_by_tensor(
    originals: Path, method: BaselineName, kinds: tuple[str, str, str], rounding: RoundingName
) -> None:
    """Experts are merged one by one, as they lie on disk."""
    base = originals / f"base-{kinds[0]}"
    pair = job_of(originals, kinds[1:], merge__rounding=rounding).models.pair
    merge = open_merge(pair, method_of(method, base))
    names = ("base", "instruct", "thinking")
    models = [open_checkpoint(str(originals / f"{name}-{kind}")) for name, kind in zip(names, kinds, strict=True)]
    held = kinds[1:] if method == "slerp" else kinds
    assert merge.tied is (set(held) == {"tied"}) and merge.config["tie_word_embeddings"] is merge.tied
    assert ("lm_head.weight" in merge.infos) is not merge.tied
    for name in merge.infos:
        stored = [name if name in model.tensors else "model.embed_tokens.weight" for model in models]
        tensors = [model.read(each) for model, each in zip(models, stored, strict=True)]
        draws = merge.pair.rounding.draws(name, tensors[0].shape, tensors[0].dtype)
        assert (draws is None) is (rounding == "nearest" or tensors[0].dim() == 1)
        expected = MERGES[method](*tensors, draws=draws)
        assert torch.equal(merge.tensor(name), expected) and merge.tensor(name).dtype == expected.dtype


def test_the_bundled_baselines_answer() -> None:
    job = open_job(small_config(sampling__temperature=0.0, sampling__max_tokens=192))
    prompts = [Prompt(job.models.chat.render(sample), seed) for seed, sample in enumerate(job.search[0].samples)]
    fingerprints = set()
    with closing(open_engine(job)) as engine:
        for method in MERGES:
            engine.set_merge(baseline_method(job, method, lam=0.7))
            fingerprints.add(engine.fingerprint())
            responses = engine.generate(prompts, job.models.sampling)
            num_right = sum(
                response.text.strip()[-1:] == sample.target
                for response, sample in zip(responses, job.search[0].samples, strict=True)
            )
            assert num_right > len(prompts) / 2, method
    assert len(fingerprints) == len(MERGES)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_a_missing_base_is_named(originals: Path, method: BaselineName) -> None:
    job = job_of(originals, search__baselines=[method])
    for check in (lambda: baseline_method(job, method, lam=0.5), lambda: check_baselines(job)):
        with pytest.raises(ConfigError, match=f"models.base: {method} needs the base model"):
            check()


def checked(originals: Path, base: Path) -> None:
    check_baselines(job_of(originals, models__base=str(base), search__baselines=["slerp", "ties"]))


def test_a_base_with_a_head_of_its_own_has_no_place_in_an_engine_of_tied_parents(originals: Path) -> None:
    checked(originals, originals / "base-tied")
    with pytest.raises(ConfigError, match=r"models\.base: the base model has an lm_head of its own"):
        checked(originals, originals / "base-untied")
    with closing(open_engine(job_of(originals))) as engine, pytest.raises(ConfigError, match="lm_head of its own"):
        engine.set_merge(method_of("ties", originals / "base-untied"))


def test_a_base_of_another_form_is_refused_with_all_that_differs(originals: Path, tmp_path: Path) -> None:
    base, up_proj = tiny_checkpoint(tmp_path / "base"), "model.layers.1.mlp.up_proj.weight"
    edit_tensors(base / SINGLE, lambda tensors: tensors.update({NORM: torch.ones(31), up_proj: tensors[up_proj][:40]}))
    content = json.loads((base / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (base / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(PairError) as raised:
        checked(originals, base)
    text = str(raised.value)
    assert text.startswith(f"models.base: '{base}' is not the parents' base")
    assert f"{NORM}: base float32 [31], thinking bfloat16 [32]" in text
    assert f"{up_proj}: base bfloat16 [40, 32], thinking bfloat16 [48, 32]" in text
    assert "tokens with another id" in text and "instruct" not in text


def test_other_layers_and_special_tokens_are_named_as_the_bases(originals: Path, tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base", num_hidden_layers=1)
    content = json.loads((base / "tokenizer.json").read_text())
    content["added_tokens"][3]["content"] = "<thought>"
    (base / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(PairError) as raised:
        checked(originals, base)
    assert "tensors that base does not have: model.layers.1." in str(raised.value)
    assert "is '<thought>' for base, '<think>' for thinking" in str(raised.value)


def test_a_base_with_another_context_gives_the_parents_config(originals: Path, tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base", rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    edit_json(base / "config.json", max_position_embeddings=64)
    pair = job_of(originals).models.pair
    assert open_merge(pair, method_of("ties", base)).config == pair.config


def test_a_broken_base_is_refused(originals: Path, tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base")
    edit_tensors(base / SINGLE, lambda tensors: tensors[NORM].fill_(torch.nan))
    with pytest.raises(CheckpointError, match="NaN or infinite values in model\\.norm"):
        checked(originals, base)
