"""The shipped configs of real pairs, opened whole through tiny stand-ins that carry the pairs' own configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkpoints import edit_json, tiny_checkpoint
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from autolambda.config import Config, parse_config
from autolambda.driver.job import open_job
from autolambda.engines.base import Sampling
from autolambda.engines.chat import load_tokenizer
from autolambda.engines.decoder import Decoder, end_ids_of
from autolambda.errors import PairError
from autolambda.merging.pair import open_pair
from autolambda.project.inspection import inspect
from autolambda.responses import Sample
from tests.tasks.test_slices import CONFIGS, localised

QWEN_THINKING = {
    "bos_token_id": 256,
    "do_sample": True,
    "eos_token_id": [258, 256],
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
}
LLAMA = {  # as both are published, but for sizes
    "bos_token_id": 128000,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "rope_parameters": None,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}
LLAMA_TOKENS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_2|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    *(f"<|reserved_special_token_{number}|>" for number in range(3, 248)),
]
R1_NAMES = {
    128000: "<｜begin▁of▁sentence｜>",
    128001: "<｜end▁of▁sentence｜>",
    128011: "<｜User｜>",
    128012: "<｜Assistant｜>",
    128013: "<think>",
    128014: "</think>",
    128015: "<｜▁pad▁｜>",
}
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
R1_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<｜User｜>' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
SAMPLE = Sample("1", ({"role": "user", "content": "3+4="},), "7")


def llama_tokenizer(*, is_r1: bool) -> PreTrainedTokenizerFast:
    """Bytes, then fillers up to 128,000, then the 256 added tokens of either model."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [*alphabet, *(f"filler {number}" for number in range(128_000 - len(alphabet)))]
    core = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    names = R1_NAMES if is_r1 else {}
    plain = {"<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"}
    tokens = [names.get(128_000 + number, token) for number, token in enumerate(LLAMA_TOKENS)]
    core.add_tokens([AddedToken(token, special=token not in plain, normalized=False) for token in tokens])
    ends = {"bos_token": tokens[0], "eos_token": tokens[1] if is_r1 else "<|eot_id|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **ends)
    tokenizer.chat_template = R1_TEMPLATE if is_r1 else LLAMA_TEMPLATE
    return tokenizer


def llama_like(folder: Path, *, is_r1: bool) -> Path:
    tiny_checkpoint(folder, family="llama", tie=False, seed=int(is_r1), vocab_size=128_256)
    ends = 128001 if is_r1 else [128001, 128008, 128009]
    edit_json(folder / "config.json", **LLAMA, eos_token_id=ends, pad_token_id=None)
    generation = {"bos_token_id": 128000, "do_sample": True, "eos_token_id": ends, "temperature": 0.6}
    (folder / "generation_config.json").write_text(json.dumps(generation | {"top_p": 0.95 if is_r1 else 0.9}))
    llama_tokenizer(is_r1=is_r1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("llamas")
    return {
        "instruct": str(llama_like(root / "instruct", is_r1=False)),
        "thinking": str(llama_like(root / "thinking", is_r1=True)),
    }


def qwen_like(root: Path, *, family: str) -> dict[str, str]:
    """A pair with the 2507 models' rope_theta, and a base with the one of Qwen3's base models."""
    folders = {}
    for seed, (name, theta) in enumerate({"instruct": 5e6, "thinking": 5e6, "base": 1e6}.items()):
        folder = tiny_checkpoint(root / name, family=family, seed=seed, max_position_embeddings=262_144)
        edit_json(folder / "config.json", rope_parameters={"rope_theta": theta, "rope_type": "default"})
        (folder / "generation_config.json").write_text(json.dumps(QWEN_THINKING))
        folders[name] = str(folder)
    return folders


def shipped(name: str, parents: dict[str, str], folder: Path, **sections: Any) -> Config:
    """A shipped config with local stand-ins for models and tasks, and the engine that every machine has."""
    plain = yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))
    folder.mkdir(exist_ok=True)
    tasks = []
    for task in plain["tasks"]:
        other = task.get("confirm_on")
        tasks.append(localised(task, folder) | ({"confirm_on": localised({"name": other}, folder)} if other else {}))
    chosen = {key: value for key, value in plain["models"].items() if key != "base"} | parents
    return parse_config(plain | {"models": chosen, "tasks": tasks, "engine": {"name": "transformers"}} | sections)


@pytest.mark.parametrize(("name", "family"), [("qwen3-4b.yaml", "qwen3"), ("qwen3-30b-a3b.yaml", "qwen3_moe")])
def test_the_qwen_configs_open_whole_and_draw_as_the_thinking_models_card_says(
    tmp_path: Path, name: str, family: str
) -> None:
    folders = qwen_like(tmp_path, family=family)
    base = folders.pop("base")
    config = shipped(name, folders, tmp_path / "tasks")
    found = inspect(config)
    assert found.verdict.startswith("valid; ") and "at most 32768 tokens a response" in found.verdict
    assert open_job(config).models.sampling == Sampling(0.6, 0.95, 20, 0.0, 0.0, (), 32_768, end_ids=(256, 258))
    with pytest.raises(PairError, match=r"rope_theta': instruct 1000000\.0, thinking 5000000\.0"):
        open_pair(base, folders["thinking"])
    assert any(
        "it does not behave like the other model" in text
        for text in open_pair(base, folders["thinking"], across_configs=True).warnings
    )


def test_the_bundled_config_is_what_runs_without_models() -> None:
    plain = yaml.safe_load((CONFIGS / "bundled.yaml").read_text(encoding="utf-8"))
    said, default = (parse_config(each) for each in (plain, {"tasks": [{"name": "arithmetic"}]}))
    assert said.model_copy(update={"budget": None, "ablation": default.ablation}) == default


def test_the_llama_config_opens_whole_and_says_what_differs(tmp_path: Path, llamas: dict[str, str]) -> None:
    config = shipped("llama-8b-r1.yaml", llamas, tmp_path / "tasks")
    found = inspect(config)
    assert found.is_valid
    assert list(found.notes) == [
        "config 'eos_token_id': instruct [128001, 128008, 128009], thinking 128001",
        *(
            f"added token {index} is {(token := LLAMA_TOKENS[index - 128000])!r} for instruct, {R1_NAMES[index]!r} for "
            f"thinking{'' if 'reserved' in token else '; the merge mixes the two'}"
            for index in R1_NAMES
        ),
        "the tokenizers differ in their bos_token '<|begin_of_text|>' and '<｜begin▁of▁sentence｜>'",
        "the chat templates of the two models differ; that of thinking is used for all (models.chat_template)",
        "the tokenizers differ in their eos_token '<|eot_id|>' and '<｜end▁of▁sentence｜>'",
    ]
    assert open_job(config).models.sampling == Sampling(
        0.6, 0.95, 0, 0.0, 0.0, ("<|eot_id|>",), 32_768, end_ids=(128_001,)
    )


def test_both_templates_are_the_same_tokens_under_r1s_tokenizer(tmp_path: Path, llamas: dict[str, str]) -> None:
    opened = open_job(shipped("llama-8b-r1.yaml", llamas, tmp_path / "tasks")).models
    study, own = (chat.render(SAMPLE) for chat in (opened.chat, opened.own_chats["instruct"]))
    ids = opened.chat.tokenizer([study, own], add_special_tokens=False).input_ids
    assert [each for each in ids[0] if each >= 128_000] == [128000, 128011, 128012, 128013]
    assert [each for each in ids[1] if each >= 128_000] == [128000, 128006, 128007, 128009, 128006, 128007]
    instructs = load_tokenizer(Path(llamas["instruct"]))
    assert instructs(own.replace(R1_NAMES[128000], "<|begin_of_text|>"), add_special_tokens=False).input_ids == ids[1]


def test_a_response_ends_as_either_llama_ends_one(llamas: dict[str, str]) -> None:
    pair = open_pair(llamas["instruct"], llamas["thinking"])
    tokenizer = load_tokenizer(pair.thinking.folder)
    ends = end_ids_of(pair, tokenizer)
    assert ends == {128001}  # Instruct's own end is not among them ...
    decoder = Decoder(tokenizer, ends, ("<|eot_id|>",))
    answer = tokenizer("7", add_special_tokens=False).input_ids
    assert decoder.met_stop([*answer, 128009])  # ... but it is the config's stop string
    assert decoder.response([*answer, 128009], "stop").text == "7"


def test_a_llama_without_its_rope_scaling_is_refused(tmp_path: Path, llamas: dict[str, str]) -> None:
    for file in Path(llamas["thinking"]).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    edit_json(tmp_path / "config.json", rope_scaling=None)
    with pytest.raises(PairError, match=r"config 'rope settings: factor': instruct 8\.0, thinking 'not given'"):
        open_pair(llamas["instruct"], str(tmp_path))
