"""A server on this machine that answers in JSON, for the hubs that tests talk to."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, TypeVar


class Hub(Protocol):
    """What is served; its address is told to it."""

    url: str


H = TypeVar("H", bound=Hub)


class Handler(BaseHTTPRequestHandler):
    """``answer`` is a subclass's own; ``hub`` is what is served."""

    hub: Any
    protocol_version = "HTTP/1.1"

    def answer(self, body: bytes) -> None:
        """Answers any method by one ``send``."""
        raise NotImplementedError

    def _read_and_answer(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    do_HEAD = do_GET = do_POST = do_PUT = _read_and_answer

    def send(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
        """Bytes as they are, anything else as JSON."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = "application/octet-stream" if content is data else "application/json"
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), "Content-Type": kind, **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def served(hub: H, handler: type[Handler]) -> Iterator[H]:
    """The hub, answering on a port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
