"""A model hub on this machine: enough of the Hugging Face Hub's protocol to create a repository and to upload to it."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from local_server import Handler, served

OWNER = "me"


@dataclass
class ModelHub:
    """What was created and uploaded, by repository; the tokens that were sent; the status to refuse all with."""

    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    refuses: int = 0
    url: str = ""


class _Handler(Handler):
    hub: ModelHub

    def answer(self, body: bytes) -> None:
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        path = self.path.partition("?")[0]
        if self.hub.refuses:
            return self.send(self.hub.refuses, {"error": "You do not have the rights to do this"})
        match path.strip("/").split("/"):
            case ["api", "whoami-v2"]:
                return self.send(200, {"name": OWNER, "type": "user", "orgs": []})
            case ["api", "repos", "create"]:
                return self._create(json.loads(body))
            case ["api", "models", owner, name, "preupload", _]:
                asked = json.loads(body)["files"]
                modes = [{"path": each["path"], "uploadMode": _mode(each["path"])} for each in asked]
                return self.send(200, {"files": [each | {"shouldIgnore": False, "oid": None} for each in modes]})
            case [owner, name, "info", "lfs", "objects", "batch"]:
                return self.send(200, self._batch(json.loads(body)))
            case ["api", "models", owner, name, "commit", _]:
                return self._commit(f"{owner}/{name}", body)
            case ["api", "models", owner, name, *_]:
                return self.send(200, {"id": f"{owner}/{name}", "_id": "1", "sha": "0" * 40, "siblings": []})
            case ["objects", oid] if self.command == "PUT":
                assert hashlib.sha256(body).hexdigest() == oid
                self.hub.objects[oid] = body
                return self.send(200, {}, {"ETag": '"x"'})
            case ["api", "validate-yaml"]:
                return self.send(200, {"errors": [], "warnings": []})
        return self.send(404, {"error": f"no {path}"})

    def _create(self, asked: dict[str, object]) -> None:
        name = f"{asked.get('organization') or OWNER}/{asked['name']}"
        if name in self.hub.private:
            return self.send(409, {"error": "exists already", "url": f"{self.hub.url}/{name}"})
        self.hub.private[name] = asked.get("visibility") == "private" or asked.get("private") is True
        return self.send(200, {"url": f"{self.hub.url}/{name}", "name": name})

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
        return self.send(
            200, {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{repository}/commit/{oid}"}
        )


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"


def serving(hub: ModelHub) -> AbstractContextManager[ModelHub]:
    """The hub, answering on a port of this machine."""
    return served(hub, _Handler)


def settings(hub: ModelHub, home: Path, token: str) -> dict[str, str]:
    """The environment in which huggingface_hub uploads to the hub."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": token,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
