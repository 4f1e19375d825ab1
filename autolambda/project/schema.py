"""The JSON schema of the config, for editors. ``schema.json`` in the package holds it as a file."""

from __future__ import annotations

import json
from pathlib import Path

from autolambda.config import Config

FILE = Path(__file__).parents[1] / "schema.json"


def schema_json() -> str:
    """Returns the schema of a config file as JSON. A task or ``confirm_on`` may be a text there, too."""
    plain = Config.model_json_schema()
    text = {"type": "string", "description": "a file, a benchmark's name or a hub id"}
    tasks = plain["properties"]["tasks"]
    tasks["items"] = {"anyOf": [tasks["items"], text]}
    plain["$defs"]["TaskConfig"]["properties"]["confirm_on"]["anyOf"].append(text)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "autolambda"}
    shown = json.dumps(head | {key: value for key, value in plain.items() if key != "title"}, indent=2)
    return shown.replace("``", "`") + "\n"
