"""``autolambda merge``: every method end to end, what goes together, and its progress on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from checkpoints import edit_json, tiny_checkpoint
from command_line import Run, refused
from families import FAMILIES, save_family
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from autolambda.merging import arithmetic
from autolambda.merging.kernels.sums import pieces_of, slerp_weights, ties_limits
from autolambda.merging.rounding import Draws, Rounding, rounded

SINGLE = "model.safetensors"
CLI = str(Path(sys.executable).with_name("autolambda"))
MODELS = ("base", "instruct", "thinking")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three models of one shape, and one of another."""
    folder = tmp_path_factory.mktemp("family")
    for seed, name in enumerate(MODELS):
        tiny_checkpoint(folder / name, seed=seed)
    tiny_checkpoint(folder / "larger", intermediate_size=96)
    return folder


def _ties(base: Tensor, instruct: Tensor, thinking: Tensor, draws: Draws | None) -> Tensor:
    limits = ties_limits(pieces_of(base, instruct, thinking), num_values=base.numel())
    return arithmetic.ties(base, instruct, thinking, limits=limits, draws=draws)


def _slerp(base: Tensor, instruct: Tensor, thinking: Tensor, draws: Draws | None) -> Tensor:
    weights = slerp_weights(pieces_of(instruct, thinking), 0.3)
    return arithmetic.slerp(instruct, thinking, 0.3, weights=weights, draws=draws)


def _linear(base: Tensor, instruct: Tensor, thinking: Tensor, draws: Draws | None) -> Tensor:
    return rounded(torch.lerp(instruct.float(), thinking.float(), 0.3), base.dtype, draws)


def _task_arithmetic(base: Tensor, instruct: Tensor, thinking: Tensor, draws: Draws | None) -> Tensor:
    return arithmetic.task_arithmetic(base, instruct, thinking, draws=draws)


METHODS: dict[str, Callable[[Tensor, Tensor, Tensor, Draws | None], Tensor]] = {
    "linear": _linear,
    "slerp": _slerp,
    "task_arithmetic": _task_arithmetic,
    "ties": _ties,
}
ROUNDINGS = {
    (): Rounding(),
    ("--rounding", "dithered", "--rounding-seed", "7"): Rounding("dithered", 7),
    ("--rounding", "nearest"): Rounding("nearest"),
}


def options_of(method: str) -> list[str]:
    takes = ["--lambda", "0.3"] if method in ("linear", "slerp") else ["--base", "base"]
    return ["--method", method, *takes]


@pytest.mark.parametrize("options", ROUNDINGS, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_writes_what_its_arithmetic_gives(
    run: Run, family: Path, method: str, options: tuple[str, ...]
) -> None:
    rounding = ROUNDINGS[options]
    for name in MODELS:
        Path(name).symlink_to(family / name)
    ran = run("merge", "instruct", "thinking", "out", *options_of(method), *options)
    words = {"linear": "lambda 0.3", "slerp": "slerp, lambda 0.3"}.get(method, method)
    assert (ran.code, ran.out, ran.err) == (0, f"out: {words}\n", "")
    base, instruct, thinking = (load_file(family / name / SINGLE) for name in MODELS)
    merged = load_file(Path("out") / SINGLE)
    assert merged.keys() == instruct.keys()
    for name, tensor in merged.items():
        draws = rounding.draws(name, tensor.shape, tensor.dtype)
        expected = METHODS[method](base[name], instruct[name], thinking[name], draws)
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, expected), name
    assert run("validate", "out").out == f"out: intact, {words}\n"
    provenance = json.loads(Path("out/autolambda.json").read_text())
    assert (provenance["method"], provenance["merge"]) == (method, rounding.to_dict())
    again = " ".join(("OUT", *(("--method", method) if method != "linear" else ()), *options[-2:]))
    assert f"{again} --" in Path("out/README.md").read_text()  # the command that makes it again


def test_a_schedule_beyond_the_line_is_written_checked_and_made_again(run: Run, family: Path) -> None:
    for name in MODELS:
        Path(name).symlink_to(family / name)
    Path("s.yaml").write_text("{lambda: 0.5, scale: {attention: 1.2, ffn: 1.0, other: 1.1}, third: 0.2}")
    options = ("--schedule", "s.yaml", "--base", "base", "--third", "base")
    ran = run("merge", "instruct", "thinking", "out", *options)
    words = "lambda 0.5, scale (attention 1.2, feed-forward 1, embeddings and head 1.1), third 0.2"
    assert (ran.code, ran.out, ran.err) == (0, f"out: {words}\n", "")
    assert run("validate", "out").out == f"out: intact, {words}\n"
    assert not Path("out/mergekit.yml").exists()
    card = Path("out/README.md").read_text()
    assert "| Third |" in card and "OUT --schedule schedule.yaml --base ./base --third ./base" in card
    assert "There is no recipe for mergekit" in card and "scale * (" in card
    again = run("merge", "instruct", "thinking", "again", "--schedule", "out/schedule.yaml", *options[2:])
    assert again.code == 0
    one, other = (Path(name, SINGLE).read_bytes() for name in ("out", "again"))
    assert one == other


def test_an_extrapolation_is_made_and_its_danger_said(run: Run, family: Path) -> None:
    for name in MODELS:
        Path(name).symlink_to(family / name)
    ran = run("merge", "instruct", "thinking", "out", "--lambda", "1.2")
    assert (ran.code, ran.out) == (0, "out: lambda 1.2\n")
    assert ran.err == (
        "note: the schedule extrapolates: its weights are no average of trained ones, so check the model's outputs\n"
    )


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--method", "ties"], ["base: ties needs a base model"]),
        (["--method", "task_arithmetic"], ["base: task_arithmetic needs a base model"]),
        (["--method", "slerp", "--lambda", "0.3", "--base", "base"], ["base: slerp takes no base model, seen 'base'"]),
        (["--lambda", "0.3", "--base", "base"], ["base: linear takes no base model"]),
        (["--lambda", "0.3", "--third", "base"], ["third: lambda 0.3 takes no third model, seen 'base'"]),
        (
            ["--method", "ties", "--base", "base", "--lambda", "0.3"],
            ["schedule: ties takes no lambda, seen lambda 0.3"],
        ),
        (["--method", "task_arithmetic", "--base", "base", "--lambda", "0"], ["task_arithmetic takes no lambda"]),
        (["--method", "slerp"], ["give either --lambda X or --schedule FILE"]),
        (["--method", "slerp", "--lambda", "0.3", "--schedule", "s"], ["give either --lambda X or --schedule FILE"]),
        (["--method", "dare"], ["Invalid value for '--method': 'dare' is not one of 'linear', 'task_arithmetic'"]),
        (["--method", "ties", "--base", "./nowhere"], ["no folder './nowhere'"]),
        (["--method", "ties", "--base", ""], ["no folder ''"]),
    ],
)
def test_what_does_not_go_together_is_one_line_and_leaves_no_folder(
    run: Run, family: Path, options: list[str], parts: list[str]
) -> None:
    for name in MODELS:
        Path(name).symlink_to(family / name)
    refused(run("merge", "instruct", "thinking", "out", *options), *parts)
    assert sorted(path.name for path in Path().iterdir()) == sorted(MODELS)


def test_a_base_of_another_shape_is_refused_with_every_mismatch(run: Run, family: Path) -> None:
    parents = [str(family / name) for name in ("instruct", "thinking")]
    ran = run("merge", *parents, "out", "--method", "ties", "--base", str(family / "larger"))
    first, *rest = ran.err.splitlines()
    assert ran.code == 2 and "is not the parents' base" in first and rest
    assert all(line.startswith("  - ") for line in rest) and not list(Path().iterdir())


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A pair of 50 MB each, so that the merge takes longer than nothing."""
    found = []
    for name, value in (("instruct", 0.5), ("thinking", 0.25)):
        folder = tiny_checkpoint(tmp_path_factory.mktemp(name), num_hidden_layers=6)
        tensors = load_file(folder / SINGLE)
        layers = {f"model.layers.{i}.mlp.up_proj.weight": torch.full((2048, 2048), value).bfloat16() for i in range(6)}
        save_file(tensors | layers, folder / SINGLE)
        found.append(str(folder))
    return found


def test_a_terminal_shows_megabytes_a_second(tmp_path: Path, larger: list[str]) -> None:
    """A pipe shows nothing: see the methods above."""
    command = [CLI, "merge", *larger, str(tmp_path / "out"), "--lambda", "0.5"]
    terminal, other_end = pty.openpty()
    settings = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=other_end, stderr=other_end, env=settings) as process:
        os.close(other_end)
        shown = read_all(terminal)
    assert process.returncode == 0
    rates = re.findall(r"writing .*?([\d.]+)/([\d.]+) MB.*?([\d.]+) [MG]B/s", shown)
    assert rates and rates[-1][0] == rates[-1][1] and 50 <= float(rates[-1][1]) <= 51, shown


def read_all(terminal: int) -> str:
    """What is written to a terminal until its other end is closed."""
    parts = []
    with suppress(OSError):  # how Linux says that the other end is closed
        while part := os.read(terminal, 1 << 16):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()


def test_notes_on_the_pair_go_to_standard_error(family: Path, tmp_path: Path, run: Run) -> None:
    for name in ("instruct", "thinking"):
        shutil.copytree(family / name, tmp_path / name)
    edit_json(tmp_path / "instruct" / "config.json", eos_token_id=1, attention_dropout=0.5)
    edit_json(tmp_path / "thinking" / "generation_config.json", no_repeat_ngram_size=3)
    parents = [str(tmp_path / name) for name in ("instruct", "thinking")]
    ran = run("merge", *parents, "out", "--lambda", "0.5")
    assert (ran.code, ran.out) == (0, "out: lambda 0.5\n")
    assert [line.partition(":")[0] for line in ran.err.splitlines()] == ["note"] * 3
    assert all(part in ran.err for part in ("attention_dropout", "eos_token_id", "no_repeat_ngram_size 3"))
    (tmp_path / "thinking" / "tokenizer.json").unlink()
    refused(run("merge", *parents, "other", "--lambda", "0.5"), "has no tokenizer with a vocabulary")
    assert not Path("other").exists()


@pytest.mark.parametrize("vision", [None, "instruct"])
def test_a_merge_of_models_with_vision_is_whole(run: Run, tmp_path: Path, vision: str | None) -> None:
    parents = [save_family(tmp_path / str(seed), FAMILIES["qwen3_vl"], seed=seed) for seed in (0, 1)]
    (parents[1] / "preprocessor_config.json").write_text('{"size": 28}')
    option = ["--vision", vision] if vision else []
    ran = run("merge", *map(str, parents), "out", "--lambda", "0.5", *option)
    owner = vision or "thinking"
    assert ran.code == 0 and ran.out == "out: lambda 0.5\n"
    assert f"such as a vision tower's, are those of {owner} in every merge (models.vision)" in ran.err
    assert (Path("out") / "preprocessor_config.json").read_text() == '{"size": 28}'
    stored, merged = (load_file(folder / SINGLE) for folder in (parents[owner == "thinking"], Path("out")))
    same = {name for name, tensor in merged.items() if torch.equal(tensor, stored[name])}
    assert same == {name for name in merged if "visual" in name} and merged.keys() == stored.keys()
    AutoModelForImageTextToText.from_pretrained("out")
