"""The generation config: which keys are applied, which are named, and what an export's file holds."""

from __future__ import annotations

import json

import pytest
from checkpoints import tiny_tokenizer

from autolambda.config_models import SamplingConfig
from autolambda.engines.base import Sampling
from autolambda.engines.generation_config import exported, keys_not_applied, sampling_of, to_send

TOKENIZER = tiny_tokenizer()
PLAIN = Sampling(0.6, 0.95, 20, 0.0, 0.0, (), 64, end_ids=(256, 258))


def written(folder, **content):
    (folder / "generation_config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "content",
    [
        {"no_repeat_ngram_size": 3}, {"suppress_tokens": [5]}, {"begin_suppress_tokens": [5]}, {"bad_words_ids": [[5]]},
        {"typical_p": 0.9}, {"eta_cutoff": 0.1}, {"epsilon_cutoff": 0.1}, {"num_beams": 4}, {"min_new_tokens": 3},
        {"min_length": 3}, {"encoder_repetition_penalty": 1.2}, {"exponential_decay_length_penalty": [3, 1.1]},
        {"sequence_bias": [[[5], 1.0]]}, {"guidance_scale": 1.5}, {"forced_eos_token_id": 2}, {"penalty_alpha": 0.6},
        {"watermarking_config": {"bias": 2.0}}, {"num_return_sequences": 2}, {"dola_layers": "low"}, {"top_h": 0.4},
        {"max_time": 2.0}, {"max_length": 40}, {"a_key_of_tomorrow": True}, {"num_beams": 4, "length_penalty": 2.0},
    ],
    ids=str,
)  # fmt: skip
def test_keys_that_would_change_responses_are_named_and_left_out(tmp_path, content):
    said = keys_not_applied(written(tmp_path, **content))
    assert said is not None and all(f"{key} " in said for key in content) and "\n" not in said
    assert not content.keys() & exported(PLAIN, tmp_path, TOKENIZER).keys()


@pytest.mark.parametrize(
    "content",
    [
        {}, {"no_repeat_ngram_size": 0, "typical_p": 1.0, "num_beams": 1, "suppress_tokens": None, "bad_words_ids": []},
        {"num_beams": 1, "early_stopping": True, "guidance_scale": 1.0}, {"max_length": 20},
        {"num_beams": 1, "length_penalty": 2.0}, {"_from_model_config": True},
        {"temperature": 0.6, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "do_sample": True, "eos_token_id": [1, 2]},
        {"repetition_penalty": 1.2, "max_new_tokens": 7, "max_length": 99, "stop_strings": ["x"]},
        {"bos_token_id": 1, "pad_token_id": 0, "use_cache": True, "transformers_version": "5.0.0"},
        {"cache_implementation": "hybrid", "num_assistant_tokens": 20, "prompt_lookup_num_tokens": None},
    ],
    ids=str,
)  # fmt: skip
def test_keys_that_are_applied_or_change_nothing_are_not_named(tmp_path, content):
    assert keys_not_applied(written(tmp_path, **content)) is None


def test_penalties_and_stop_strings_of_the_file_are_applied_unless_the_config_says_otherwise(tmp_path):
    written(tmp_path, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.2, stop_strings="###")
    found = sampling_of(SamplingConfig(), tmp_path, max_tokens=9)
    assert found == Sampling(0.0, 1.0, 0, 0.0, 0.5, ("###",), 9, frequency_penalty=0.2, repetition_penalty=1.3)
    said = SamplingConfig(repetition_penalty=1, presence_penalty=0, frequency_penalty=0, stop=(), max_tokens=5)
    assert sampling_of(said, tmp_path, max_tokens=9) == Sampling(0.0, 1.0, 0, 0.0, 0.0, (), 5)


def test_an_export_draws_as_measured(tmp_path):
    written(tmp_path, eos_token_id=[1], top_p=0.1, max_length=20, use_cache=True, _from_model_config=True)
    sampling = Sampling(0.6, 1.0, 0, 0.1, 0.0, ("<|im_start|>", "x"), 64, repetition_penalty=1.1, end_ids=(256, 258))
    assert exported(sampling, tmp_path, TOKENIZER) == {
        "use_cache": True,
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "max_new_tokens": 64,
        "pad_token_id": 263,
        "eos_token_id": [256, 258, 257],
    }
    assert exported(Sampling(0.0, 1.0, 5, 0.0, 0.0, (), 9, end_ids=(258,)), written(tmp_path), TOKENIZER) == {
        "do_sample": False,
        "max_new_tokens": 9,
        "pad_token_id": 263,
        "eos_token_id": 258,
    }


def test_the_padding_token_is_the_files_the_tokenizers_or_an_end(tmp_path):
    assert exported(PLAIN, written(tmp_path, pad_token_id=7), TOKENIZER)["pad_token_id"] == 7
    bare = tiny_tokenizer()
    bare.pad_token = None
    assert exported(PLAIN, written(tmp_path), bare)["pad_token_id"] == 256


def test_what_no_file_holds_is_to_be_sent():
    sampling = Sampling(0.6, 1.0, 0, 0.0, 0.5, ("<|im_start|>", "\n\n"), 64, frequency_penalty=0.25)
    assert to_send(sampling, TOKENIZER) == ["frequency_penalty 0.25", "presence_penalty 0.5", "stop '\\n\\n'"]
    assert to_send(PLAIN, TOKENIZER) == []
