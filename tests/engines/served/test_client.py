"""What a server is, and requests that meet a busy one or one that is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from local_server import Handler, served

from autolambda.engines.served import client
from autolambda.engines.served.client import Refused, Server, look, post
from autolambda.errors import ConfigError, EngineError


@dataclass
class Told:
    """What each path answers after some seconds: a status, its content and headers, the last one again and again."""

    answers: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    url: str = ""
    num_asked: int = 0
    seconds: float = 0.0


class ToldHandler(Handler):
    hub: Told

    def answer(self, body: bytes) -> None:
        answers = self.hub.answers.get(self.path, [(404, {"detail": "Not Found"})])
        self.hub.num_asked += 1
        time.sleep(self.hub.seconds)
        self.send(*(answers.pop(0) if len(answers) > 1 else answers[0]))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.001)
    monkeypatch.delenv(client.KEY, raising=False)
    with served(Told(), ToldHandler) as found:
        yield found


def asked(told: Told, timeout: float | None = None) -> dict[str, object]:
    async def ask() -> dict[str, object]:
        async with httpx.AsyncClient(timeout=5) as http:
            return await post(http, f"{told.url}/v1/completions", {"model": "m"}, timeout=timeout)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("answers", "software"),
    [
        ({"/v1/models": {"data": [{"id": "a", "owned_by": "vllm"}]}, "/version": {"version": "0.32.0"}}, "vLLM 0.32.0"),
        ({"/v1/models": {"data": [{"id": "a"}]}, "/props": {"build_info": "b6500-abc"}}, "llama.cpp b6500-abc"),
        ({"/v1/models": {"data": [{"id": "a", "owned_by": "me"}]}}, "me"),
    ],
)
def test_a_server_tells_its_software_and_its_models(told: Told, answers: dict[str, object], software: str) -> None:
    told.answers = {path: [(200, content)] for path, content in answers.items()}
    assert look(told.url) == Server(f"{told.url}/v1", software, ("a",))
    assert look(f"{told.url}/v1/").model(None) == "a"
    assert look(told.url.removeprefix("http://")).model("a") == "a"


def test_a_server_that_lists_no_models_takes_any_name(told: Told) -> None:
    found = look(told.url)
    assert found.models is None and found.model("mine") == "mine"
    with pytest.raises(ConfigError, match="--model: name the model; the server lists none"):
        found.model(None)


def test_a_busy_server_is_asked_again(told: Told) -> None:
    told.answers["/v1/completions"] = [(503, {}), (429, {"error": {"message": "slow down"}}), (200, {"ok": 1})]
    assert asked(told) == {"ok": 1} and told.num_asked == 3


def test_a_server_that_stays_busy_is_an_error_that_says_why(told: Told) -> None:
    told.answers["/v1/completions"] = [(429, {"error": {"message": "slow\ndown"}})]
    with pytest.raises(EngineError, match=r"\(429: slow down\); every stored response is kept"):
        asked(told)
    assert told.num_asked == client.BUSY_ATTEMPTS


def test_a_server_that_fails_is_asked_less_often_than_a_busy_one(told: Told) -> None:
    told.answers["/v1/completions"] = [(500, {})]
    with pytest.raises(EngineError, match=r"\(500: "):
        asked(told)
    assert told.num_asked == client.ATTEMPTS


def test_a_server_that_hangs_is_an_error_at_once(told: Told) -> None:
    told.seconds = 0.5
    with pytest.raises(EngineError, match="takes too long for a response; every stored response is kept"):
        asked(told, timeout=0.1)
    assert told.num_asked == 1


def test_a_busy_server_is_left_alone_as_long_as_it_asks(told: Told) -> None:
    told.answers["/v1/completions"] = [(429, {}, {"Retry-After": "1"}), (200, {"ok": 1})]
    since = time.monotonic()
    assert asked(told) == {"ok": 1} and time.monotonic() - since >= 1


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("7", 7.0),
        ("600", client.LONGEST_PAUSE),
        ("Tue, 01 Dec 2026 00:00:09 GMT", 9.0),
        ("Tue, 01 Dec 2026 00:00:09 -0000", 9.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", client.LONGEST_PAUSE),
        ("Mon, 30 Nov 2026 00:00:00 GMT", None),
        ("Tue, 01 Dec 2026 00:00:09 +99999999999999", None),
        ("soon", None),
    ],
)
def test_a_pause_is_asked_for_in_seconds_or_by_the_servers_clock(asked: str, seconds: float | None) -> None:
    answer = httpx.Response(429, headers={"Date": "Tue, 01 Dec 2026 00:00:00 GMT", "Retry-After": asked})
    assert client._asked_to_wait(answer) == seconds


def test_an_address_that_redirects_is_told_with_the_one_to_give(told: Told) -> None:
    told.answers = {
        "/old/v1/models": [(308, {}, {"Location": f"{told.url}/v1/models?from=old"})],
        "/v1/models": [(307, {}, {"Location": "/v1/models/"})],
        "/v1/models/": [(200, {"data": [{"id": "a"}]})],
    }
    with pytest.raises(ConfigError) as moved:
        look(f"{told.url}/old/v1")
    new = f"{told.url}/v1"
    assert str(moved.value).endswith(f"/old/v1' redirects to '{new}'; give that address, if it is your server")
    assert look(new).models == ("a",) and look(new).url == new


def test_a_request_that_is_refused_is_not_sent_again(told: Told) -> None:
    told.answers["/v1/completions"] = [(400, {"error": {"message": "top_k: extra inputs"}})]
    with pytest.raises(Refused, match="400: top_k: extra inputs"):
        asked(told)
    assert told.num_asked == 1


def test_white_space_around_the_key_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(client.KEY, " sk-secret\n")
    assert client.headers() == {"Authorization": "Bearer sk-secret"}
    monkeypatch.setenv(client.KEY, "\n")
    assert client.headers() == {}


@pytest.mark.parametrize("key", ["sk-secret\nsk-secret", "sk-sécret", "sk-secret\x07."])
def test_a_key_that_no_header_holds_is_refused_and_not_shown(
    told: Told, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(client.KEY, key)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY: the key must be printable ASCII") as refused:
        look(told.url)
    assert "sk-" not in str(refused.value) and not told.num_asked


@pytest.mark.parametrize("endpoint", ["http://a..b/v1", f"http://{'a' * 70}/v1", "http://xn--/v1"])
def test_a_name_that_is_no_host_is_one_line(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="--endpoint: "):
        look(endpoint)


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="without a password") as refused:
        look("ftp://user:secret@host")
    assert "secret" not in str(refused.value)


def test_a_page_that_is_away_for_a_moment_does_not_change_the_name(told: Told) -> None:
    told.answers = {
        "/v1/models": [(200, {"data": [{"id": "a", "owned_by": "vllm"}]})],
        "/version": [(503, {}), (200, {"version": "0.32.0"})],
    }
    assert look(told.url).software == "vLLM 0.32.0"
