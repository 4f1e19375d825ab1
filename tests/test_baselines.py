"""The baselines: an engine holds what the formulas give, and a base that does not fit is refused by name."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoints import edit_json, edit_tensors, tiny_checkpoint, tiny_tokenizer
from small_search import small_config
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm_engines import needs_vllm

from autolambda.baselines import baseline_job, choose_cut, write_baseline
from autolambda.chat import ChatFormat
from autolambda.checkpoint import Checkpoint, open_checkpoint
from autolambda.config import BaselineName
from autolambda.engines.base import Prompt
from autolambda.engines.transformers import TransformersEngine
from autolambda.errors import CheckpointError, ConfigError, InputError, OutputError, PairError
from autolambda.job import Job, open_engine, open_job
from autolambda.merge import slerp, task_arithmetic, ties
from autolambda.responses import Grade, Graded, Response
from autolambda.schedule import Schedule
from autolambda.tasks.arithmetic import FOLDER

pytestmark = pytest.mark.usefixtures("one_thread")

SINGLE, NORM = "model.safetensors", "model.norm.weight"
MERGES: dict[BaselineName, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "task_arithmetic": task_arithmetic,
    "ties": ties,
    "slerp": lambda base, instruct, thinking: slerp(instruct, thinking, 0.3),
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


def base_of(originals: Path, kind: str = "tied") -> Checkpoint:
    return open_checkpoint(str(originals / f"base-{kind}"))


def loaded(folder: Path) -> dict[str, Tensor]:
    """The model's tensors as transformers loads them, a tied lm_head among them."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    tensors: dict[str, Tensor] = model.state_dict()
    return tensors


@pytest.mark.parametrize("method", MERGES)
@pytest.mark.parametrize(
    "kinds",
    [
        ("tied", "tied", "tied"),
        ("untied", "untied", "untied"),
        ("untied", "tied", "tied"),
        ("tied", "untied", "untied"),
        ("tied", "tied", "untied"),
    ],
    ids=lambda kinds: "-".join(kinds),
)
def test_the_engine_holds_what_the_formula_gives(
    originals: Path, tmp_path: Path, method: BaselineName, kinds: tuple[str, str, str]
) -> None:
    job = job_of(originals, kinds[1:])
    write_baseline(job.models, tmp_path / "out", method=method, base=base_of(originals, kinds[0]), lam=0.3)
    names = ("base", "instruct", "thinking")
    models = [loaded(originals / f"{name}-{kind}") for name, kind in zip(names, kinds, strict=True)]
    expected = {name: MERGES[method](*(model[name] for model in models)) for name in models[0]}
    merged = loaded(tmp_path / "out")
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], tensor) for name, tensor in expected.items())
    held = ("tied",) * 2 if method == "slerp" else ("tied",) * 3
    assert open_checkpoint(str(tmp_path / "out")).tied is (kinds[-len(held) :] == held)

    with closing(open_engine(baseline_job(job, tmp_path / "out"))) as engine:
        assert isinstance(engine, TransformersEngine)
        for lam in (0.0, 0.4, 1.0):
            engine.set_schedule(Schedule.uniform(lam))
            for name, live in engine._live.items():
                assert torch.equal(live.bfloat16(), expected[name]), name


@pytest.mark.parametrize("method", MERGES)
def test_experts_are_merged_as_they_lie_on_disk(originals: Path, tmp_path: Path, method: BaselineName) -> None:
    base, pair = base_of(originals, "moe"), job_of(originals, "moe").models.pair
    write_baseline(job_of(originals, "moe").models, tmp_path / "out", method=method, base=base, lam=0.3)
    merged = open_checkpoint(str(tmp_path / "out"))
    assert any(".experts." in name for name in pair.names) and merged.tensors.keys() == base.tensors.keys()
    for name in pair.names:
        parents = pair.read(name)
        assert torch.equal(merged.read(name), MERGES[method](base.read(name), parents.instruct, parents.thinking))
    loaded(tmp_path / "out")


def test_the_folder_is_a_whole_model(tmp_path: Path) -> None:
    job = open_job(small_config(models__chat_template="instruct", sampling__temperature=0.7))
    write_baseline(job.models, tmp_path / "out", method="ties", base=open_checkpoint(str(FOLDER / "base")))
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == job.models.chat.template
    assert tokenizer.get_vocab() == job.models.chat.tokenizer.get_vocab()
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (generation["temperature"], generation["max_new_tokens"], generation["eos_token_id"]) == (0.7, 64, 2)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForCausalLM"]


def test_a_baseline_job_keeps_prompts_sampling_and_ends(originals: Path, tmp_path: Path) -> None:
    job = job_of(originals)
    write_baseline(job.models, tmp_path / "out", method="slerp")
    baseline = baseline_job(job, tmp_path / "out")
    assert baseline.models.pair.instruct.folder == baseline.models.pair.thinking.folder == tmp_path / "out"
    assert replace(baseline, models=job.models) == job
    assert replace(baseline.models, pair=job.models.pair) == job.models
    with closing(open_engine(baseline)) as engine, closing(open_engine(job)) as searched:
        assert isinstance(engine, TransformersEngine) and isinstance(searched, TransformersEngine)
        assert engine._end_ids == searched._end_ids


def test_the_bundled_baselines_answer(tmp_path: Path) -> None:
    job = open_job(small_config(sampling__temperature=0.0, sampling__max_tokens=192))
    prompts = [Prompt(job.models.chat.render(sample), seed) for seed, sample in enumerate(job.search[0].samples)]
    fingerprints = set()
    for method in MERGES:
        folder = tmp_path / method
        write_baseline(job.models, folder, method=method, base=open_checkpoint(str(FOLDER / "base")), lam=0.7)
        with closing(open_engine(baseline_job(job, folder))) as engine:
            fingerprints.add(engine.fingerprint())
            responses = engine.generate(prompts, job.models.sampling)
        num_right = sum(
            response.text.strip()[-1:] == sample.target
            for response, sample in zip(responses, job.search[0].samples, strict=True)
        )
        assert num_right > len(prompts) / 2, method
    assert len(fingerprints) == len(MERGES)


@needs_vllm
def test_vllm_opens_a_baseline(tmp_path: Path) -> None:
    changes = {"sampling__temperature": 0.0, "engine__dtype": "float32"}
    job = open_job(small_config(**changes))
    write_baseline(job.models, tmp_path / "out", method="task_arithmetic", base=open_checkpoint(str(FOLDER / "base")))
    prompts = [Prompt(job.models.chat.render(sample), 0) for sample in job.search[0].samples]
    found = []
    for name in ("transformers", "vllm"):
        one = open_job(small_config(**changes, engine__name=name, engine__threads=None))
        with closing(open_engine(baseline_job(one, tmp_path / "out"))) as engine:
            engine.set_schedule(Schedule.uniform(0.0))
            found.append(engine.generate(prompts, job.models.sampling))
    assert found[0] == found[1]


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_a_missing_base_is_named(originals: Path, tmp_path: Path, method: BaselineName) -> None:
    with pytest.raises(ConfigError, match=f"models.base: {method} needs the base model"):
        write_baseline(job_of(originals).models, tmp_path / "out", method=method)
    assert not list(tmp_path.iterdir())


def test_a_cut_is_no_merge(originals: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="CutEngine"):
        write_baseline(job_of(originals).models, tmp_path / "out", method="cut")


def test_a_base_of_another_form_is_refused_with_all_that_differs(originals: Path, tmp_path: Path) -> None:
    base, up_proj = tiny_checkpoint(tmp_path / "base"), "model.layers.1.mlp.up_proj.weight"
    edit_tensors(base / SINGLE, lambda tensors: tensors.update({NORM: torch.ones(32), up_proj: tensors[up_proj][:40]}))
    content = json.loads((base / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (base / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(PairError) as raised:
        write_baseline(
            job_of(originals).models, tmp_path / "out", method="ties", base=open_checkpoint(str(tmp_path / "base"))
        )
    text = str(raised.value)
    assert text.startswith(f"models.base: '{base}' is not the parents' base")
    assert f"{NORM}: base float32 [32], thinking bfloat16 [32]" in text
    assert f"{up_proj}: base bfloat16 [40, 32], thinking bfloat16 [48, 32]" in text
    assert "tokens with another id" in text and "instruct" not in text
    assert not (tmp_path / "out").exists()


def test_other_layers_and_special_tokens_are_named_as_the_bases(originals: Path, tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base", num_hidden_layers=1)
    content = json.loads((base / "tokenizer.json").read_text())
    content["added_tokens"][3]["content"] = "<thought>"
    (base / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(PairError) as raised:
        write_baseline(job_of(originals).models, tmp_path / "out", method="ties", base=open_checkpoint(str(base)))
    assert "tensors that base does not have: model.layers.1." in str(raised.value)
    assert "is '<thought>' for base, '<think>' for thinking" in str(raised.value)


def test_a_base_with_another_context_gives_the_parents_config(originals: Path, tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base", rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    edit_json(base / "config.json", max_position_embeddings=64)
    job = job_of(originals)
    write_baseline(job.models, tmp_path / "out", method="ties", base=open_checkpoint(str(base)))
    assert open_checkpoint(str(tmp_path / "out")).config == job.models.pair.config


def test_a_broken_base_is_refused(originals: Path, tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base")
    edit_tensors(base / SINGLE, lambda tensors: tensors[NORM].fill_(torch.nan))
    with pytest.raises(CheckpointError, match="NaN or infinite values in model\\.norm"):
        write_baseline(job_of(originals).models, tmp_path / "out", method="ties", base=open_checkpoint(str(base)))


def test_a_folder_that_exists_stays_and_a_failure_leaves_none(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = job_of(originals).models
    with pytest.raises(OutputError, match="exists already"):
        write_baseline(models, tmp_path, method="slerp")

    def fail(*tensors: Tensor) -> Tensor:
        raise PairError("in the middle")

    monkeypatch.setattr("autolambda.baselines.slerp", fail)
    with pytest.raises(PairError, match="in the middle"):
        write_baseline(models, tmp_path / "out", method="slerp")
    assert not list(tmp_path.iterdir())


def thinking_response(thought: int, answer: int | None, task: str = "t") -> Graded:
    """``thought`` tokens with the tag, ``answer`` with the end token; without an answer it never closes."""
    text = "x" * thought if answer is None else "x" * (thought - 1) + "</think>" + "y" * (answer - 1)
    response = Response(text, thought + (answer or 0), "length" if answer is None else "stop")
    return Graded(task, "s", 0, response, Grade.WRONG, None, answer is not None)


@pytest.mark.parametrize(
    ("lengths", "budget", "cap"),
    [
        ([(10, 2)], 12, 12),  # does not bind: the longest response
        ([(10, 2)], 99, 12),
        ([(10, 2)], 11.9, 9),
        ([(10, 2)], 7, 5),
        ([(10, 2)], 3, 1),
        ([(10, 2)], 2.9, None),
        ([(10, 2), (100, 2)], 30, 46),  # (12 + 48) / 2
        ([(10, 2), (100, 8)], 30, 40),
        ([(10, 2), (100, 8)], 29.9, 39),
        ([(10, 2), (30, None)], 20, 26),  # the one that is cut off would answer in 2 as well
        ([(10, 2), (30, None)], 21, 30),
        ([(10, 2), (10, 4), (30, None)], 15, 16),  # 12 + 14 + 16 + 3
        ([(30, None)], 20, None),
    ],
)
def test_the_cap_is_the_largest_within_the_budget(
    lengths: list[tuple[int, int | None]], budget: float, cap: int | None
) -> None:
    found = choose_cut([thinking_response(*length) for length in lengths], CHAT, budget=budget)
    assert found == cap


def test_the_cap_is_that_of_trying_them_all() -> None:
    rng = random.Random(0)
    for _ in range(50):
        lengths = [(rng.randint(1, 60), rng.randint(1, 9)) for _ in range(7)]
        budget = rng.uniform(1, 70)

        def mean(cap: int, lengths: list[tuple[int, int]] = lengths) -> float:
            return sum(min(cap, thought) + answer for thought, answer in lengths) / len(lengths)

        fitting = [cap for cap in range(1, max(map(sum, lengths)) + 1) if mean(cap) <= budget]
        graded = [thinking_response(*length) for length in lengths]
        assert choose_cut(graded, CHAT, budget=budget) == max(fitting, default=None)


def test_the_cap_weighs_tasks_as_the_budget_does() -> None:
    graded = [thinking_response(10, 2, "short"), thinking_response(10, 2, "short"), thinking_response(100, 2, "long")]
    assert choose_cut(graded, CHAT, budget=30) == 46  # tasks are equal, not responses
    assert choose_cut(graded, CHAT, budget=29.1, weights={"short": 0.8, "long": 0.2}) == 95
    with pytest.raises(InputError, match="weights must name the tasks"):
        choose_cut(graded, CHAT, budget=30, weights={"short": 1.0})


def test_the_first_tag_ends_the_thinking() -> None:
    response = Response("xxxx</think>yy</think>yy", 11, "stop")
    graded = [Graded("t", "s", 0, response, Grade.WRONG, None, True)]
    assert choose_cut(graded, CHAT, budget=8) == 2  # 5 and 6
