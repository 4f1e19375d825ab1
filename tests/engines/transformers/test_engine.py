"""The transformers engine beside transformers' own ``generate``, and what only this engine has."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoints import edit_json, edit_tensors, tiny_checkpoint, tiny_tokenizer, write_merge
from families import FAMILIES as FAMILIES_OF_ALL
from families import save_family
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from autolambda.engines.base import Fingerprint, Progress, Prompt, Sampling
from autolambda.engines.chat import load_tokenizer
from autolambda.engines.transformers import batch
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.errors import ConfigError, EngineError
from autolambda.merging.fingerprint import digest_of_hashes
from autolambda.merging.merge import open_merge
from autolambda.merging.method import Method
from autolambda.merging.pair import open_pair
from autolambda.responses import Response
from autolambda.schedule import Profile, Schedule

pytestmark = pytest.mark.usefixtures("one_thread")

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, presence_penalty=0.0, stop=(), max_tokens=24)
MIXED = Schedule.by_depth_and_module(Profile((0.2, 0.9)), Profile((0.7, 0.4)))
SIZES = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "eos_token_id": 258, "pad_token_id": 263,
}  # fmt: skip
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES = {
    "qwen2": {"model_type": "qwen2"},
    "qwen3-tied": {"model_type": "qwen3", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3"},
    "qwen3-sliding": {
        "model_type": "qwen3", "use_sliding_window": True, "sliding_window": 6, "layer_types": SLIDING,
    },
    "llama": {"model_type": "llama"},
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "mistral-sliding": {"model_type": "mistral", "sliding_window": 6},
    "gemma": {"model_type": "gemma", "tie_word_embeddings": True},
    "gemma2": {"model_type": "gemma2", "sliding_window": 6, "tie_word_embeddings": True, "query_pre_attn_scalar": 16},
    "gemma3": {
        "model_type": "gemma3_text", "sliding_window": 6, "layer_types": SLIDING, "tie_word_embeddings": True,
        "query_pre_attn_scalar": 16,
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    },
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4},
}  # fmt: skip


def save(folder: Path, settings: dict[str, object], *, seed: int) -> Path:
    """A random model of any family with its tokenizer; many ids end a response."""
    config = AutoConfig.for_model(**({"tie_word_embeddings": False} | SIZES | settings))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(0, 264, 12))}))
    return folder


def save_parents(folder: Path, settings: dict[str, object]) -> tuple[Path, Path]:
    return save(folder / "instruct", settings, seed=1), save(folder / "thinking", settings, seed=2)


def open_engine(instruct: Path, thinking: Path, **options: object) -> TransformersEngine:
    pair = open_pair(str(instruct), str(thinking))
    return TransformersEngine(pair, tokenizer=load_tokenizer(thinking), **({"device": "cpu"} | options))


def merge_to_disk(folder: Path, instruct: Path, thinking: Path, schedule: Schedule) -> Path:
    pair = open_pair(str(instruct), str(thinking))
    shutil.copytree(thinking, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    write_merge(folder, open_merge(pair, schedule))
    return folder


def prompts(num: int, *, longest: int = 40) -> list[Prompt]:
    chance = random.Random(0)
    return [Prompt("".join(chance.choices("abcdefgh +=", k=chance.randint(1, longest))), i) for i in range(num)]


def generate_alone(folder: Path, prompts: Sequence[Prompt], *, max_tokens: int) -> list[Response]:
    """transformers' own greedy generation on a checkpoint, one prompt at a time, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = load_tokenizer(folder)
    end = {*model.generation_config.eos_token_id, 258}
    responses = []
    for prompt in prompts:
        ids = tokenizer(prompt.text, add_special_tokens=False, return_tensors="pt").input_ids
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_tokens,
            eos_token_id=sorted(end),
        )
        tokens = out[0, ids.shape[1] :].tolist()
        text = tokenizer.decode(tokens[:-1] if tokens[-1] in end else tokens)
        responses.append(Response(text, len(tokens), "stop" if tokens[-1] in end else "length"))
    return responses


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_responses_are_transformers_own_on_the_merge(tmp_path, family):
    parents = save_parents(tmp_path, FAMILIES[family])
    engine = open_engine(*parents)
    engine.set_merge(Method.linear(MIXED))
    merged = merge_to_disk(tmp_path / "merged", *parents, MIXED)
    assert engine.fingerprint() == open_engine(merged, merged).fingerprint()
    some = prompts(8)
    assert engine.generate(some, GREEDY) == generate_alone(merged, some, max_tokens=24)


class Recorder:
    """Stands in for ``draw`` and keeps the logits of each step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.logits: list[Tensor] = []
        self._draw = batch.draw
        monkeypatch.setattr(batch, "draw", self)

    def __call__(self, logits: Tensor, *rest: object) -> Tensor:
        self.logits.append(logits.clone())
        return self._draw(logits, *rest)


@pytest.mark.parametrize(
    ("family", "length", "tolerance"),
    [
        ("qwen3", 9, 0.0),
        ("llama", 9, 0.0),
        ("qwen3-sliding", 9, 0.0),
        ("gemma2", 9, 0.0),
        ("qwen3_moe", 9, 1e-6),  # experts see other rows each time
        ("qwen3", 130, 1e-6),  # attention chooses its blocks by the longest prompt
    ],
)
def test_logits_are_the_same_in_any_batch(tmp_path, monkeypatch, family, length, tolerance):
    """Alone, and beside longer prompts: other widths and numbers of rows (dropping rows is turned off here).

    21 rows and 1 is where a remainder of rows shows.
    """
    monkeypatch.setattr(batch, "KEEP_SHARE", 0.0)
    engine = open_engine(*save_parents(tmp_path, FAMILIES[family]))
    recorder = Recorder(monkeypatch)
    engine.set_merge(Method.linear(MIXED))
    probe = Prompt(("ab cd+=ef" * 15)[:length], 0)
    endless = replace(GREEDY, max_tokens=30)
    engine._end_ids = frozenset()
    engine.generate([probe], endless)
    alone, recorder.logits = [logits[0] for logits in recorder.logits], []
    for others in (1, 20):
        for at in (0, others):
            around = prompts(others, longest=100 if length < 100 else 300)
            engine.generate([*around[:at], probe, *around[at:]], endless)
            together, recorder.logits = [logits[at] for logits in recorder.logits], []
            assert len(together) == len(alone) == 30
            assert max((a - b).abs().max() for a, b in zip(alone, together, strict=True)) <= tolerance


@pytest.mark.parametrize(("instruct_tied", "thinking_tied"), [(True, False), (False, True)])
def test_a_tied_and_an_untied_parent_make_an_untied_merge(tmp_path, instruct_tied, thinking_tied):
    instruct = save(tmp_path / "i", {"model_type": "llama", "tie_word_embeddings": instruct_tied}, seed=1)
    thinking = save(tmp_path / "t", {"model_type": "llama", "tie_word_embeddings": thinking_tied}, seed=2)
    engine = open_engine(instruct, thinking)
    engine.set_merge(Method.linear(MIXED))
    merged = merge_to_disk(tmp_path / "merged", instruct, thinking, MIXED)
    assert engine.fingerprint() == open_engine(merged, merged).fingerprint()
    assert engine.generate(prompts(4), GREEDY) == generate_alone(merged, prompts(4), max_tokens=24)
    engine.set_merge(Method.linear(Schedule.uniform(1.0)))
    assert engine.generate(prompts(4), GREEDY) == generate_alone(thinking, prompts(4), max_tokens=24)


def test_a_tensor_of_another_dtype_keeps_its_precision(tmp_path):
    parents = save_parents(tmp_path, FAMILIES["qwen3"])
    name = "model.layers.1.mlp.up_proj.weight"
    for seed, folder in enumerate(parents):
        fine = torch.randn(48, 32, generator=torch.Generator().manual_seed(seed))
        edit_tensors(folder / "model.safetensors", lambda tensors, fine=fine: tensors.update({name: fine}))
    engine = open_engine(*parents)
    engine.set_merge(Method.linear(MIXED))
    expected = dict(open_merge(open_pair(*map(str, parents)), MIXED).tensors())
    live = dict(engine._model.named_parameters())
    assert expected[name].dtype == torch.float32
    assert all(torch.equal(live[key].to(tensor.dtype), tensor) for key, tensor in expected.items())


def mapped_file(tensor: Tensor) -> str:
    """The file in whose mapping a tensor's values lie, empty for memory of the process's own."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, last = line.split()
        first, _, end = span.partition("-")
        if int(first, 16) <= tensor.data_ptr() < int(end, 16):
            return last if last.startswith("/") else ""
    raise AssertionError("no mapping holds the tensor")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_on_a_cpu_parents_stay_in_their_files(parents, dtype):
    """So workers on one host share them in its page cache; the live merge is each one's own, and changes no file."""
    before = [(folder / "model.safetensors").read_bytes() for folder in parents]
    engine = open_engine(*parents, dtype=dtype)
    engine.set_merge(Method.linear(Schedule.uniform(0.5)))
    for folder, held in zip(parents, (engine._instruct, engine._thinking), strict=True):
        assert {mapped_file(tensor) for tensor in held.values()} == {str(folder / "model.safetensors")}
    assert [(folder / "model.safetensors").read_bytes() for folder in parents] == before


def test_missing_parameters_are_an_error(tmp_path):
    parents = save_parents(tmp_path, FAMILIES["qwen3"])
    for folder in parents:
        path = folder / "model.safetensors"
        edit_tensors(path, lambda tensors: tensors.pop("model.layers.1.self_attn.q_norm.weight"))
    with pytest.raises(EngineError, match=r"1 parameters are missing in its files.*layers\.1\.self_attn\.q_norm"):
        open_engine(*parents)


def with_extra(folder: Path, family: str, name: str) -> tuple[Path, Path]:
    """Parents of a family with one tensor more, which their architecture does not compute."""
    parents = tuple(save_family(folder / role, FAMILIES_OF_ALL[family], seed=i) for i, role in enumerate("it"))
    for seed, parent in enumerate(parents):
        extra = torch.randn(8, 64, generator=torch.Generator().manual_seed(seed)).bfloat16()
        edit_tensors(parent / "model.safetensors", lambda tensors, extra=extra: tensors.update({name: extra}))
    return parents[0], parents[1]


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("glm4_moe", "model.layers.4.eh_proj.weight"),
        ("qwen3_next", "mtp.fc.weight"),
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq"),
    ],
)
def test_what_no_token_depends_on_is_merged_in_files_only_and_said(tmp_path, family, name):
    parents = with_extra(tmp_path, family, name)
    engine = open_engine(*parents)
    assert f"; 1 tensors are merged in files only, as no token depends on them (such as '{name}')" in engine.in_words
    half = Schedule.uniform(0.5)
    engine.set_merge(Method.linear(half))
    (tmp_path / "out").mkdir()
    written = digest_of_hashes(write_merge(tmp_path / "out", open_merge(open_pair(*map(str, parents)), half)))
    assert engine.fingerprint() == Fingerprint(written, whole=True)


def test_a_tensor_without_a_place_is_an_error_of_one_line(tmp_path):
    with pytest.raises(EngineError, match=r"^transformers' LlamaForCausalLM has no place for 'model\.layers\.0\.x"):
        open_engine(*with_extra(tmp_path, "llama", "model.layers.0.x.weight"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:77"}, "engine.device: 'cuda:77' cannot be used"),
        ({"device": "toaster"}, "engine.device: 'toaster' cannot be used"),
        ({"dtype": "float16"}, "engine.dtype: float16 cannot hold the checkpoints' bfloat16 values"),
    ],
)
def test_settings_that_cannot_be(parents, options, message):
    with pytest.raises(ConfigError, match=message):
        open_engine(*parents, **options)


def test_bfloat16_is_computed_with_when_asked_for(parents):
    engine = open_engine(*parents, dtype="bfloat16")
    assert {live.dtype for live in engine._model.parameters()} == {torch.bfloat16}
    engine.set_merge(Method.linear(MIXED))
    assert len(engine.generate(prompts(3), GREEDY)) == 3


@pytest.mark.parametrize(("threads", "used"), [(None, 1), (2, 2)])
def test_small_models_get_one_thread_and_threads_can_be_set(parents, threads, used, monkeypatch):
    """While the engine works; the process has its own number before and after."""
    # vLLM on a CPU, if another test has started it in this process, has replaced it by a function that does nothing
    monkeypatch.setattr(torch, "set_num_threads", torch._C.set_num_threads)
    before, seen = torch.get_num_threads(), set()
    torch.set_num_threads(3)
    engine = open_engine(*parents, threads=threads)
    engine.generate(
        prompts(2), replace(GREEDY, max_tokens=2), watch=lambda progress: seen.add(torch.get_num_threads()) is None
    )
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert seen == {used} and after == 3


def test_a_bad_schedule_leaves_the_weights_as_they_were(parents):
    engine = open_engine(*parents)
    before = engine.fingerprint()
    engine._live["unheard_of.weight"] = torch.zeros(1)
    with pytest.raises(Exception, match="unheard_of"):
        engine.set_merge(Method.linear(MIXED))
    del engine._live["unheard_of.weight"]
    assert engine.fingerprint() == before


def test_loading_is_quiet(parents, capfd):
    transformers_logging.enable_progress_bar()
    open_engine(*parents)
    assert capfd.readouterr() == ("", "")
    assert transformers_logging.is_progress_bar_enabled()


def test_a_prompt_without_a_token_is_an_error(parents):
    with pytest.raises(EngineError, match="number 1"):
        open_engine(*parents).generate([Prompt("a", 0), Prompt("", 0)], GREEDY)


def test_logits_that_are_nan_are_an_error(parents):
    engine = open_engine(*parents)
    with torch.inference_mode():
        engine._model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(EngineError, match="NaN"):
        engine.generate(prompts(1), GREEDY)


def test_running_out_of_memory_is_one_line_with_advice(parents, monkeypatch):
    engine = open_engine(*parents)

    def full(**_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nmore")

    monkeypatch.setattr(engine._model, "forward", full)
    with pytest.raises(EngineError, match=r"^out of memory: .*can't allocate memory; lower engine\.batch_size"):
        engine.generate(prompts(2), GREEDY)


class Watcher:
    """Keeps what it was told; says no at its ``num_looks``-th look."""

    def __init__(self, num_looks: int | None = None) -> None:
        self.told: list[Progress] = []
        self._num_looks = num_looks

    def __call__(self, progress: Progress) -> bool:
        self.told.append(progress)
        return len(self.told) != self._num_looks


LONG = replace(GREEDY, presence_penalty=3.0, max_tokens=150)


def test_a_watcher_is_told_whenever_a_response_finishes(parents):
    engine = open_engine(*parents)
    engine.set_merge(Method.linear(MIXED))
    unwatched, watcher = engine.generate(prompts(40), LONG), Watcher()
    assert engine.generate(prompts(40), LONG, watch=watcher) == unwatched
    ends = sorted({response.num_tokens for response in unwatched})
    assert len(ends) > 7 and max(ends) < 64
    assert [max(progress.num_tokens) for progress in watcher.told] == ends  # a look at each end, none between
    for end, progress in zip(ends, watcher.told, strict=True):
        assert progress.num_tokens == [min(response.num_tokens, end) for response in unwatched]
        assert progress.responses == [each if each.num_tokens <= end else None for each in unwatched]


def test_a_watcher_is_told_every_64_steps_while_nothing_finishes(parents):
    engine, watcher = open_engine(*parents), Watcher()
    engine._end_ids = frozenset()
    engine.generate(prompts(3), LONG, watch=watcher)
    assert [progress.num_tokens for progress in watcher.told] == [[64] * 3, [128] * 3, [150] * 3]
    assert [progress.responses.count(None) for progress in watcher.told] == [3, 3, 0]


@pytest.mark.parametrize("num_looks", [1, 4, 1000])
def test_a_watcher_that_says_no_aborts_what_still_runs(parents, num_looks):
    engine = open_engine(*parents)
    engine.set_merge(Method.linear(MIXED))
    unwatched, watcher = engine.generate(prompts(40), LONG), Watcher(num_looks)
    responses = engine.generate(prompts(40), LONG, watch=watcher)
    last = watcher.told[-1]
    [end] = {num for num, response in zip(last.num_tokens, last.responses, strict=True) if response is None} or {150}
    assert len(watcher.told) == num_looks or num_looks == 1000
    cut = engine.generate(prompts(40), replace(LONG, max_tokens=end))
    assert {"stop"} < {each.finish_reason for each in responses} or num_looks == 1000
    for whole, short, response in zip(unwatched, cut, responses, strict=True):
        assert response == (whole if whole.num_tokens <= end else replace(short, finish_reason="aborted"))
    assert engine.generate(prompts(40), LONG) == unwatched


def test_end_ids_are_the_pairs(tmp_path):
    folder = tiny_checkpoint(tmp_path / "one")
    edit_json(folder / "config.json", eos_token_id=[7, 8])
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 9}))
    assert open_engine(folder, folder)._end_ids == {7, 8, 9, 258}


def test_a_stop_string_across_bytes_is_found_in_a_long_response(parents, monkeypatch):
    """The stop string's bytes are tokens of their own, the first of which are no text yet."""
    tokenizer = load_tokenizer(parents[1])
    script = tokenizer("x" * 50 + "aéb€c", add_special_tokens=False).input_ids
    engine = open_engine(*parents)
    monkeypatch.setattr(batch, "draw", lambda logits, *_: torch.full((len(logits),), script[len(drawn) - 1]))
    drawn: list[int] = []
    at = batch.RandomRows.at
    monkeypatch.setattr(batch.RandomRows, "at", lambda *args: (drawn.append(1), at(*args))[1])
    engine._end_ids = frozenset()
    [response] = engine.generate([Prompt("a", 0)], replace(GREEDY, max_tokens=500, stop=("éb€",)))
    assert response == Response("x" * 50 + "a", len(script) - 1, "stop")
