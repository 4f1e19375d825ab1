"""A task's section of the configuration: the source of its prompts, and how they are used.

Every combination of keys without a meaning is refused, so that no key is silently ignored.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from autolambda.config_base import Name, Positive, Repeats, Strict
from autolambda.graders.grading import GRADERS, is_custom
from autolambda.tasks.base import Benchmark
from autolambda.tasks.benchmarks import BENCHMARKS
from autolambda.tasks.formats.readers import READERS
from autolambda.tasks.formats.text import form_of
from autolambda.tasks.patterns.prompt import names_of

BUNDLED_TASK = "arithmetic"
TASK_NAMES = (BUNDLED_TASK, *BENCHMARKS)
LONGEST_LABEL = 128  # characters, the width of the database's column
MAX_UNUSABLE = 0.05  # share of a source's rows that is left out with a note

_COLUMNS = frozenset({"question", "answer", "choices", "messages", "prompt", "id", "difficulty"})
_SOURCE_KEYS = _COLUMNS | {
    "max_unusable",
    "path",
    "include_path",
    "num_fewshot",
    "subset",
    "split",
    "revision",
    "grader",
}


_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = frozenset({*READERS, ".txt", ".xlsx", ".xls", ".zip", ".arrow", ".yaml", ".yml"})


def benchmark_of(hub: str) -> str | None:
    """Returns the name of the benchmark with this hub id, in any letter case; ``None`` for any other set."""
    return next((each.name for each in BENCHMARKS.values() if each.hub.casefold() == hub.casefold()), None)


def source_in_short(text: str) -> dict[str, str]:
    """Returns the keys of a source that is given as one text: a path, a hub id (``owner/name``), or a name."""
    if os.path.exists(text):
        return {"path": text}
    if (name := benchmark_of(text)) is not None:
        return {"name": name}
    is_file = form_of(Path(text)) in _FILES or os.path.isdir(text.partition("/")[0])
    if _HUB_ID.fullmatch(text) and not text.startswith(".") and not is_file:
        return {"hub": text}
    return {"path": text} if any(mark in text for mark in ("/", os.sep, ".")) else {"name": text}


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


class SourceConfig(Strict):
    """The source of prompts: a benchmark by ``name``, a file or folder by ``path``, a ``hub`` dataset, or a task of
    lm-evaluation-harness by ``lm_eval``. ``name`` and ``path`` together are a local copy of a benchmark.

    ``question``, ``answer``, ``choices``, ``messages``, ``id`` and ``difficulty`` name columns. A benchmark does not
    take them. ``max_unusable`` is the share of the rows (of 1) that may be left out because they cannot be used, by
    default 0.05.
    """

    name: Name | None = None
    path: Name | None = None
    hub: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")] | None = None
    lm_eval: Name | None = None
    include_path: Name | None = None
    num_fewshot: Annotated[int, Field(ge=0, le=10_000)] | None = None
    subset: Name | None = None
    split: Name | None = None
    revision: Name | None = None
    question: Name = "question"
    answer: Name = "answer"
    choices: Name | None = None
    messages: Name | None = None
    prompt: Name | None = None
    grader: Name | None = None
    id: Name | None = None
    difficulty: Name | None = None
    max_unusable: Annotated[float, Field(ge=0, lt=1)] | None = None

    @property
    def benchmark(self) -> Benchmark | None:
        """The benchmark of ``name``; ``None`` for any other source, such as the bundled task."""
        return BENCHMARKS.get(self.name or "")

    @property
    def own_repeats(self) -> int:
        """The benchmark's responses per prompt, 1 for any other source."""
        return self.benchmark.repeats if self.benchmark else 1

    @property
    def unusable_share(self) -> float:
        """The share of the rows (of 1) that may be left out because they cannot be used."""
        return MAX_UNUSABLE if self.max_unusable is None else self.max_unusable

    @property
    def grader_name(self) -> str:
        """The grader of the config, else the source's default."""
        default = "lm_eval" if self.lm_eval else "choice" if self.choices else "number"
        return self.grader or (self.benchmark.grader if self.benchmark else default)

    @property
    def source_name(self) -> str:
        """The name in reports: the benchmark's, the task's, or the file's without its ending."""
        return self.name or (Path(self.path).stem if self.path else (self.hub or self.lm_eval or "").rpartition("/")[2])

    @field_validator("name")
    @classmethod
    def _known_name(cls, name: str | None) -> str | None:
        if name is None or name in TASK_NAMES:
            return name
        if (known := benchmark_of(name)) is not None:
            return known
        plain = {_letters(each): each for each in TASK_NAMES}
        nearest = [plain[each] for each in difflib.get_close_matches(_letters(name), plain, n=1)]
        nearest = [f"hub: {name[:60]}"] if _HUB_ID.fullmatch(name) else [repr(each) for each in nearest]
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise ValueError(f"unknown task {name[:60]!r}; {hint}known: {', '.join(TASK_NAMES)}; or give a path or hub")

    @field_validator("grader")
    @classmethod
    def _known_grader(cls, grader: str | None) -> str | None:
        if grader is not None and grader not in GRADERS and not is_custom(grader):
            nearest = difflib.get_close_matches(grader, GRADERS, n=1)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            known = f"known: {', '.join(GRADERS)}; your own: package.module:function"
            raise ValueError(f"unknown grader {grader[:60]!r}; {hint}{known}")
        return grader

    @model_validator(mode="after")
    def _one_source(self) -> SourceConfig:
        given = [key for key in ("name", "path", "hub", "lm_eval") if getattr(self, key) is not None]
        if given not in (["name"], ["path"], ["hub"], ["lm_eval"], ["name", "path"]):
            problem = f"seen {', '.join(given)}" if given else "seen none"
            raise ValueError(f"give either name or path, or else hub or lm_eval ({problem})")
        refused = [key for key in _SOURCE_KEYS - _taken(self) if getattr(self, key) != _default(SourceConfig, key)]
        if refused:
            raise ValueError(f"{', '.join(sorted(refused))}: not for a task by {_kind(self)}; leave it out")
        if self.messages and (self.choices or self.prompt):
            raise ValueError("messages are a whole prompt; leave out choices and prompt")
        named = names_of(self.prompt or "")
        for part in ["question", *(["choices"] if self.choices else [])] if self.prompt else []:
            if part not in named and not (part == "question" and self.question in named):
                raise ValueError(f"prompt must contain {{{part}}}, seen {str(self.prompt)[:60]!r}")
        return self


class GuardConfig(Strict):
    """A guard: a task that may lose at most ``max_drop`` accuracy (share of 1) against the better parent."""

    max_drop: Annotated[float, Field(ge=0, lt=1)] = 0.02


class TaskConfig(SourceConfig):
    """One task: the prompts to search on and, optionally, other prompts to confirm on.

    ``limit`` caps the prompts of the search slice. ``repeats`` defaults to the benchmark's; if that is 1, to as many as
    give a small search slice 256 responses, at most 8. The confirmation uses ``confirm_split`` of the source, or
    ``confirm_on``, another source (a name, a path, or keys). Without either it uses the benchmark's confirm split, else
    a share of the rows.
    """

    label: Annotated[str, Field(max_length=LONGEST_LABEL)] = ""
    limit: Positive | None = 1024
    repeats: Repeats | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0
    guard: GuardConfig | None = None
    on_grader_error: Literal["stop", "unparsed"] = "stop"
    confirm_split: Name | None = None
    confirm_on: SourceConfig | None = None

    @field_validator("confirm_on", mode="before")
    @classmethod
    def _source_in_short(cls, value: object) -> object:
        if isinstance(value, str):
            return {"name": value} if value in TASK_NAMES else source_in_short(value)
        return value

    @model_validator(mode="after")
    def _one_confirmation(self) -> TaskConfig:
        if self.guard is not None and self.weight != _default(TaskConfig, "weight"):
            raise ValueError("a guard weighs nothing in the average; leave out weight")
        if self.confirm_on is not None and self.confirm_split is not None:
            raise ValueError("give either confirm_split or confirm_on")
        if (self.lm_eval or self.name == BUNDLED_TASK) and self.confirm_split is not None:
            raise ValueError(f"confirm_split: not for a task by {_kind(self)}; leave it out")
        if BUNDLED_TASK in (self.name, self.confirm_on and self.confirm_on.name) and self.confirm_on is not None:
            raise ValueError(f"{BUNDLED_TASK!r} has a confirmation slice of its own; leave out confirm_on")
        if not self.label:  # stored with the config, since responses are stored under this name
            names = [self.source_name, *([self.confirm_on.source_name] if self.confirm_on else [])]
            object.__setattr__(self, "label", "/".join(names)[:LONGEST_LABEL])
        return self

    def test_set_notes(self) -> list[str]:
        """Returns a warning if the search uses a test set, on which models are compared."""
        benchmark = self.benchmark
        if benchmark is None or self.subset not in (None, benchmark.subset):
            return []
        if (self.split or benchmark.split) not in benchmark.test_splits:
            return []
        elsewhere = self.confirm_on.source_name if self.confirm_on else benchmark.name
        advice = benchmark.instead if elsewhere == benchmark.name else f"report the confirmation, on {elsewhere}"
        lost = "the pick's score on those prompts is no fair test any more"
        return [f"searching on {benchmark.name}, a test set: {lost}; {advice}"]


def _default(model: type[BaseModel], key: str) -> object:
    return model.model_fields[key].default


def _kind(source: SourceConfig) -> str:
    """Returns how a source is given, for messages."""
    if source.name is not None:
        return f"name {source.name!r}" + (" and path" if source.path else "")
    return "path" if source.path else "hub" if source.hub else "lm_eval"


def _taken(source: SourceConfig) -> frozenset[str]:
    """Returns the keys that a kind of source accepts."""
    if source.lm_eval:
        return frozenset({"include_path", "num_fewshot"})
    if source.name == BUNDLED_TASK:
        return frozenset({"grader"})
    keys = {"path", "subset", "split", "grader", "max_unusable"} | (set() if source.path else {"revision"})
    return frozenset(keys if source.name else keys | _COLUMNS)
