"""Every name inside vLLM that autolambda uses is in the installed version, and one that is not is said."""

import shutil
from pathlib import Path

import pytest
from vllm_engines import needs_vllm

from autolambda.engines.vllm import internals
from autolambda.engines.vllm.internals import INTERNALS, check_internals, missing_internals
from autolambda.errors import ConfigError

pytestmark = needs_vllm


@pytest.fixture
def package(tmp_path):
    """A copy of the files of the installed vLLM in which names are looked up."""
    from vllm import __file__ as init

    for file in INTERNALS:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(init).parent / file, tmp_path / file)
    return tmp_path


def test_the_installed_vllm_has_them_all(package):
    check_internals()
    assert list(missing_internals(package)) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "missing"),
    [
        ("v1/engine/llm_engine.py", "reset_connector", "reset_all",
         "LLMEngine.reset_prefix_cache(reset_connector) in v1/engine/llm_engine.py"),
        ("v1/engine/core_client.py", "outputs_queue", "outputs",
         "SyncMPClient.outputs_queue in v1/engine/core_client.py"),
        ("utils/torch_utils.py", "def set_random_seed", "def set_seed",
         "set_random_seed(seed) in utils/torch_utils.py"),
        ("v1/engine/exceptions.py", "class EngineDeadError", "class EngineDied",
         "EngineDeadError in v1/engine/exceptions.py"),
    ],
)  # fmt: skip
def test_a_name_that_vllm_has_changed_is_said(package, file, old, new, missing):
    text = (package / file).read_text("utf-8")
    (package / file).write_text(text.replace(old, new), "utf-8")
    assert list(missing_internals(package)) == [missing]


def test_a_file_that_vllm_has_moved_is_said(package):
    (package / "v1/worker/gpu/model_runner.py").unlink()
    assert list(missing_internals(package)) == ["the file v1/worker/gpu/model_runner.py"]


def test_an_engine_is_refused_in_one_line(monkeypatch):
    monkeypatch.setitem(internals.INTERNALS, "envs.py", ("VLLM_GONE",))
    with pytest.raises(ConfigError, match=r"this vLLM lacks VLLM_GONE in envs.py, which autolambda uses; install"):
        check_internals()
