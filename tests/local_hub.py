"""A dataset hub on this machine: enough of the Hugging Face Hub's protocol to look a set up and to download it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """The files of each set by their paths; sets without access; what was asked."""

    sets: Mapping[str, Mapping[str, bytes]]
    gated: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0].removeprefix("/api").removeprefix("/datasets/")
        owner, name, *rest = path.split("/")
        repository = f"{owner}/{name}"
        files = self.hub.sets.get(repository)
        if files is None:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if repository in self.hub.gated and (rest[:1] in (["resolve"], ["auth-check"])):
            return self._send(403, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
        match rest:
            case ["auth-check"]:
                return self._send(200, {})
            case [] | ["revision", _]:
                siblings = [{"rfilename": file} for file in files]
                return self._send(200, {"_id": "1", "id": repository, "sha": COMMIT, "siblings": siblings})
            case ["tree", _, *folder]:
                return self._send(200, _tree(files, "/".join(folder), "recursive=" in self.path.lower()))
            case ["paths-info", _]:
                wanted = _paths(body, self.headers.get("Content-Type", ""))
                return self._send(200, [_entry(path, files[path]) for path in wanted if path in files])
            case ["resolve", _, *parts] if "/".join(parts) in files:
                content = files["/".join(parts)]
                return self._send(200, content, {"ETag": f'"{_oid(content)}"', "Accept-Ranges": "bytes"})
        return self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})

    def _send(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/octet-stream" if content is data else "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}


def _tree(files: Mapping[str, bytes], folder: str, is_recursive: bool) -> list[dict[str, object]]:
    start = f"{folder}/" if folder else ""
    below = {path: content for path, content in files.items() if path.startswith(start)}
    direct = [_entry(path, content) for path, content in below.items() if is_recursive or "/" not in path[len(start) :]]
    folders = {start + path[len(start) :].partition("/")[0] for path in below if "/" in path[len(start) :]}
    return [*direct, *({"type": "directory", "path": each, "size": 0, "oid": _oid(b"")} for each in sorted(folders))]


def _paths(body: bytes, content_type: str) -> list[str]:
    if "json" in content_type:
        paths = json.loads(body)["paths"]
        return [paths] if isinstance(paths, str) else list(paths)
    from urllib.parse import parse_qs

    return parse_qs(body.decode()).get("paths", [])


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub, answering on a port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
