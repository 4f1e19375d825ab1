"""The Ray of a command: joined or refused, and gone with the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from paths import HELPERS, ROOT
from postgres import free_port
from small_search import BUDGET

from autolambda.engines.workers.cluster import connected
from autolambda.errors import ConfigError

pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")

COMMAND = [sys.executable, "-W", "ignore", "-c", "from autolambda.cli.main import main; main()"]


def test_an_address_that_nobody_listens_at_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    reason = r"^engine.workers: Ray at '127.0.0.1:1' cannot be used \(.*Connection refused\); correct RAY_ADDRESS"
    with pytest.raises(ConfigError, match=reason), connected():
        pytest.fail("connected")


@pytest.mark.slow
def test_a_cluster_that_is_guarded_by_a_token_is_joined(tmp_path):
    """``ray start`` guards one wherever the home folder holds a token, as a Ray of one's own leaves it there.

    A token is not taken unasked: it would shut out the workers of a cluster without one.
    """
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0123456789abcdef" * 4)
    at_home = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {"HOME": str(tmp_path)}
    evaluate = [*COMMAND, "evaluate", "--lambda=0.5", "--workers=2", "--set=tasks=[{name: arithmetic, limit: 8}]"]
    with started_ray(at_home) as address:
        said = [
            subprocess.run(
                evaluate,
                cwd=tmp_path,
                env=at_home | {"RAY_ADDRESS": address} | mode,
                capture_output=True,
                text=True,
                timeout=300,
            )
            for mode in ({"RAY_AUTH_MODE": "token"}, {})
        ]
    assert said[0].returncode == 0 and "accuracy" in said[0].stdout, said[0].stderr
    assert said[1].returncode == 2 and "set RAY_AUTH_MODE=token if the cluster is" in said[1].stderr, said[1].stderr


@contextmanager
def started_ray(environment: dict[str, str]) -> Iterator[str]:
    """The address of a cluster that ``ray start`` made on this machine."""
    port = free_port()
    start = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={port}", "--num-cpus=2", "--block"]
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ray", ignore_cleanup_errors=True) as folder:  # short: sockets
        head = subprocess.Popen(
            [*start, "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert head.stdout is not None
        try:
            assert any("--block" in line for line in head.stdout), "ray start ended"
            yield f"127.0.0.1:{port}"
        finally:
            head.terminate()  # ends all that it started
            head.communicate()


def test_one_worker_does_without_ray():
    code = (
        f"import sys; sys.path.insert(0, {str(HELPERS)!r})\n"
        "from small_search import small_config\n"
        "from autolambda.schedule import Schedule\n"
        "from autolambda.driver.search import evaluate\n"
        "evaluate(small_config(tasks=[{'name': 'arithmetic', 'limit': 2}]), Schedule.uniform(1.0))\n"
        "assert 'ray' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_no_process_is_left_behind(tmp_path, number):
    """With a Ray of the command's own, which ends with it however it ends."""
    settings = ["--set=search.trials=40", "--set=sampling.max_tokens=64", "--set=search.min_gain=0"]
    process = subprocess.Popen(
        [*COMMAND, "search", f"--budget={BUDGET:g}", "--workers=2", *settings],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line[9:].startswith("trial 0"):  # after the time of day
            break
    family = psutil.Process(process.pid).children(recursive=True)
    names = [" ".join(each.cmdline()) for each in family]
    assert all(any(part in name for name in names) for part in ("raylet", "gcs_server", "ray::Worker", "Agent"))
    nice = {each.nice() for each, name in zip(family, names, strict=True) if "ray::Worker" in name}
    assert nice == {psutil.Process(process.pid).nice()}  # Ray's default is 15, at which anything else starves them
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    # after SIGKILL Ray's two agents, which hold nothing, try for a minute to reach their Ray
    awaited = [each for each, name in zip(family, names, strict=True) if "Agent" not in name or process.returncode > 0]
    _, alive = psutil.wait_procs(awaited, timeout=30)
    assert not [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    if number != signal.SIGKILL:
        assert process.returncode == 130, output
        assert "interrupted; nothing is lost" in output
    shown = "".join(lines) + output
    assert "engine: 2 workers, each transformers on cpu, float32" in shown
    assert "raylet" not in shown and "Traceback" not in shown and "WARNING" not in shown
