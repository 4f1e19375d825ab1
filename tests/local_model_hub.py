"""A model hub on this machine: enough of the Hugging Face Hub's protocol to create a repository and to upload to it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OWNER = "me"


@dataclass
class ModelHub:
    """What was created and uploaded, by repository; the tokens that were sent; whether it refuses."""

    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    refuses: bool = False
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    hub: ModelHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        assert hashlib.sha256(body).hexdigest() == self.path.rpartition("/")[2]
        self.hub.objects[self.path.rpartition("/")[2]] = body
        self._send(200, {}, ETag='"x"')

    def _answer(self, body: bytes) -> None:
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        path = self.path.partition("?")[0]
        if self.hub.refuses:
            return self._send(403, {"error": "You do not have the rights to do this"})
        match path.strip("/").split("/"):
            case ["api", "whoami-v2"]:
                return self._send(200, {"name": OWNER, "type": "user", "orgs": []})
            case ["api", "repos", "create"]:
                return self._create(json.loads(body))
            case ["api", "models", owner, name, "preupload", _]:
                asked = json.loads(body)["files"]
                modes = [{"path": each["path"], "uploadMode": _mode(each["path"])} for each in asked]
                return self._send(200, {"files": [each | {"shouldIgnore": False, "oid": None} for each in modes]})
            case [owner, name, "info", "lfs", "objects", "batch"]:
                return self._send(200, self._batch(json.loads(body)))
            case ["api", "models", owner, name, "commit", _]:
                return self._commit(f"{owner}/{name}", body)
            case ["api", "models", owner, name, *_]:
                return self._send(200, {"id": f"{owner}/{name}", "_id": "1", "sha": "0" * 40, "siblings": []})
            case ["api", "validate-yaml"]:
                return self._send(200, {"errors": [], "warnings": []})
        return self._send(404, {"error": f"no {path}"})

    def _create(self, asked: dict[str, object]) -> None:
        name = f"{asked.get('organization') or OWNER}/{asked['name']}"
        if name in self.hub.private:
            return self._send(409, {"error": "exists already", "url": f"{self.hub.url}/{name}"})
        self.hub.private[name] = asked.get("visibility") == "private" or asked.get("private") is True
        return self._send(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def _batch(self, asked: dict[str, list[dict[str, object]]]) -> dict[str, object]:
        actions = [
            each | {"authenticated": True, "actions": {"upload": {"href": f"{self.hub.url}/objects/{each['oid']}"}}}
            for each in asked["objects"]
        ]
        return {"transfer": "basic", "objects": actions}

    def _commit(self, repository: str, body: bytes) -> None:
        files = self.hub.files.setdefault(repository, {})
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        oid = hashlib.sha1(body).hexdigest()
        return self._send(
            200, {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{repository}/commit/{oid}"}
        )

    def _send(self, status: int, content: object, **headers: str) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"


@contextlib.contextmanager
def serving(hub: ModelHub) -> Iterator[ModelHub]:
    """The hub, answering on a port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
