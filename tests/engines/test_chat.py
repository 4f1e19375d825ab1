"""Chat formats: what a template makes of a sample, and templates and tokenizers that cannot be used."""

import shutil

import pytest
from checkpoints import CHAT_TEMPLATE, tiny_tokenizer

from autolambda.engines.chat import ChatFormat, load_tokenizer
from autolambda.errors import CheckpointError, ConfigError
from autolambda.responses import Sample

SAMPLE = Sample("s-1", ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1=?\n"}), "2")


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def folder(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_messages_become_a_prompt_for_the_assistants_turn(tokenizer):
    assert ChatFormat(tokenizer, CHAT_TEMPLATE).render(SAMPLE) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1=?\n<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_template_is_the_formats_own_and_sees_its_kwargs(tokenizer):
    chat = ChatFormat(tokenizer, "{{ messages[1]['content'] }}{{ mode }}", {"mode": "fast"})
    assert chat.render(SAMPLE) == "1+1=?\nfast"


@pytest.mark.parametrize(
    ("template", "kwargs", "message"),
    [
        ("{% if", {}, "unexpected"),
        ("{{ messages[0].role.x.y }}", {}, "no attribute 'x'"),
        ("{{ raise_exception('no system\nrole') }}", {}, "no system"),
        ("{{ 1 + 'a' }}", {}, "unsupported operand"),
        ("{{ 1 / 0 }}", {}, "division by zero"),
        ("{{ messages[0].__class__.__mro__ }}", {}, "__class__"),
        ("x", {"tokenize": True}, "multiple values"),
    ],
)
def test_a_template_that_fails_is_one_line_with_the_sample(tokenizer, template, kwargs, message):
    with pytest.raises(ConfigError, match=message) as caught:
        ChatFormat(tokenizer, template, kwargs).render(SAMPLE)
    assert "'s-1'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", "garbage"),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", None),
        ("tokenizer_config.json", "[]"),
    ],
)
def test_a_damaged_tokenizer_is_refused_in_one_line(folder, file, content):
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    with pytest.raises(CheckpointError, match=r"no tokenizer (can be loaded|with a vocabulary)") as caught:
        load_tokenizer(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_is_refused(folder):
    (folder / "config.json").write_text('{"model_type": "qwen2"}')  # for which transformers makes an empty one
    for path in folder.glob("tokenizer*"):
        shutil.move(path, folder / f"not-{path.name}")
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        load_tokenizer(folder)
