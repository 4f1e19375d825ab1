"""An exported folder draws like the engine did, and says what it cannot hold and what was not checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import edit_json, edit_tensors, tiny_checkpoint
from small_search import finished, small_config
from transformers import AutoModelForCausalLM, AutoTokenizer

from autolambda.config import parse_config
from autolambda.driver.models import Models, open_models
from autolambda.engines.base import Prompt
from autolambda.engines.transformers.engine import TransformersEngine
from autolambda.errors import CheckpointError, StudyError
from autolambda.export.export import export
from autolambda.export.notes import export_notes
from autolambda.export.provenance import Provenance
from autolambda.merging.method import Method
from autolambda.schedule import Schedule

pytestmark = pytest.mark.usefixtures("one_thread")

GENERATION = "generation_config.json"
HALF = Schedule.uniform(0.5)
TEXTS = ["abc", "a", "7*7=", "hello there", "0 1 2 3 4", "<|im_start|>user", "zz", "abcdefghij"]


@dataclass(frozen=True)
class Odd:
    """An odd pair: the end tokens of its files, more keys of the generation config, and the config's sampling."""

    config_ends: Any
    generation: dict[str, Any]
    sampling: dict[str, Any] = field(default_factory=dict)


ODDS = {
    "the tokenizer's end is in no file": Odd(3, {"eos_token_id": [7]}),
    "lists everywhere": Odd([10, 11, 12], {"eos_token_id": [12, 20, 30, 40]}),
    "no generation config key": Odd(None, {}),
    "repetition penalty": Odd(3, {"eos_token_id": list(range(0, 200, 9)), "repetition_penalty": 1.3}),
    "repetition penalty of the config": Odd(3, {"repetition_penalty": 2.0}, {"repetition_penalty": 1.1}),
    "a cap": Odd(3, {"max_new_tokens": 5, "max_length": 7}),
    "a cap of the config": Odd(3, {"max_new_tokens": 5}, {"max_tokens": 9}),
    "stop strings that are tokens": Odd(3, {"repetition_penalty": 1.4}, {"stop": ["<tool_call>", "<|endoftext|>"]}),
    "keys that are left out": Odd(
        [5, 6], {"no_repeat_ngram_size": 2, "suppress_tokens": list(range(200)), "num_beams": 3, "min_new_tokens": 30}
    ),
    "sampling keys on greedy": Odd(3, {"temperature": 0.3, "do_sample": False, "top_k": 3, "typical_p": 0.2}),
}


@pytest.fixture
def make(tmp_path: Path) -> Callable[[Odd], Models]:
    def make(odd: Odd) -> Models:
        for seed, name in enumerate(("instruct", "thinking")):
            folder = tiny_checkpoint(tmp_path / name, seed=seed + 4, dtype=torch.float32)
            edit_json(folder / "config.json", eos_token_id=odd.config_ends)
            (folder / GENERATION).write_text(json.dumps(odd.generation))
        parents = {name: str(tmp_path / name) for name in ("instruct", "thinking")}
        return open_models(parse_config({"models": parents, "sampling": {"max_tokens": 40} | odd.sampling}))

    return make


@pytest.mark.parametrize("name", ODDS)
def test_plain_generate_of_the_exported_folder_writes_what_the_engine_wrote(
    make: Callable[[Odd], Models], tmp_path: Path, name: str
) -> None:
    odd = ODDS[name]
    if "max_new_tokens" in odd.generation and "max_tokens" not in odd.sampling:
        odd = replace(odd, sampling={"max_tokens": None, **odd.sampling})
    models = make(odd)
    export(models, HALF, tmp_path / "out")
    with closing(TransformersEngine(models.pair, tokenizer=models.chat.tokenizer, device="cpu")) as engine:
        engine.set_merge(Method.linear(HALF))
        ours = engine.generate([Prompt(text, 0) for text in TEXTS], models.sampling)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert models.sampling.temperature == 0 and models.sampling.end_ids
    ends = {*models.sampling.end_ids, *(tokenizer.convert_tokens_to_ids(list(models.sampling.stop)))}
    for text, response in zip(TEXTS, ours, strict=True):
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        made = model.generate(**ids)[0, ids.input_ids.shape[1] :].tolist()
        ended = made[-1] in ends
        assert (len(made), "stop" if ended else "length") == (response.num_tokens, response.finish_reason)
        assert tokenizer.decode(made[:-1] if ended else made, clean_up_tokenization_spaces=False) == response.text
    assert len({response.text for response in ours}) > 3


def test_what_no_file_can_hold_is_said_with_the_notes_on_the_pair(
    make: Callable[[Odd], Models], tmp_path: Path
) -> None:
    generation = {"suppress_tokens": [5], "presence_penalty": 0.5}
    models = make(Odd([3], generation, {"stop": ["\n\n", "<tool_call>"], "frequency_penalty": 0.25}))
    notes = export(models, HALF, tmp_path / "out")
    held = "generation_config.json cannot hold these settings, so send them with each request: "
    assert held + "frequency_penalty 0.25, presence_penalty 0.5, stop '\\n\\n'" in notes
    assert any("leaves them out: suppress_tokens [5]" in note for note in notes)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{held}`frequency_penalty 0.25, presence_penalty 0.5, stop '\\n\\n'`." in card
    assert "- `generation_config.json of the Thinking parent has keys that autolambda does not apply" in card
    assert "Sampling: temperature 0, top-p 1, top-k 0, frequency penalty 0.25, presence penalty 0.5, at most" in card
    assert "ends at the tokens 3 (`$`), 258 (`<|im_end|>`), or at the texts `'\\n\\n'`, `'<tool_call>'`." in card
    assert "vLLM does not read do_sample" in card and not any("do_sample" in note for note in notes)
    provenance = json.loads((tmp_path / "out" / "autolambda.json").read_text())
    assert provenance["notes"] == list(notes) and provenance["generation"]["sampling.end_ids"] == [3, 258]


def test_the_kwargs_of_the_template_are_to_be_sent() -> None:
    models = open_models(small_config(models__chat_template_kwargs={"enable_thinking": False}))
    assert any(
        note.endswith('chat_template_kwargs {"enable_thinking": false}') for note in export_notes(models, None, None)
    )


@pytest.mark.parametrize(("confirmed", "why"), [(True, "it holds them in another layout"), (False, "only finalists")])
def test_weights_that_cannot_be_compared_are_said_at_the_export(tmp_path: Path, confirmed: bool, why: str) -> None:
    measurement = Provenance.of(finished())
    models = open_models(small_config())
    assert not any("compared" in note for note in export_notes(models, None, measurement))
    assert measurement.entry.confirmed
    other = replace(measurement, weights=None, entry=replace(measurement.entry, confirmed=confirmed))
    (said,) = [note for note in export(models, HALF, tmp_path / "out", measurement=other) if "compared" in note]
    assert said.startswith(f"the exported weights were not compared with those in the engine: {why}")
    assert (
        f"it was not compared with the weights in the engine that measured them: {why}"
        in (tmp_path / "out" / "README.md").read_text()
    )


def test_the_date_of_the_measured_prompts_is_on_the_card(tmp_path: Path) -> None:
    file = tmp_path / "dated.jinja"
    file.write_text("{{ strftime_now('%d %B %Y') }}{{ messages[0].content }}")
    models = open_models(small_config(models__chat_template=str(file)))
    measurement = Provenance.of(finished())
    identity = {**measurement.identity, "models.clock": "2026-01-02T03:04:05"}
    (said,) = [note for note in export_notes(models, None, replace(measurement, identity=identity)) if " date" in note]
    assert said.endswith("the measured prompts were rendered for 2026-01-02 03:04:05")
    export(models, HALF, tmp_path / "out")
    assert "strftime_now" in (tmp_path / "out" / "chat_template.jinja").read_text()
    assert "The chat template asks for the date, so a server's prompts" in (tmp_path / "out" / "README.md").read_text()


def test_an_export_without_a_vocabulary_is_refused(make: Callable[[Odd], Models], tmp_path: Path) -> None:
    models = make(Odd(3, {}))
    (tmp_path / "thinking" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer with a vocabulary"):
        export(models, HALF, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["models.chat_template", "models.vocabulary", "models.think_end", "sampling.end_ids"])
def test_a_template_or_a_tokenizer_that_is_no_longer_the_measured_one_is_refused(tmp_path: Path, key: str) -> None:
    measurement, models = Provenance.of(finished()), open_models(small_config())
    other = replace(measurement, identity={**measurement.identity, key: "other"})
    with pytest.raises(StudyError, match=rf"than the present ones \({key} changed\)"):
        export(models, measurement.entry.schedule, tmp_path / "out", measurement=other)
    identity = {name: value for name, value in measurement.identity.items() if name != key}
    earlier = replace(measurement, identity=identity)
    if key == "sampling.end_ids":  # an earlier release did not store it
        export(models, measurement.entry.schedule, tmp_path / "out", measurement=earlier)


def test_longrope_is_said_because_servers_differ(make: Callable[[Odd], Models], tmp_path: Path) -> None:
    models = make(Odd(3, {}))
    assert not any("longrope" in note for note in export_notes(models, None, None))
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64, "factor": 8.0}
    rope |= {"short_factor": [1.0] * 16, "long_factor": [2.0] * 16}
    for name in ("instruct", "thinking"):
        edit_json(tmp_path / name / "config.json", rope_parameters=rope)
    parents = {name: str(tmp_path / name) for name in ("instruct", "thinking")}
    assert any(
        "use_cache=False" in note for note in export_notes(open_models(parse_config({"models": parents})), None, None)
    )


def test_a_merge_that_transformers_cannot_load_says_so_without_a_path(tmp_path: Path) -> None:
    folders = {name: tiny_checkpoint(tmp_path / name, seed=seed) for seed, name in enumerate(("instruct", "thinking"))}
    models = parse_config({"models": {name: str(folder) for name, folder in folders.items()}})
    assert export_notes(open_models(models), None, None) == ()
    for folder in folders.values():
        edit_tensors(folder / "model.safetensors", lambda tensors: tensors.pop("model.norm.weight"))
    (note,) = export_notes(open_models(models), None, None)
    assert note.endswith("its files lack 1 tensors of transformers' Qwen3ForCausalLM, such as 'model.norm.weight'")
    for folder in folders.values():
        edit_json(folder / "config.json", model_type=None)
    (note,) = export_notes(open_models(models), None, None)
    assert "'thinking': transformers cannot make a model of its config.json" in note and str(tmp_path) not in note
