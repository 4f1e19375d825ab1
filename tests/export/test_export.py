"""Export: what transformers loads is what was measured, whole or not at all."""

from __future__ import annotations

import itertools
import json
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from checkpoints import edit_tensors
from small_search import finished, small_config
from transformers import AutoModelForCausalLM, AutoTokenizer

from autolambda.bundled import FOLDER
from autolambda.driver.engine import open_engine
from autolambda.driver.job import open_job
from autolambda.driver.models import Models, open_models
from autolambda.engines.base import Engine, Prompt
from autolambda.errors import CheckpointError, OutputError, StudyError
from autolambda.export.export import check_export, export
from autolambda.export.provenance import Provenance
from autolambda.merging.merge import Merge
from autolambda.merging.method import Method
from autolambda.merging.shards import read_shard
from autolambda.schedule import Profile, Schedule

SINGLE = "model.safetensors"
SCHEDULE = Schedule.by_depth_and_module(Profile((0.4, 0.9)), Profile((0.7,)))
NUM_PROMPTS = 64


@pytest.fixture(scope="module")
def models() -> Models:
    return open_models(small_config())


@pytest.fixture(scope="module")
def measurement() -> Provenance:
    """The numbers of the pick, for the card of another schedule too."""
    return replace(Provenance.of(finished()), weights=None)


@pytest.fixture(scope="module")
def folder(models: Models, measurement: Provenance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "out"
    export(models, SCHEDULE, out, measurement=measurement)
    return out


def engine_of(**changes: object) -> Engine:
    return open_engine(open_job(small_config(**changes)))


def test_the_exported_model_writes_the_same_greedy_text_as_the_engine(folder: Path, models: Models) -> None:
    job = open_job(small_config(tasks=[{"name": "arithmetic", "limit": NUM_PROMPTS}]))
    texts = [models.chat.render(sample) for sample in job.search[0].samples]
    with closing(open_engine(job)) as engine:
        engine.set_merge(Method.linear(SCHEDULE))
        greedy = replace(models.sampling, temperature=0.0)
        ours = dict(zip(texts, engine.generate([Prompt(text, 0) for text in texts], greedy), strict=True))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for _, group in itertools.groupby(sorted(texts, key=len), key=len):  # equal lengths: no padding in the prompts
        prompts = list(group)
        ids = tokenizer(prompts, return_tensors="pt", add_special_tokens=False)
        outputs = model.generate(**ids, do_sample=False, temperature=None, top_p=None, top_k=None)
        for prompt, output in zip(prompts, outputs[:, ids.input_ids.shape[1] :].tolist(), strict=True):
            tokens = [token for token in output if token != tokenizer.pad_token_id]
            text = tokenizer.decode([token for token in tokens if token != tokenizer.eos_token_id])
            assert (text, len(tokens)) == (ours[prompt].text, ours[prompt].num_tokens)
    assert len(ours) == NUM_PROMPTS and len({response.text for response in ours.values()}) > NUM_PROMPTS // 4


def test_the_weights_are_those_that_were_evaluated(folder: Path) -> None:
    with (
        closing(engine_of()) as evaluated,
        closing(engine_of(models__instruct=str(folder), models__thinking=str(FOLDER / "thinking"))) as exported,
    ):
        evaluated.set_merge(Method.linear(SCHEDULE))
        exported.set_merge(Method.linear(Schedule.uniform(0.0)))
        assert evaluated.fingerprint() == exported.fingerprint()
        evaluated.set_merge(Method.linear(Schedule.uniform(0.5)))
        assert evaluated.fingerprint() != exported.fingerprint()


def test_an_export_of_a_finalist_holds_the_weights_that_were_confirmed(models: Models, tmp_path: Path) -> None:
    measurement = Provenance.of(finished())
    schedule = measurement.entry.schedule
    export(models, schedule, tmp_path / "out", measurement=measurement)
    provenance = json.loads((tmp_path / "out" / "autolambda.json").read_text())
    assert provenance["weights"] == provenance["evaluated_weights"] == measurement.weights
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"`{measurement.weights}`: they are the confirmed weights, bit for bit." in card
    with closing(engine_of()) as engine:
        engine.set_merge(Method.linear(schedule))
        assert engine.fingerprint().digest == measurement.weights
    other = replace(measurement, weights="0" * 64)
    with pytest.raises(StudyError, match=rf"study 'small' confirmed other weights for {schedule} than these"):
        export(models, schedule, tmp_path / "other", measurement=other)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_weights_that_were_not_compared_are_said_to_be_so(folder: Path, models: Models, tmp_path: Path) -> None:
    assert "it was not compared with the weights in the engine" in (folder / "README.md").read_text()
    assert json.loads((folder / "autolambda.json").read_text())["evaluated_weights"] is None
    export(models, SCHEDULE, tmp_path / "out")
    digest = json.loads((tmp_path / "out" / "autolambda.json").read_text())["weights"]
    assert f"Their SHA-256 is `{digest}`.\n" in (tmp_path / "out" / "README.md").read_text()


def test_template_generation_config_and_schedule_are_the_searched_ones(folder: Path, models: Models) -> None:
    assert AutoTokenizer.from_pretrained(folder).chat_template == models.chat.template
    config = json.loads((folder / "generation_config.json").read_text())
    sampling = models.sampling
    assert config["do_sample"] is True and config["max_new_tokens"] == sampling.max_tokens == 64
    assert (config["temperature"], config["top_p"], config["top_k"]) == (
        sampling.temperature,
        sampling.top_p,
        sampling.top_k,
    )
    assert config["eos_token_id"] == models.pair.config["eos_token_id"]
    assert Schedule.from_dict(yaml.safe_load((folder / "schedule.yaml").read_text())) == SCHEDULE


def test_another_template_and_greedy_sampling_are_exported_too(tmp_path: Path) -> None:
    models = open_models(small_config(models__chat_template="instruct", sampling__temperature=0.0))
    export(models, Schedule.uniform(0.0), tmp_path / "out")
    template = AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    assert template == models.own_chats["instruct"].template != models.own_chats["thinking"].template
    config = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert config["do_sample"] is False and "temperature" not in config and "top_p" not in config
    assert models.chat.tokenizer.chat_template == models.own_chats["thinking"].template  # not changed by the export


def test_a_stop_string_that_is_one_token_ends_responses_elsewhere_too(tmp_path: Path) -> None:
    """``<|im_start|>`` is such a token of the bundled pair; the other one has no place in a generation config."""
    models = open_models(small_config(sampling__stop=["<|im_start|>", "\n\n", "<|im_end|>"]))
    export(models, Schedule.uniform(0.5), tmp_path / "out")
    end = models.pair.config["eos_token_id"]
    start = models.chat.tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert models.chat.tokenizer.convert_tokens_to_ids("<|im_end|>") == end != start
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [end, start]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.generation_config.eos_token_id == [end, start]


def test_the_model_card_holds_the_numbers(folder: Path, measurement: Provenance) -> None:
    card = (folder / "README.md").read_text()
    accuracy, tokens = measurement.entry.measured.accuracy, measurement.entry.measured.mean_tokens
    shares = [100 * each for each in (accuracy.value, accuracy.low, accuracy.high)]
    numbers = "{:.1f} % ({:.1f} to {:.1f}) | ".format(*shares)
    numbers += f"{tokens.value:.1f} ({tokens.low:.1f} to {tokens.high:.1f})"
    assert f"| this merge | {numbers} |" in card and "shown to be within 30 tokens" in card
    assert "on prompts that the search never saw" in card and "at most 64 tokens" in card and "</think>" in card
    front_matter = yaml.safe_load(card.split("---")[1])
    assert front_matter == {"library_name": "transformers", "tags": ["merge", "autolambda"]}


def test_the_provenance_names_parents_schedule_and_measurement(folder: Path, measurement: Provenance) -> None:
    provenance = json.loads((folder / "autolambda.json").read_text())
    assert provenance["instruct"]["digest"] == measurement.identity["models.instruct"]
    assert provenance["schedule"] == SCHEDULE.to_dict() and provenance["study"] == "small"
    assert provenance["measured"] == json.loads(json.dumps(measurement.entry.to_dict()))


def test_an_unmeasured_merge_claims_nothing(models: Models, tmp_path: Path) -> None:
    export(models, Schedule.uniform(0.5), tmp_path / "out", max_shard_size=300_000)
    assert "Measured" not in (tmp_path / "out" / "README.md").read_text()
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    assert check_export(tmp_path / "out") == "lambda 0.5"
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja", "schedule.yaml", "mergekit.yml"],
)
def test_one_flipped_byte_is_found(folder: Path, name: str) -> None:
    assert check_export(folder) == str(SCHEDULE)
    path = folder / name
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        with pytest.raises(OutputError, match=f"changed after the export: {name}; export it again"):
            check_export(folder)
    finally:
        path.write_bytes(before)


def test_one_flipped_bit_of_a_weight_is_found_by_its_tensor(folder: Path) -> None:
    for name in ("model.layers.1.mlp.up_proj.weight", "model.norm.weight"):
        info = read_shard(folder / SINGLE)[name]
        with (folder / SINGLE).open("r+b") as file:
            file.seek(info.offset + info.num_bytes - 1)
            [before] = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([before ^ 1]))
        try:
            with pytest.raises(OutputError, match=f"changed after the export: {name}; export it again"):
                check_export(folder)
        finally:
            with (folder / SINGLE).open("r+b") as file:
                file.seek(info.offset + info.num_bytes - 1)
                file.write(bytes([before]))
    assert check_export(folder) == str(SCHEDULE)


def test_tensors_that_are_gone_or_added_are_found(models: Models, tmp_path: Path) -> None:
    export(models, Schedule.uniform(0.5), tmp_path / "out")
    edit_tensors(tmp_path / "out" / SINGLE, lambda tensors: tensors.update(x=tensors.pop("model.norm.weight")))
    with pytest.raises(OutputError, match=r"the export: model\.norm\.weight, x; export"):
        check_export(tmp_path / "out")


def test_a_missing_file_is_found_and_an_edited_card_is_fine(models: Models, tmp_path: Path) -> None:
    export(models, Schedule.uniform(0.5), tmp_path / "out")
    (tmp_path / "out" / "README.md").write_text("mine")
    assert check_export(tmp_path / "out") == "lambda 0.5"
    (tmp_path / "out" / "tokenizer.json").unlink()
    with pytest.raises(OutputError, match="the export: tokenizer"):
        check_export(tmp_path / "out")


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '{"method": "linear", "schedule": {"lambda": 1}, "files": {}, "tensors": {}}',
        '{"method": "linear", "schedule": {"lambda": 1}, "files": {"config.json": "0"}}',
        '{"method": "linear", "schedule": 1, "files": [], "tensors": {}}',
    ],
)
def test_a_forged_provenance_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(OutputError, match="only folders exported by autolambda"):
        check_export(tmp_path)
    (tmp_path / "autolambda.json").write_text(content)
    with pytest.raises(OutputError, match="was changed after the export"):
        check_export(tmp_path)
    (tmp_path / "autolambda.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        check_export(tmp_path)


def test_an_existing_folder_is_refused_and_untouched(models: Models, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        export(models, SCHEDULE, tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CheckpointError("cut short")])
def test_an_interrupted_export_leaves_nothing(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    real, names = Merge.arithmetic, []

    def broken(self: Merge, name: str, *args: Any) -> Any:
        names.append(name)
        assert len(list(tmp_path.iterdir())) == 1  # it had begun
        if len(names) > 10:
            raise error
        return real(self, name, *args)

    monkeypatch.setattr(Merge, "arithmetic", broken)
    with pytest.raises(type(error)):
        export(models, SCHEDULE, tmp_path / "out", max_shard_size=1000)
    assert not list(tmp_path.iterdir())
    assert len(names) < len(models.pair.tensors)  # the others were not begun


@pytest.mark.parametrize(
    ("change", "key"), [({"models.thinking": "0" * 64}, "models.thinking"), ({"sampling.top_k": 7}, "sampling.top_k")]
)
def test_models_that_are_no_longer_the_measured_ones_are_refused(
    models: Models, measurement: Provenance, tmp_path: Path, change: dict[str, object], key: str
) -> None:
    other = replace(measurement, identity={**measurement.identity, **change})
    with pytest.raises(StudyError, match=rf"measured other models than the present ones \({key} changed\)"):
        export(models, SCHEDULE, tmp_path / "out", measurement=other)
    assert not list(tmp_path.iterdir())


def test_the_sampling_that_is_compared_is_all_of_it(models: Models, measurement: Provenance) -> None:
    assert {key for key in measurement.identity if key.startswith("sampling.")} == {
        f"sampling.{key}" for key in asdict(models.sampling)
    }


def test_a_name_with_control_characters_stays_on_one_line(tmp_path: Path) -> None:
    export(open_models(small_config()), Schedule.uniform(0.5), tmp_path / "out")
    path = tmp_path / "out" / "autolambda.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"tensors": content["tensors"] | {"a\x1eb": "0"}}))
    with pytest.raises(OutputError, match=r"changed after the export: a\\x1eb; export it again"):
        check_export(tmp_path / "out")
