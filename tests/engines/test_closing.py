"""The texts that end thinking at a cap: whose phrase, when the bare tag, and what a user may give."""

from __future__ import annotations

from dataclasses import replace

import pytest
from checkpoints import tiny_tokenizer
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from autolambda.engines.chat import ChatFormat
from autolambda.engines.closing import MAKERS, closings_of
from autolambda.errors import ConfigError

BYTES = ChatFormat(tiny_tokenizer(), "")  # a token a byte
BARE = "\n</think>\n\n"


def in_words(*texts: str) -> ChatFormat:
    """A chat format whose tokenizer learned the words of these texts; it writes any other in bytes."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    trainer = BpeTrainer(initial_alphabet=ByteLevel.alphabet(), special_tokens=["</think>"], show_progress=False)
    tokenizer.train_from_iterator([*texts] * 9, trainer)
    return ChatFormat(PreTrainedTokenizerFast(tokenizer_object=tokenizer), "<|im_start|>")


def test_qwens_phrase_is_that_of_its_report() -> None:
    """Qwen3 technical report, section 4.3."""
    assert MAKERS["qwen3"] == (
        "Considering the limited time by the user, I have to give the solution based on the thinking directly now."
        "\n</think>.\n\n"
    )


@pytest.mark.parametrize("model_type", ["qwen3", "qwen3_moe"])
def test_a_makers_phrase_is_for_its_models_only(model_type: str) -> None:
    chat = in_words(MAKERS["qwen3"])
    (closing,) = closings_of(chat, model_type)
    assert closing.text == MAKERS[model_type]
    assert closing.num_tokens == len(chat.tokenizer(closing.text).input_ids) > 10
    for other in ("llama", None):
        assert [each.text for each in closings_of(chat, other)] == [BARE]  # it lacks the words of the general phrase
    distilled = replace(chat, template="<|User|>")  # of other makers, on the same architecture
    assert [each.text for each in closings_of(distilled, model_type)] == [BARE]


def test_other_models_have_two_to_choose_from() -> None:
    general = "\n\nMy time is up, so I answer now by what I have thought so far.\n</think>\n\n"
    found = closings_of(in_words(general), "llama")
    assert [each.text for each in found] == [general, BARE] and found[0].num_tokens > found[1].num_tokens


def test_a_tokenizer_of_characters_gets_the_bare_tag() -> None:
    """The phrase would be a hundred tokens that the model never saw together."""
    (closing,) = closings_of(BYTES, "qwen3")
    assert closing.text == BARE and closing.num_tokens == 4


def test_the_tag_is_the_models() -> None:
    chat = ChatFormat(BYTES.tokenizer, "", think_end="[/T]")
    assert [each.text for each in closings_of(chat, "qwen3")] == ["\n[/T]\n\n"]
    assert [each.text for each in closings_of(chat, "qwen3", setting="tag")] == ["\n[/T]\n\n"]


def test_a_text_of_the_user_holds_the_tag_and_can_be_written() -> None:
    (closing,) = closings_of(BYTES, "qwen3", setting="Enough.</think>")
    assert closing.text == "Enough.</think>" and closing.num_tokens == 8
    assert [each.text for each in closings_of(BYTES, "llama", setting="tag")] == [BARE]
    with pytest.raises(ConfigError, match=r"cap\.closing: 'Enough\.' does not hold </think>"):
        closings_of(BYTES, "qwen3", setting="Enough.")
    few = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"?": 0}, unk_token="?")), unk_token="?")
    with pytest.raises(ConfigError, match="the tokenizer cannot write 'Enough</think>'"):
        closings_of(ChatFormat(few, ""), "qwen3", setting="Enough</think>")
