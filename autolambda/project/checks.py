"""What can be refused before anything slow is imported: no models, a missing file or folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from autolambda.bundled import LONGEST_MEAN
from autolambda.config import Config
from autolambda.errors import CheckpointError, InputError, NoModelsError, TaskError
from autolambda.tasks.config import BUNDLED_TASK, source_in_short

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
SECONDS = 10.0  # to wait for the hub


def check_inputs(config: Config, files: Sequence[str] = ()) -> None:
    """Raises the first of ``input_problems``, also for further task ``files`` that look like paths."""
    for text in files:
        path = source_in_short(os.path.expanduser(text)).get("path")
        if path is not None and not os.path.exists(path):
            raise TaskError(f"task file '{text}' does not exist")
    for problem in input_problems(config):
        raise problem


def input_problems(config: Config) -> Iterator[InputError]:
    """Yields an error for each task file and model folder that is missing. Hub ids are not looked up."""
    for task in config.tasks:
        for source in filter(None, (task, task.confirm_on)):
            if source.path is not None and not os.path.exists(source.path):
                yield TaskError(f"task file '{source.path}' does not exist")
    for name in ("instruct", "thinking", "base", "third"):
        source_ = getattr(config.models, name)
        if source_ is not None and (problem := _model_problem(source_)):
            yield CheckpointError(problem)


def _model_problem(source: str) -> str | None:
    """Returns why a model cannot be opened, as far as its folder or the hub tells at once."""
    if os.path.exists(source):
        return None  # its opening names what is missing in it
    if not _HUB_ID.fullmatch(source) or ".." in source:
        return f"no folder '{source}'; give an existing folder or a hub id such as Qwen/Qwen3-4B"
    return _hub_problem(source)


def _hub_problem(source: str) -> str | None:
    """Returns why a model that is not in the cache cannot come from the hub; ``None`` if it can, or may."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if (Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}").is_dir():
        return None
    get_it = f"on a machine with a network run: hf download {source} --local-dir DIR; then give DIR"
    try:
        HfApi().model_info(source, timeout=SECONDS)
    except GatedRepoError:
        return f"'{source}' is gated: ask for access at {constants.ENDPOINT}/{source}, then log in with 'hf auth login'"
    except RepositoryNotFoundError:
        return f"no folder '{source}', and no such model on the hub (or a private one: 'hf auth login'); check the name"
    except HfHubHTTPError:
        return None  # a mirror without this request: the download tells
    except Exception as error:  # the client's versions use different HTTP libraries
        is_off = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"no connection: {type(error).__name__}"
        return f"no folder '{source}' here, and the hub cannot be reached ({is_off}); {get_it}"
    return None


def check_models_are_meant(config: Config, *, is_search: bool = False) -> None:
    """Raises ``NoModelsError`` where the bundled pair would be used, and the user's own models are meant.

    The bundled pair is a demo. It is meant only with its own task. A search must also have a budget that is a limit.
    """
    if not config.models.bundled:
        return
    own = [task.label for task in config.tasks if task.name != BUNDLED_TASK]
    if own:
        raise NoModelsError(how_to_begin(config, f"no models given for the task {own[0]!r}"))
    if not is_search:
        return
    if config.budget is None:
        raise NoModelsError(how_to_begin(config, "no models given"))
    if config.budget >= LONGEST_MEAN:
        why = f"no models given; the demo pair takes budgets below {LONGEST_MEAN:g} tokens, seen {config.budget:,g}"
        raise NoModelsError(how_to_begin(config, why))


def how_to_begin(config: Config, why: str) -> str:
    """Returns why a search does not start, and three lines that each lead to one."""
    paths = [task.path for task in config.tasks if task.path]
    task = os.path.relpath(paths[0]) if paths else "my.jsonl"
    budget = f"{config.budget:g}" if config.budget is not None else "4000"
    return "\n".join(
        [
            why,
            f"  begin:   autolambda init INSTRUCT THINKING --task {task}",
            f"  or once: autolambda search INSTRUCT THINKING --task {task} --budget {budget}",
            "  a demo:  autolambda demo",
        ]
    )
