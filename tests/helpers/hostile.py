"""A search whose prompts and responses try to break out of whatever shows them, for every test of a way out."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path

from shared import made_once, shared_folder

from autolambda.config_file import load_config
from autolambda.driver.search import search
from autolambda.engines.base import Fingerprint, Prompt, Sampling, Watch
from autolambda.merging.method import Method
from autolambda.report.report import Report
from autolambda.responses import Response

NAME = "hostile"
TASK = "<img src=x onerror='window.hacked=1'>"  # a file's name
TEXTS = (
    "<script>window.hacked=1</script>",
    "</script><script>window.hacked=1</script>",
    "<!--<script>",
    "<img src=x onerror=window.hacked=1><svg onload=window.hacked=1>",
    "\x1b[2J\x1b]0;title\x07\x9b31m bell \x07",
    "half a pair \ud83d and \udfff",
    "turned \u202e around, nul \x00, line \u2028 end",
    "{{ 7 * 191 }} {% raw %} ${7 * 191} %s {0}",
    '"}],"hacked":[{"',
    "&lt;script&gt; &amp;amp; &#60;b&#62;",
    "<a href=javascript:window.hacked=1>click</a> https://example.com/beacon.png",
)


class HostileEngine:
    """Answers with hostile text, more and with more thinking at a higher lambda."""

    streams = False
    in_words = "a hostile engine"

    def set_merge(self, method: Method) -> None:
        assert method.schedule is not None
        self._lam = method.schedule.other

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, *, watch: Watch | None = None) -> list[Response]:
        return [self._response(prompt.seed) for prompt in prompts]

    def _response(self, seed: int) -> Response:
        text = TEXTS[seed % len(TEXTS)]
        if seed % 100 < 100 * self._lam:
            return Response(f"{text} thinking </think>{text} 7", 40 + seed % 40, "stop")
        return Response(f"{text} {seed % 3 + 5}", 5 + seed % 4, "stop")

    def fingerprint(self) -> Fingerprint:
        return Fingerprint("", whole=False)

    def close(self) -> None:
        """Holds nothing."""


def hostile_storage() -> str:
    """The URL of the study's database, once ``hostile()`` was called."""
    return f"sqlite:///{shared_folder()}/hostile/study.db"


@functools.cache
def hostile() -> Report:
    """The report of the search, which is at ``hostile_storage()``."""
    report: Report = made_once("hostile", _search)
    return report


def _search(folder: Path) -> Report:
    file = folder / f"{TASK}.jsonl"
    texts = [text for text in TEXTS if not any("\ud800" <= character <= "\udfff" for character in text)]
    rows = [
        {
            "id": f"{i}-{texts[i % len(texts)]}".replace("\0", ""),
            "question": f"{texts[i % len(texts)]} {i}",
            "answer": "7",
        }
        for i in range(64)
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    overrides: dict[str, object] = {
        "tasks": [{"path": str(file)}],
        "search.trials": 5,
        "search.ladder": 5,
        "sampling.max_tokens": 32,
        "budget": 40.0,
    }
    return search(
        load_config(None, overrides=overrides),
        name=NAME,
        storage=f"sqlite:///{folder}/study.db",
        engine=HostileEngine(),
    )
