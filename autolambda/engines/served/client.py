"""An OpenAI-compatible server over HTTP: what it is, which models it serves, and requests with retries.

The API key comes from the environment and is neither stored nor shown.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from autolambda.errors import ConfigError, EngineError, in_short, one_line

KEY = "OPENAI_API_KEY"
CONNECT_SECONDS = 10.0
ATTEMPTS = 5  # of a request; the pauses between them double
BUSY_ATTEMPTS = 8  # if the server says that it is busy: about a minute
FIRST_PAUSE = 0.5  # seconds
LONGEST_PAUSE = 60.0  # seconds, if the server asks for a pause
_BUSY = frozenset({429, 503, 529})
_AWAY = _BUSY | {408, 409, 425, 500, 502, 504}


class Refused(Exception):
    """The server refuses a request: its status and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


@dataclass(frozen=True)
class Server:
    """A server at ``url`` (``.../v1``): its software, and the names of its models; ``None`` if it lists none."""

    url: str
    software: str
    models: tuple[str, ...] | None

    def model(self, name: str | None, *, option: str = "--model") -> str:
        """Returns the name of a model that is served, by default of the only one. Raises ``ConfigError``."""
        listed = ", ".join(map(in_short, self.models or ()))
        if name is None and self.models and len(self.models) == 1:
            return self.models[0]
        if name is None:
            raise ConfigError(f"{option}: name the model; {f'served: {listed}' if listed else 'the server lists none'}")
        if self.models is not None and name not in self.models:
            raise ConfigError(f"{option}: {in_short(name)} is not served there; served: {listed or 'nothing'}")
        return name


def look(endpoint: str) -> Server:
    """Returns what serves at an endpoint.

    Raises ``ConfigError`` if nothing does, if it redirects to another address, or if it wants another key.
    """
    url = _base(endpoint)
    try:
        with httpx.Client(timeout=CONNECT_SECONDS, headers=headers(), follow_redirects=True) as http:
            answer = http.get(f"{url}/models")
            _check_not_moved(answer, url)
            _check_key(answer, url)
            listed = _object(answer).get("data") if answer.is_success else None
            software = _software(http, url, answer, listed)
    except (httpx.HTTPError, UnicodeError) as error:  # UnicodeError: a name that is no host
        why = one_line(error) or type(error).__name__
        said = f"--endpoint: no server answers at '{url}' ({why}); start it, or correct the address"
        raise ConfigError(said) from error
    models = None
    if isinstance(listed, list):
        models = tuple(str(each["id"]) for each in listed if isinstance(each, dict) and "id" in each)
    return Server(url, software, models)


def headers() -> dict[str, str]:
    """Returns the headers of every request, with the key of the environment, if there is one.

    Raises ``ConfigError`` for a key that no header can hold; it is not shown.
    """
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{KEY}: the key must be printable ASCII on one line; its value is not shown")
    return {"Authorization": f"Bearer {key}"} if key else {}


async def post(
    http: httpx.AsyncClient, url: str, body: Mapping[str, Any], *, timeout: float | None = None
) -> dict[str, Any]:
    """Returns the server's answer, within ``timeout`` seconds if they are given. Tries again if it is busy or away.

    Raises ``Refused`` for a request that it does not take, ``ConfigError`` for a refused key, and ``EngineError`` if it
    stays busy or away, or does not answer in time.
    """
    times = httpx.USE_CLIENT_DEFAULT if timeout is None else httpx.Timeout(timeout, connect=CONNECT_SECONDS, pool=None)
    attempt = 0
    while True:
        attempt, wait, most = attempt + 1, FIRST_PAUSE * 2**attempt, ATTEMPTS
        try:
            answer = await http.post(url, json=body, timeout=times)
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            raise EngineError(
                f"the server at '{url}' takes too long for a response; every stored response is kept: run the same "
                "command again with fewer requests at a time (--concurrency) or a longer --timeout"
            ) from error
        except httpx.HTTPError as error:
            problem = one_line(error) or type(error).__name__
        else:
            if answer.is_success:
                return _object(answer)
            _check_key(answer, url)
            if answer.status_code not in _AWAY:
                raise Refused(answer.status_code, _message(answer))
            problem = f"{answer.status_code}: {_message(answer)}"
            if answer.status_code in _BUSY:
                wait, most = _asked_to_wait(answer) or wait, BUSY_ATTEMPTS
        if attempt >= most:
            raise EngineError(
                f"the server at '{url}' does not answer any more ({problem}); every stored response is kept, so start "
                "it and run the same command again"
            )
        await asyncio.sleep(wait)


def _asked_to_wait(answer: httpx.Response) -> float | None:
    """Returns the seconds that a busy server asks for, at most ``LONGEST_PAUSE``; ``None`` if it asks for none.

    It gives a number of seconds or a date, which is compared with the date of its own answer.
    """
    asked = answer.headers.get("retry-after", "")
    if asked.isascii() and asked.isdecimal():
        return min(float(asked), LONGEST_PAUSE)
    until, now = _date_in(asked), _date_in(answer.headers.get("date", "")) or datetime.now(UTC)
    seconds = (until - now).total_seconds() if until else 0.0
    return min(seconds, LONGEST_PAUSE) if seconds > 0 else None


def _date_in(header: str) -> datetime | None:
    """Returns the date of an HTTP header, in UTC if it names no zone; ``None`` if it holds none."""
    try:
        found = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _base(endpoint: str) -> str:
    """Returns the address with ``/v1``, without a trailing slash. Raises ``ConfigError`` unless it is one."""
    wanted = f"--endpoint: an address such as http://localhost:8000/v1, seen {in_short(endpoint)}"
    try:
        url = httpx.URL(endpoint if "://" in endpoint else f"http://{endpoint}")
        if url.userinfo or url.query:
            raise ConfigError(f"--endpoint: an address without a password and without a query; set {KEY} for a key")
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(wanted)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ConfigError(wanted) from error
    path = url.path.rstrip("/")
    return str(url.copy_with(path=path or "/v1")).rstrip("/")


def _software(http: httpx.Client, url: str, listing: httpx.Response, listed: object) -> str:
    """Returns the name and the version of the server's software, as far as it tells."""
    root = url.removesuffix("/v1")
    version = _optional(http, f"{root}/version").get("version")
    build = _optional(http, f"{root}/props").get("build_info")
    rows = listed if isinstance(listed, list) else []
    owners = [str(each.get("owned_by", "")) for each in rows if isinstance(each, dict)]
    name = {"vllm": "vLLM", "llamacpp": "llama.cpp"}.get(owners[0], owners[0]) if owners else ""
    if build is not None:
        name = "llama.cpp"
    told = name or one_line(listing.headers.get("server", ""), limit=60) or "unknown software"
    return " ".join(one_line(str(each), limit=60) for each in (told, build or version) if each)


def _optional(http: httpx.Client, url: str) -> dict[str, Any]:
    """Returns what a page says that not every server has; tries twice, because it is part of the server's name."""
    for _ in range(2):
        try:
            answer = http.get(url)
        except httpx.HTTPError:
            continue
        if answer.status_code not in _AWAY:
            return _object(answer) if answer.is_success else {}
    return {}


def _object(answer: httpx.Response) -> dict[str, Any]:
    """Returns a JSON object; an empty one for anything else."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _check_not_moved(answer: httpx.Response, url: str) -> None:
    """Raises ``ConfigError`` if the list of models came from another address, which requests with a body do not reach.

    A redirect to the same address, such as one that adds a slash, is followed.
    """
    found = str(answer.url.copy_with(username=None, password=None, query=None, fragment=None))
    if (found := found.rstrip("/").removesuffix("/models")) != url:
        raise ConfigError(f"--endpoint: '{url}' redirects to '{found}'; give that address, if it is your server")


def _check_key(answer: httpx.Response, url: str) -> None:
    if answer.status_code in (401, 403):
        does = "refuses the API key in" if headers() else "wants an API key; set"
        raise ConfigError(f"--endpoint: the server at '{url}' {does} {KEY} ({answer.status_code})")


def _message(answer: httpx.Response) -> str:
    """Returns the server's message of an error, as one line."""
    error = _object(answer).get("error", _object(answer))
    told = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return one_line(told or answer.text or answer.reason_phrase, limit=300)
