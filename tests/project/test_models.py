"""Models whose weights are still on the hub: a project begins from their small files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from command_line import Run

from autolambda.bundled import FOLDER
from autolambda.config_file import load_config
from autolambda.project.models import look_at_models


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A hub with the bundled pair as ``me/instruct`` and ``me/thinking``; the patterns that were downloaded."""
    found: list[list[str]] = []

    def snapshot_download(source: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        found.append(allow_patterns)
        folder = tmp_path / "cache" / source
        folder.mkdir(parents=True, exist_ok=True)
        for path in (FOLDER / source.rpartition("/")[2]).iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                shutil.copy(path, folder)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *arguments, **options: None)
    return found


def test_small_files_tell_what_whole_models_tell(asked: list[list[str]]) -> None:
    small, whole = (
        look_at_models(load_config(None, overrides={f"models.{name}": f"{owner}/{name}" for name in PARENTS}))
        for owner in ("me", str(FOLDER))
    )
    assert small.models is None and whole.models is not None
    assert (small.think_end, small.template, small.cap_from) == (whole.think_end, whole.template, whole.cap_from)
    assert small.sampling.max_tokens == whole.sampling.max_tokens
    assert "6 layers, " in small.about and "downloads the weights of me/instruct and me/thinking" in small.about
    assert not any("safetensors" in pattern for patterns in asked for pattern in patterns)


PARENTS = ("instruct", "thinking")


def test_init_downloads_no_weights(run: Run, asked: list[list[str]]) -> None:
    Path("my.jsonl").write_text("".join(f'{{"question": "{i}+1=", "answer": {i + 1}}}\n' for i in range(30)))
    ran = run("init", "me/instruct", "me/thinking", "--task=my.jsonl")
    assert ran.code == 0 and "valid as far as it can be told without the weights" in ran.out
    assert "search: my, 10 prompts" in ran.out and "tokens: at most " in ran.out
    plain = yaml.safe_load(Path("autolambda.yaml").read_text())
    assert plain["models"]["thinking"] == "me/thinking" and plain["sampling"]["max_tokens"] == 192
    assert not any("safetensors" in pattern for patterns in asked for pattern in patterns)
