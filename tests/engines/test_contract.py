"""What every engine promises (engines/base.py), run on each that is installed."""

from __future__ import annotations

import functools
import hashlib
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from checkpoints import tiny_checkpoint, write_merge
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion
from vllm_engines import Fresh, fresh_vllm, live_weights, needs_vllm, open_vllm

from autolambda.coefficients import ByModule
from autolambda.engines.base import Engine, Prompt, Sampling
from autolambda.engines.chat import load_tokenizer
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.errors import PairError
from autolambda.merging.fingerprint import digest_of_hashes
from autolambda.merging.merge import open_merge
from autolambda.merging.method import AROUND_BASE, METHODS, Method
from autolambda.merging.pair import open_pair
from autolambda.schedule import Profile, Schedule

pytestmark = pytest.mark.usefixtures("one_thread")

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0, stop=(), max_tokens=40)
VARIED = replace(GREEDY, presence_penalty=2.0)  # without it, tiny random models repeat themselves
WARM = replace(GREEDY, temperature=1.5, top_k=50, top_p=0.95)
SCALED = Schedule.uniform(0.5).beyond(scale=1.4)
BEYOND = {
    "scale": SCALED,
    "outside": Schedule.uniform(1.2),
    "third": Schedule.uniform(0.3).beyond(third=0.2),
    "by module": Schedule.by_depth_and_module(Profile((0.2, 0.9)), Profile((0.7, 0.4))).beyond(
        scale=ByModule(1.2, 1.0, 0.8), third=ByModule(0.1, 0.3, 0.0)
    ),
    "the base": Schedule.uniform(0.5).beyond(scale=0.0),
    "the third parent": Schedule.uniform(0.0).beyond(third=1.0),
}
MIXED = Schedule.by_depth_and_module(Profile((0.2, 0.9)), Profile((0.7, 0.4)))
THREE = {
    "uniform": Schedule.from_dict({"lambda": 0.5, "scale": 1.4, "third": 0.2}),
    "by module": Schedule.by_module(attention=0.3, ffn=0.6).beyond(
        scale=ByModule(1.2, 1.4, 0.8), third=ByModule(0.1, 0.2, 0.3)
    ),
}


@dataclass(frozen=True)
class Kind:
    """How the suite opens an engine in float32, in this process or afresh, and looks at its live weights.

    ``weights`` are by their names on disk; where not ``signed``, reading them back loses the sign of 0.
    """

    open: Callable[..., Engine]
    fresh: Callable[..., Fresh]
    weights: Callable[[Engine], dict[str, Tensor]]
    signed: bool = True


def open_transformers(instruct: Path, thinking: Path, **further: str) -> Engine:
    pair = open_pair(str(instruct), str(thinking), **further)
    return TransformersEngine(pair, tokenizer=load_tokenizer(thinking), device="cpu")


def fresh_transformers(instruct, thinking, *, schedule, prompts, sampling):
    engine = open_transformers(instruct, thinking)
    engine.set_merge(Method.linear(schedule))
    answer = Fresh(engine.fingerprint(), engine.generate(prompts, sampling))
    engine.close()
    engine.close()
    return answer


def transformers_weights(engine: Engine) -> dict[str, Tensor]:
    assert isinstance(engine, TransformersEngine)
    files = revert_weight_conversion(engine._model, engine._model.state_dict())  # as transformers would save them
    return {name: live.bfloat16() for name, live in files.items()}


def vllm_kind(path):
    opening, fresh = functools.partial(open_vllm, path=path), functools.partial(fresh_vllm, path=path)
    return Kind(opening, fresh, live_weights, signed=path == "direct")


KINDS = {
    "transformers": Kind(open_transformers, fresh_transformers, transformers_weights),
    "vllm-direct": vllm_kind("direct"),
    "vllm-stream": vllm_kind("stream"),
}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[needs_vllm] if "vllm" in name else []) for name in KINDS]
)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base"), seed=0, tie=False)


@pytest.fixture(scope="module")
def further(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    third = tiny_checkpoint(tmp_path_factory.mktemp("third"), seed=3, tie=False)
    return {"base": str(base), "third": str(third)}


@pytest.fixture(scope="module")
def engine(kind: Kind, parents: tuple[Path, Path], further: dict[str, str]) -> Iterator[Engine]:
    engine = kind.open(*parents, **further)
    yield engine
    engine.close()


def prompts(num: int, *, seed: int = 0, longest: int = 60) -> list[Prompt]:
    """Prompts of 1 to ``longest`` letters, a token each."""
    chance = random.Random(seed)
    texts = ["".join(chance.choices("abcdefghij +=", k=chance.randint(1, longest))) for _ in range(num)]
    return [Prompt(text, chance.getrandbits(63)) for text in texts]


def bits(tensors: dict[str, Tensor], *, signed: bool = True) -> dict[str, str]:
    """A hash of each tensor's bytes: -0.0 and 0.0 differ unless they are not ``signed``."""
    values = tensors if signed else {name: tensor + 0.0 for name, tensor in tensors.items()}
    raw = {name: tensor.contiguous().view(torch.int16) for name, tensor in values.items()}
    return {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in raw.items()}


def test_a_mixture_of_experts_of_three_parents_and_a_base_merges_as_on_disk_each_time(kind, tmp_path):
    """The first test of a kind: a process holds one vLLM engine at a time, and all other tests share one."""
    roles = ("base", "instruct", "thinking", "third")
    base, instruct, thinking, third = (
        tiny_checkpoint(tmp_path / role, family="qwen3_moe", tie=False, seed=seed) for seed, role in enumerate(roles)
    )
    further, runs = {"base": str(base), "third": str(third)}, []
    engine = kind.open(instruct, thinking, **further)
    for run, (name, schedule) in enumerate([*THREE.items(), *THREE.items()]):
        (folder := tmp_path / f"{run} {name}").mkdir()
        hashes = write_merge(folder, open_merge(open_pair(str(instruct), str(thinking), **further), schedule))
        engine.set_merge(Method.linear(schedule))
        stored, found = load_file(folder / "model.safetensors"), engine.fingerprint()
        assert sum("experts" in name for name in stored) == 2 * 4 * 3  # layers, experts, matrices
        assert bits(kind.weights(engine), signed=kind.signed) == bits(stored, signed=kind.signed)
        assert found.whole is kind.signed and (found.digest == digest_of_hashes(hashes)) is found.whole
        runs.append((hashes, found, engine.generate(prompts(8), GREEDY)))
    engine.close()
    assert runs[:2] == runs[2:] and runs[0] != runs[1]


@pytest.mark.parametrize(("lam", "parent"), [(0.0, 0), (1.0, 1)])
def test_the_endpoints_are_the_parents_bit_for_bit(kind, engine, parents, lam, parent):
    stored = load_file(parents[parent] / "model.safetensors")
    assert any((tensor.view(torch.int16) == -32768).any() for tensor in stored.values())  # -0.0
    engine.set_merge(Method.linear(MIXED))
    engine.set_merge(Method.linear(Schedule.uniform(lam)))
    assert bits(kind.weights(engine), signed=kind.signed) == bits(stored, signed=kind.signed)


def merged_folder(folder: Path, parents: tuple[Path, Path], schedule: Schedule) -> Path:
    pair = open_pair(*map(str, parents))
    shutil.copytree(parents[1], folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    write_merge(folder, open_merge(pair, schedule))
    return folder


@pytest.mark.parametrize("schedule", [Schedule.uniform(0.55), MIXED], ids=str)
def test_a_schedule_set_in_place_equals_the_merge_loaded_from_disk(kind, engine, parents, tmp_path, schedule):
    merged = merged_folder(tmp_path / "merged", parents, schedule)
    engine.set_merge(Method.linear(schedule))
    fresh = kind.fresh(merged, merged, schedule=Schedule.uniform(1.0), prompts=prompts(20), sampling=GREEDY)
    stored = load_file(merged / "model.safetensors")
    assert bits(kind.weights(engine), signed=kind.signed) == bits(stored, signed=kind.signed)
    assert engine.fingerprint() == fresh.fingerprint
    assert engine.generate(prompts(20), GREEDY) == fresh.responses


@pytest.mark.parametrize("name", BEYOND)
def test_a_schedule_beyond_the_line_equals_the_merge_on_disk(kind, engine, parents, further, tmp_path, name):
    schedule = BEYOND[name]
    engine.set_merge(Method.linear(SCALED if name != "scale" else MIXED))
    engine.set_merge(Method.linear(schedule))
    hashes = write_merge(tmp_path, open_merge(open_pair(*map(str, parents), **further), schedule))
    stored = load_file(tmp_path / "model.safetensors")
    assert bits(kind.weights(engine), signed=kind.signed) == bits(stored, signed=kind.signed)
    found = engine.fingerprint()
    assert found.whole is kind.signed and (found.digest == digest_of_hashes(hashes)) is found.whole
    responses = engine.generate(prompts(20), GREEDY)
    engine.set_merge(Method.linear(MIXED))
    assert engine.generate(prompts(20), GREEDY) != responses


def test_the_fingerprint_is_that_of_the_files(kind, engine, parents, tmp_path):
    engine.set_merge(Method.linear(MIXED))
    found = engine.fingerprint()
    written = digest_of_hashes(write_merge(tmp_path, open_merge(open_pair(*map(str, parents)), MIXED)))
    assert found.whole is kind.signed and (found.digest == written) is found.whole


@pytest.mark.parametrize("name", METHODS)
def test_a_method_set_in_place_equals_the_merge_on_disk(kind, engine, parents, base, tmp_path, name):
    around = name in AROUND_BASE
    method = Method(name, None if around else MIXED, str(base) if around else None)
    engine.set_merge(Method.linear(Schedule.uniform(0.5)))
    engine.set_merge(method)
    hashes = write_merge(tmp_path, open_merge(open_pair(*map(str, parents)), method))
    stored = load_file(tmp_path / "model.safetensors")
    assert hashes.keys() == stored.keys()
    held = kind.weights(engine)
    assert bits(held, signed=kind.signed) == bits(stored, signed=kind.signed)
    assert all(
        not torch.equal(held[key], load_file(parent / "model.safetensors")[key]) for parent in parents for key in held
    )
    responses = engine.generate(prompts(20), GREEDY)
    engine.set_merge(Method.linear(MIXED))
    assert (engine.generate(prompts(20), GREEDY) == responses) is (name == "linear")


def test_a_base_that_does_not_fit_is_refused_and_the_merge_stays(engine, tmp_path):
    engine.set_merge(Method.linear(MIXED))
    fingerprint = engine.fingerprint()
    with pytest.raises(PairError, match="is not the parents' base"):
        engine.set_merge(Method("ties", base=str(tiny_checkpoint(tmp_path / "base", num_hidden_layers=1))))
    assert engine.fingerprint() == fingerprint


def test_switching_there_and_back_restores_weights_and_responses(engine):
    engine.set_merge(Method.linear(Schedule.uniform(0.3)))
    fingerprint, greedy, warm = (engine.fingerprint(), *(engine.generate(prompts(20), s) for s in (GREEDY, WARM)))
    engine.set_merge(Method.linear(MIXED))
    assert engine.fingerprint() != fingerprint
    assert engine.generate(prompts(20), GREEDY) != greedy
    engine.set_merge(Method.linear(Schedule.uniform(0.3)))
    assert engine.fingerprint() == fingerprint
    assert [engine.generate(prompts(20), s) for s in (GREEDY, WARM)] == [greedy, warm]


def test_nothing_cached_survives_a_switch(kind, engine, parents):
    """Prompts longer than any cache block, generated under one merge just before the other."""
    long = [Prompt("abc " * 60 + prompt.text, prompt.seed) for prompt in prompts(6)]
    engine.set_merge(Method.linear(Schedule.uniform(0.1)))
    engine.generate(long, GREEDY)
    engine.set_merge(Method.linear(Schedule.uniform(0.9)))
    after = engine.generate(long, GREEDY)
    fresh = kind.fresh(*parents, schedule=Schedule.uniform(0.9), prompts=long, sampling=GREEDY)
    assert after == fresh.responses


def test_the_same_seeds_and_batch_give_the_same_responses(engine):
    engine.set_merge(Method.linear(MIXED))
    first = engine.generate(prompts(20), WARM)
    assert engine.generate(prompts(20), WARM) == first
    others = [replace(prompt, seed=prompt.seed + 1) for prompt in prompts(20)]
    assert sum(a == b for a, b in zip(engine.generate(others, WARM), first, strict=True)) < 5


@pytest.mark.parametrize(("sampling", "sizes"), [(GREEDY, (3, 17)), (VARIED, (1, 7, 16, 31, 39))])
def test_greedy_responses_do_not_depend_on_the_batch(engine, sampling, sizes):
    engine.set_merge(Method.linear(MIXED))
    everything = prompts(40)
    together = engine.generate(everything, sampling)
    assert len({response.num_tokens for response in together}) > 7  # rows leave the batch one by one
    for size in sizes:
        order = random.Random(size).sample(range(40), 40)
        for start in range(0, 40, size):
            part = order[start : start + size]
            assert engine.generate([everything[i] for i in part], sampling) == [together[i] for i in part]


@pytest.mark.parametrize("max_tokens", [1, 2, 33])
def test_max_tokens_cuts_and_is_marked(engine, max_tokens):
    engine.set_merge(Method.linear(MIXED))
    full = engine.generate(prompts(20), GREEDY)
    cut = engine.generate(prompts(20), replace(GREEDY, max_tokens=max_tokens))
    for short, long in zip(cut, full, strict=True):
        if long.num_tokens > max_tokens:
            assert (short.num_tokens, short.finish_reason) == (max_tokens, "length")
            assert long.text.startswith(short.text.rstrip("\N{REPLACEMENT CHARACTER}"))
        else:
            assert short == replace(long, finish_reason=short.finish_reason)
    assert {response.finish_reason for response in cut} >= {"length"}


def test_end_tokens_are_counted_but_not_part_of_the_text(engine):
    engine.set_merge(Method.linear(MIXED))
    responses = engine.generate(prompts(40), VARIED)
    ended = [(p, r) for p, r in zip(prompts(40), responses, strict=True) if r.finish_reason == "stop"]
    assert len(ended) > 20
    for prompt, response in ended:
        if response.num_tokens > 1:
            [before] = engine.generate([prompt], replace(VARIED, max_tokens=response.num_tokens - 1))
            assert before == replace(response, num_tokens=response.num_tokens - 1, finish_reason="length")
        else:
            assert response.text == ""


def test_a_stop_string_ends_a_response_and_is_not_part_of_it(engine):
    engine.set_merge(Method.linear(MIXED))
    full = engine.generate(prompts(40), GREEDY)
    at, stop = next((i, r.text[5:8]) for i, r in enumerate(full) if r.text[:12].isascii() and len(r.text) >= 12)
    stopped = engine.generate(prompts(40), replace(GREEDY, stop=("no such text", stop)))
    for before, after in zip(full, stopped, strict=True):
        assert after.text == before.text.split(stop)[0]
        assert after.num_tokens <= before.num_tokens
        assert after.finish_reason == ("stop" if stop in before.text else before.finish_reason)
    assert stopped[at].num_tokens < full[at].num_tokens


def test_a_presence_penalty_spreads_the_tokens(engine):
    engine.set_merge(Method.linear(MIXED))
    plain, spread = (engine.generate(prompts(20), sampling) for sampling in (GREEDY, VARIED))

    def repeats(text: str) -> bool:
        """Whether a character comes twice that is a token of its own."""
        letters = text.replace("\N{REPLACEMENT CHARACTER}", "")
        return "<" not in text and len(set(letters)) < len(letters)

    assert any(repeats(response.text) for response in plain)
    assert not any(repeats(response.text) for response in spread)


@pytest.mark.parametrize(
    "changes",
    [
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.8},
        {"frequency_penalty": 0.7},
        {"frequency_penalty": -0.5, "presence_penalty": 1.0},
        {"repetition_penalty": 1.1, "frequency_penalty": 0.2, "presence_penalty": 0.3},
    ],
    ids=str,
)
def test_penalties_are_those_of_the_plain_arithmetic(engine, parents, changes):
    """Token by token with plain logits; prompts count for the repetition penalty alone."""
    sampling, some = replace(GREEDY, max_tokens=24, **changes), prompts(8)
    engine.set_merge(Method.linear(Schedule.uniform(1.0)))
    found = engine.generate(some, sampling)
    assert found != engine.generate(some, replace(GREEDY, max_tokens=24))
    tokenizer = load_tokenizer(parents[1])
    model = AutoModelForCausalLM.from_pretrained(parents[1], dtype=torch.float32)
    ends = set(range(0, 264, 12)) | {258}
    for prompt, response in zip(some, found, strict=True):
        ids = tokenizer(prompt.text, add_special_tokens=False).input_ids
        made: list[int] = []
        while len(made) < 24 and not (made and made[-1] in ends):
            with torch.inference_mode():
                logits = model(torch.tensor([ids + made])).logits[0, -1]
            counts = torch.bincount(torch.tensor(made, dtype=torch.long), minlength=264)
            known = counts + torch.bincount(torch.tensor(ids), minlength=264) > 0
            factor = sampling.repetition_penalty
            logits = torch.where(known, torch.where(logits > 0, logits / factor, logits * factor), logits)
            logits = logits - sampling.frequency_penalty * counts - sampling.presence_penalty * (counts > 0)
            made.append(int(logits.argmax()))
        assert response.num_tokens == len(made)
        whole = made[:-1] if made[-1] in ends else made
        assert response.text == tokenizer.decode(whole, clean_up_tokenization_spaces=False)


def test_the_sampling_says_what_ends_a_response(engine):
    """Without end tokens of its own, a sampling takes the parents'."""
    engine.set_merge(Method.linear(MIXED))
    full = engine.generate(prompts(20), replace(VARIED, end_ids=()))
    assert {response.finish_reason for response in full} == {"length"}
    ends = tuple(sorted({*range(0, 264, 12), 258}))
    assert engine.generate(prompts(20), replace(VARIED, end_ids=ends)) == engine.generate(prompts(20), VARIED)


def test_prompts_of_one_token_and_no_prompts(engine):
    engine.set_merge(Method.linear(MIXED))
    assert engine.generate([], GREEDY) == []
    single = [Prompt("a", 0), Prompt("b", 1)]
    mixed = engine.generate([*single, *prompts(3)], GREEDY)
    assert engine.generate(single, GREEDY) == mixed[:2]


def test_whoever_watches_can_abort_what_still_runs(engine):
    engine.set_merge(Method.linear(MIXED))
    full = engine.generate(prompts(40), VARIED)
    seen = []

    def watch(progress):
        seen.append((list(progress.num_tokens), list(progress.responses)))
        return sum(response is not None for response in progress.responses) < 10

    cut = engine.generate(prompts(40), VARIED, watch=watch)
    num_tokens, responses = seen[-1]
    finished = [i for i, response in enumerate(responses) if response is not None]
    assert 10 <= len(finished) < 40
    for i, (before, after) in enumerate(zip(full, cut, strict=True)):
        if i in finished:
            assert after == responses[i] == before
            assert num_tokens[i] == before.num_tokens
        else:
            assert after.finish_reason == "aborted"
            assert num_tokens[i] <= after.num_tokens <= before.num_tokens
            assert before.text.startswith(after.text.rstrip("\N{REPLACEMENT CHARACTER}"))
    assert engine.generate(prompts(40), VARIED) == full  # nothing of the aborted is left


def test_a_switch_after_an_abort_is_a_switch(engine):
    engine.set_merge(Method.linear(Schedule.uniform(0.2)))
    expected = engine.generate(prompts(20), GREEDY)
    engine.set_merge(Method.linear(MIXED))
    engine.generate(prompts(20), GREEDY, watch=lambda progress: False)
    engine.set_merge(Method.linear(Schedule.uniform(0.2)))
    assert engine.generate(prompts(20), GREEDY) == expected
