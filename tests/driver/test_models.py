"""The models of a config: chat formats, and the sampling from config and generation_config.json."""

import re
import shutil
from datetime import datetime, timedelta

import pytest
from checkpoints import CHAT_TEMPLATE, edit_json, tiny_checkpoint

from autolambda.bundled import FOLDER
from autolambda.config import parse_config
from autolambda.driver.models import DEFAULT_MAX_TOKENS, open_models, parent_folders
from autolambda.engines.base import Sampling
from autolambda.errors import CheckpointError, ConfigError, PairError
from autolambda.responses import Sample

GREEDY = Sampling(0.0, 1.0, 0, 0.0, 0.0, (), 256, end_ids=(258,))
GENERATION = "generation_config.json"


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parents")
    for seed, name in enumerate(("instruct", "thinking")):
        tiny_checkpoint(folder / name, seed=seed)
        (folder / name / GENERATION).write_text("{}")
        (folder / name / "chat_template.jinja").write_text(f"{name}: {{{{ messages[0].content }}}}")
    return folder


@pytest.fixture
def parents(originals, tmp_path):
    return shutil.copytree(originals, tmp_path / "parents")


def opened(parents, **sections):
    models = {"instruct": str(parents / "instruct"), "thinking": str(parents / "thinking")}
    return open_models(parse_config(sections | {"models": models | sections.get("models", {})}))


def test_without_models_the_bundled_ones_are_meant(parents):
    config = parse_config({})
    assert parent_folders(config.models) == (str(FOLDER / "instruct"), str(FOLDER / "thinking"))
    assert open_models(config).pair.thinking.folder == FOLDER / "thinking"


@pytest.mark.parametrize("chosen", ["thinking", "instruct"])
def test_one_template_serves_the_study_and_each_parent_keeps_its_own(parents, chosen):
    models = opened(parents, models={"chat_template": chosen, "think_end": "[/T]", "chat_template_kwargs": {"a": 1}})
    assert models.chat == models.own_chats[chosen]
    assert {name: chat.template[:8] for name, chat in models.own_chats.items()} == {
        "instruct": "instruct",
        "thinking": "thinking",
    }
    assert (models.chat.think_end, models.chat.kwargs) == ("[/T]", {"a": 1})
    assert models.context == 512


def test_a_template_from_a_file_stands_in_where_a_parent_has_none(parents):
    (parents / "instruct" / "chat_template.jinja").unlink()
    path = parents / "mine.jinja"
    path.write_text(CHAT_TEMPLATE)
    models = opened(parents, models={"chat_template": str(path)})
    assert models.chat.template == models.own_chats["instruct"].template == CHAT_TEMPLATE
    assert models.own_chats["thinking"].template.startswith("thinking")


def test_the_chosen_parent_must_have_a_template(parents):
    (parents / "instruct" / "chat_template.jinja").unlink()
    assert opened(parents).chat.template.startswith("thinking")
    with pytest.raises(CheckpointError, match=r"instruct' has no chat template; set models\.chat_template"):
        opened(parents, models={"chat_template": "instruct"})


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_template_file_that_cannot_be_read(parents, content):
    path = parents / "mine.jinja"
    if content:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"'thinking', 'instruct' or a file, seen .*mine\.jinja"):
        opened(parents, models={"chat_template": str(path)})


@pytest.mark.parametrize(
    ("generation", "said", "expected"),
    [
        ({}, {}, {}),
        ({"temperature": 0.6}, {}, {"temperature": 0.6}),
        ({"do_sample": True}, {}, {"temperature": 1.0}),
        ({"do_sample": True, "temperature": None, "top_k": None}, {}, {"temperature": 1.0}),
        ({"do_sample": False, "temperature": 0.6}, {}, {}),
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.1, "max_new_tokens": 99},
            {},
            {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.1, "max_tokens": 99},
        ),
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.1, "max_new_tokens": 99},
            {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "max_tokens": 7, "stop": ["x"]},
            {"max_tokens": 7, "stop": ("x",)},
        ),
        ({"top_k": -1, "do_sample": False}, {"top_k": 5}, {"top_k": 5}),
    ],
)
def test_the_config_goes_before_the_thinking_parents_generation_config(parents, generation, said, expected):
    edit_json(parents / "instruct" / GENERATION, do_sample=True, temperature=9.0)
    edit_json(parents / "thinking" / GENERATION, **generation)
    assert opened(parents, sampling=said).sampling == Sampling(**(vars(GREEDY) | expected))


def test_no_generation_config_is_greedy(parents):
    (parents / "thinking" / GENERATION).unlink()
    assert opened(parents).sampling == GREEDY


@pytest.mark.parametrize(("key", "value"), [("temperature", "hot"), ("top_p", 2), ("top_k", -1), ("max_new_tokens", 0)])
def test_a_damaged_generation_config_is_refused_by_key(parents, key, value):
    edit_json(parents / "thinking" / GENERATION, do_sample=True, **{key: value})
    with pytest.raises(CheckpointError, match=r"generation_config\.json: sampling\..*set that key yourself") as caught:
        opened(parents)
    assert "\n" not in str(caught.value)


def test_a_response_must_fit_the_context(parents):
    with pytest.raises(ConfigError, match=r"sampling\.max_tokens: 512 does not fit the model's context of 512"):
        opened(parents, sampling={"max_tokens": 512})


def test_a_long_context_does_not_mean_long_responses(parents):
    for name in ("instruct", "thinking"):
        edit_json(parents / name / "config.json", max_position_embeddings=262_144)
    assert opened(parents).sampling.max_tokens == DEFAULT_MAX_TOKENS


def retagged(parents, tag, *, template="{{ messages[0].content }}"):
    """The parents with another closing tag among their tokens, and a template."""
    for name in ("instruct", "thinking"):
        path = parents / name / "tokenizer.json"
        path.write_text(
            path.read_text().replace("</think>", tag).replace("<think>", "<b>" if tag == "<a>" else "<think>")
        )
        (parents / name / "chat_template.jinja").write_text(template)


@pytest.mark.parametrize(
    ("tag", "template", "expected", "said"),
    [
        ("</think>", "", "</think>", None),
        ("[/THINK]", "", "[/THINK]", r"models\.think_end is \[/THINK\], from the added tokens of the Thinking parent"),
        ("</think>", "</thought>", "</thought>", r"models\.think_end is </thought>, from the chat template of"),
        ("[/A]", "<think>", "</think>", None),  # its opening tag tells it
        ("<a>", "", "</think>", r"neither the chat template nor the added tokens of .* set it if the model writes"),
    ],
)
def test_the_tag_that_closes_thinking_is_the_thinking_parents(parents, tag, template, expected, said):
    retagged(parents, tag, template="{{ messages[0].content }}" + template)
    models = opened(parents)
    assert {chat.think_end for chat in (models.chat, *models.own_chats.values())} == {expected}
    assert bool(models.warnings) is bool(said)
    assert said is None or re.match(said, models.warnings[0])


@pytest.mark.parametrize(
    ("chosen", "is_known"), [("</think>", False), ("[/THINK]", True), ("<tool_call>", True), ("messages", True)]
)
def test_a_chosen_tag_that_the_thinking_parent_does_not_know_is_said(parents, chosen, is_known):
    retagged(parents, "[/THINK]")
    models = opened(parents, models={"think_end": chosen})
    assert models.chat.think_end == chosen
    expected = (
        f"models.think_end: {chosen} is in neither the chat template nor the added tokens of the Thinking parent, "
        "which have [/THINK]"
    )
    assert models.warnings == (() if is_known else (expected,))


def test_keys_that_are_not_applied_are_among_the_warnings(parents):
    edit_json(parents / "thinking" / GENERATION, no_repeat_ngram_size=3)
    edit_json(parents / "instruct" / GENERATION, suppress_tokens=[1])  # nobody draws by it
    (said,) = [text for text in opened(parents).warnings if "generation_config" in text]
    assert said.endswith("leaves them out: no_repeat_ngram_size 3")


def test_end_tokens_are_named_by_the_sampling(parents):
    edit_json(parents / "thinking" / GENERATION, eos_token_id=[3, 1])
    edit_json(parents / "thinking" / "config.json", eos_token_id=7)
    assert opened(parents).sampling.end_ids == (1, 3, 7, 258)


def test_a_template_sees_one_moment(parents):
    (parents / "thinking" / "chat_template.jinja").write_text("{{ strftime_now('%d %B %Y, %H:%M:%S') }}")
    models = opened(parents)
    assert models.reads_clock
    then = models.at(datetime(2025, 3, 4, 5, 6, 7))
    assert then.chat.render(Sample("1", ({"role": "user", "content": "x"},), "")) == "04 March 2025, 05:06:07"
    assert abs(datetime.now() - models.moment) < timedelta(minutes=5) and not models.moment.microsecond


@pytest.mark.parametrize("copied", [False, True])
def test_one_model_given_twice_is_refused(tmp_path, copied):
    folder = shutil.copytree(FOLDER / "instruct", tmp_path / "copy") if copied else FOLDER / "instruct"
    config = parse_config({"models": {"instruct": str(FOLDER / "instruct"), "thinking": str(folder)}})
    with pytest.raises(PairError, match="hold the same weights"):
        open_models(config)


def test_a_name_that_speaks_against_its_place_is_told(tmp_path):
    folder = shutil.copytree(FOLDER / "instruct", tmp_path / "a-thinking-model")
    config = parse_config(
        {"models": {"instruct": str(folder), "thinking": str(shutil.copytree(FOLDER / "thinking", tmp_path / "b"))}}
    )
    assert any("by their names, the models may be swapped" in warning for warning in open_models(config).warnings)
