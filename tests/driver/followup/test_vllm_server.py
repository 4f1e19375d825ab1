"""``check`` against vLLM's own server, with an export of the bundled pair."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from small_search import BUDGET, NAME, copy_finished, finished, small_config, storage_in

from autolambda.driver.followup.served import check
from autolambda.driver.models import open_models
from autolambda.export.export import export
from autolambda.statistics.paired import Kept

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

START_SECONDS, STOP_SECONDS = 1800.0, 60.0  # on a machine with other work


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the finished study's pick."""
    best = finished().best
    assert best is not None
    export(open_models(small_config()), best.schedule, tmp_path / "pick", max_shard_size=1 << 30)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "--dtype=float32",
        "--enforce-eager",
        "--max-model-len=512",
        "--served-model-name=pick",
        f"--port={port}",
    ]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={tmp_path / 'pick'}", *options]
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | own, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}/v1"
        until = time.monotonic() + START_SECONDS
        while not _answers(url):
            assert server.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text(errors="replace")[
                -2000:
            ]
            time.sleep(1)
        yield url
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):  # as on a busy machine that still starts it
            server.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # its engine too, so that neither outlives the test
        server.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/models").is_success
    except httpx.HTTPError:
        return False


def test_vllms_server_takes_token_ids_and_every_parameter(endpoint: str, tmp_path: Path) -> None:
    storage = copy_finished(storage_in(tmp_path / "study"))
    (found,) = check(small_config(), endpoint, name=NAME, storage=storage, budget=BUDGET)
    assert found.check.form == "tokens" and not found.check.left_out and found.check.software.startswith("vLLM ")
    assert found.check.server_tokens == found.check.tokenizer_tokens
    assert found.kept is not Kept.NOT_KEPT and found.measured.num_responses == found.own.num_responses
