"""Decoders: what is text, what ends it, and where a stop string begins that spans tokens."""

import json

import pytest
from checkpoints import edit_json, tiny_checkpoint, tiny_tokenizer

from autolambda.engines.base import Prompt
from autolambda.engines.decoder import Decoder, encode, end_ids_of
from autolambda.errors import CheckpointError, EngineError
from autolambda.merging.pair import open_pair
from autolambda.responses import Response

TOKENIZER = tiny_tokenizer()
END = 258


def ids(text):
    return TOKENIZER(text, add_special_tokens=False).input_ids


def decoder(*stop):
    return Decoder(TOKENIZER, frozenset({END}), stop)


@pytest.mark.parametrize(
    "text",
    ["", "plain", "<think>so</think>4", "a<|im_start|>b<|im_end|>", "a , b . 's", "é€"],
)
def test_text_is_kept_as_generated_special_tokens_too(text):
    assert decoder().text(ids(text)) == text


@pytest.mark.parametrize(
    ("stop", "text", "finish", "expected"),
    [
        ((), "four<|im_end|>", "stop", "four"),
        ((), "<|im_end|>", "stop", ""),
        ((), "a<|im_end|>b<|im_end|>", "stop", "a<|im_end|>b"),  # only the one that ended it
        (("\n",), "four\n", "stop", "four"),
        (("x", "ur"), "four", "stop", "fo"),
        (("four", "ur"), "four", "stop", ""),  # the first to begin
        (("ur",), "fours", "length", "fours"),
        (("zz",), "four<|im_end|>", "stop", "four"),
        (("four",), "four<|im_end|>", "stop", "four"),  # an engine that missed it: the end token ended it
        ((), "four<|im_end|>", "length", "four<|im_end|>"),
        ((), "fou", "aborted", "fou"),
        (("u",), "fou", "aborted", "fou"),
        ((), "fou<|im_end|>", "aborted", "fou<|im_end|>"),
        ((), "", "aborted", ""),
    ],
)
def test_a_response_is_the_text_before_what_ended_it(stop, text, finish, expected):
    tokens = ids(text)
    assert decoder(*stop).response(tokens, finish) == Response(expected, len(tokens), finish)
    assert decoder(*stop).response(tuple(tokens), finish).text == expected


@pytest.mark.parametrize("stop", ["b", "éb€", "</think>", "€" * 9])
def test_the_token_that_completes_a_stop_string_is_the_one_found(stop):
    """The string's bytes are tokens of their own, the first of which are no text yet."""
    text = "x" * 50 + "aé" + stop + "c"
    tokens, some = ids(text), decoder("no such text", stop)
    met = [count for count in range(1, len(tokens) + 1) if some.met_stop(tokens[:count])]
    assert met[0] == len(ids("x" * 50 + "aé" + stop))
    assert some.stop_at(tokens) == text.index(stop)
    assert some.stop_at(tokens[: met[0] - 1]) is None


def test_nothing_is_met_without_stop_strings():
    assert not decoder().met_stop(ids("four"))
    assert decoder().stop_at(ids("four")) is None


def test_a_long_response_is_not_decoded_whole_for_each_of_its_tokens(monkeypatch):
    lengths, some, tokens = [], decoder("stop"), ids("x" * 1000)
    text = Decoder.text
    monkeypatch.setattr(Decoder, "text", lambda self, tokens: (lengths.append(len(tokens)), text(self, tokens))[1])
    assert not some.met_stop(tokens)
    assert lengths == [12]


def test_prompts_are_encoded_as_they_are():
    texts = ["ab", "<|im_start|>user", "é"]
    assert encode(TOKENIZER, [Prompt(text, 0) for text in texts]) == [[*map(int, ids(text))] for text in texts]
    assert [len(row) for row in encode(TOKENIZER, [Prompt(text, 0) for text in texts])] == [2, 5, 2]


def test_prompts_without_a_token_are_named():
    with pytest.raises(EngineError, match="prompts without a token: number 1, 3; "):
        encode(TOKENIZER, [Prompt(text, 0) for text in ("a", "", "b", "")])


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [([7, 8], 9, {7, 8, 9, END}), (7, [9, 10], {7, 9, 10, END}), (None, None, {END})],
)
def test_end_ids_come_from_every_place_that_names_them(tmp_path, config, generation, expected):
    folder = tiny_checkpoint(tmp_path / "one")
    edit_json(folder / "config.json", eos_token_id=config)
    (folder / "generation_config.json").unlink()
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    assert end_ids_of(open_pair(str(folder), str(folder)), TOKENIZER) == expected


@pytest.mark.parametrize("value", ["7", [7, 2.5], [[7]], -1, {"a": 1}, True])
def test_end_ids_that_are_no_numbers_of_tokens_are_refused(tmp_path, value):
    folder = tiny_checkpoint(tmp_path / "one")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(CheckpointError, match="eos_token_id holds"):
        end_ids_of(open_pair(str(folder), str(folder)), TOKENIZER)


def test_a_token_beyond_the_embedding_is_an_error_of_one_line():
    prompts = [Prompt("a", 0), Prompt("b<pad>", 1)]
    assert encode(TOKENIZER, prompts, num_rows=264)[1][-1] == 263
    with pytest.raises(EngineError, match=r"holds the token 263 \('<pad>'\), but the model's embedding has 263"):
        encode(TOKENIZER, prompts, num_rows=263)
