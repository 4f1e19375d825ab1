"""Sources of rows: a file, a folder, or a dataset of the hub.

A folder is written by ``save_to_disk``, or has a file for each split, or is a copy of a hub repository. An error of one
line says what to do, for example for a missing split, a gated set or a hub that cannot be reached.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from autolambda.errors import TaskError, reason
from autolambda.tasks.formats.readers import READERS
from autolambda.tasks.formats.text import form_of
from autolambda.tasks.rows import Row, numbered, read_file

if TYPE_CHECKING:  # slow to import
    import datasets

SECONDS = 10.0  # to wait for the hub before the cache is used instead


def has_splits(path: Path) -> bool:
    """Returns whether a path is a folder that may have several splits. A file or a single saved dataset has none."""
    # isdir is False for a name that is too long for the system
    is_folder = os.path.isdir(path) and form_of(path) not in READERS
    return is_folder and not (path / "state.json").exists()


def read_path(
    path: Path,
    *,
    subset: str | None = None,
    split: str | None = None,
    usual_subset: str | None = None,
    usual_split: str | None = None,
) -> list[Row]:
    """Returns the rows of a file, or of one split of a folder. Raises ``TaskError``.

    ``usual_subset`` and ``usual_split`` are the defaults of ``subset`` and ``split`` in a folder that has them.
    """
    if has_splits(path):
        return _read_folder(path, subset, usual_subset, split or usual_split)
    if subset or split:
        raise TaskError(f"'{path}' has no subsets or splits; leave out {'subset' if subset else 'split'}")
    if os.path.exists(path / "state.json"):
        return _read_folder(path, None, None, None)
    return read_file(path)


def read_hub(
    hub: str, *, subset: str | None = None, split: str | None = None, revision: str | None = None
) -> list[Row]:
    """Returns the rows of a hub dataset's split, from the cache if the hub cannot be reached. Raises ``TaskError``."""
    import datasets

    obstacle = _out_of_reach(hub)
    if obstacle and revision:
        raise TaskError(_offline(hub, f"cannot be reached ({obstacle}), and the cache may hold another revision"))
    with _quiet(offline=bool(obstacle)):
        try:
            loaded = datasets.load_dataset(hub, subset, split=split, revision=revision)
        except Exception as error:  # datasets, pyarrow, httpx, fsspec and the hub's client share no base class
            raise TaskError(_hub_problem(hub, error, obstacle)) from error
    return _rows_of(loaded, hub, split)


def _read_folder(folder: Path, subset: str | None, usual_subset: str | None, split: str | None) -> list[Row]:
    import datasets

    described = (folder / "README.md").exists()  # a copy of a hub repository, which describes its subsets
    below = subset or usual_subset
    if below and not described and (folder / below).is_dir():
        folder, subset, usual_subset = folder / below, None, None
    try:
        if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
            return _rows_of(datasets.load_from_disk(folder), str(folder), split)
        if not described and not subset and (file := _split_file(folder, split)):
            return read_file(file)
        with _quiet(offline=False):  # a folder needs no hub
            if usual_subset and not subset and usual_subset in datasets.get_dataset_config_names(str(folder)):
                subset = usual_subset
            loaded = datasets.load_dataset(str(folder), subset, split=split)
    except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
        raise TaskError(f"task folder '{folder}': {_lower(reason(error))}") from error
    return _rows_of(loaded, str(folder), split)


def _split_file(folder: Path, split: str | None) -> Path | None:
    """Returns the file of a split. Raises ``TaskError`` if the folder has files for other splits only."""
    files = {file.name.partition(".")[0]: file for file in sorted(folder.iterdir()) if form_of(file) in READERS}
    if split is None and len(files) == 1:
        return next(iter(files.values()))
    if split is not None and split in files:
        return files[split]
    if files and not any("-of-" in stem for stem in files):
        raise TaskError(_no_split(str(folder), split, list(files)))
    return None


def _rows_of(loaded: datasets.Dataset | datasets.DatasetDict, source: str, split: str | None) -> list[Row]:
    """Returns the rows of a dataset, or of the split that is asked for."""
    import datasets

    if isinstance(loaded, datasets.Dataset):
        return numbered(loaded.to_list(), source)
    if split is None and len(loaded) == 1:
        split = next(iter(loaded))
    if split is None or split not in loaded:
        raise TaskError(_no_split(source, split, [str(name) for name in loaded]))
    return numbered(loaded[split].to_list(), f"{source} ({split})")


def _no_split(source: str, split: str | None, splits: list[str]) -> str:
    known = ", ".join(map(repr, splits))
    if split is None:
        return f"'{source}' has several splits, {known}; say which with split"
    return f"'{source}' has no split {split!r}; it has {known}"


def _out_of_reach(hub: str) -> str | None:
    """Returns why the hub cannot be reached; ``None`` if it can. Raises ``TaskError`` for a gated set without access.

    It sends one short request, because downloads retry for minutes.
    """
    from huggingface_hub import constants, get_session, hf_raise_for_status
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, but loaded lazily

    url = f"{constants.ENDPOINT}/api/datasets/{quote(hub)}/auth-check"
    try:
        hf_raise_for_status(get_session().get(url, headers=build_hf_headers(), timeout=SECONDS))
    except GatedRepoError as error:
        raise TaskError(_gated(hub)) from error
    except HfHubHTTPError:
        return None  # an unknown set, or a mirror without this request: loading tells which
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set"
    except Exception as error:  # the client's versions use different HTTP libraries
        return f"{type(error).__name__} from {constants.ENDPOINT}"
    return None


def _hub_problem(hub: str, error: Exception, obstacle: str | None) -> str:
    """Returns what went wrong with a hub dataset and what to do, in one line."""
    said = reason(error)
    if isinstance(error, ConnectionError) or obstacle:
        return _offline(hub, f"cannot be reached ({obstacle or said}) and is not in the cache")
    if "gated" in said:
        return _gated(hub)
    return f"hub dataset '{hub}': {_lower(said)}"


def _gated(hub: str) -> str:
    return (
        f"hub dataset '{hub}' is gated: ask for access at https://huggingface.co/datasets/{hub} and log in with "
        f"'hf auth login', or give a copy of it with path"
    )


def _offline(hub: str, problem: str) -> str:
    return (
        f"hub dataset '{hub}' {problem}; on a machine with a network run: "
        f"hf download --repo-type dataset {hub} --local-dir DIR; then set path to DIR"
    )


def _lower(text: str) -> str:
    """Returns an error's text without its initial capital, but keeps the capitals of a class name."""
    return text[:1].lower() + text[1:] if text.partition(" ")[0].istitle() else text


@contextmanager
def _quiet(*, offline: bool) -> Iterator[None]:
    """Loads without progress bars, which would break the display; ``offline`` uses the cache at once."""
    import datasets

    config: Any = datasets.config
    was_offline, had_bars = config.HF_HUB_OFFLINE, not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    config.HF_HUB_OFFLINE = offline or was_offline
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = was_offline
        if had_bars:
            datasets.enable_progress_bars()
