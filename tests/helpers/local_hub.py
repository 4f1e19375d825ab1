"""A dataset hub on this machine: enough of the Hugging Face Hub's protocol to look a set up and to download it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from local_server import Handler, served

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """The files of each set by their paths; sets without access; what was asked."""

    sets: Mapping[str, Mapping[str, bytes]]
    gated: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)
    url: str = ""


class _Handler(Handler):
    hub: Hub

    def answer(self, body: bytes) -> None:
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
        self.send(status, content, {"X-Repo-Commit": COMMIT, **(headers or {})})


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


def serving(hub: Hub) -> AbstractContextManager[Hub]:
    """The hub, answering on a port of this machine."""
    return served(hub, _Handler)
