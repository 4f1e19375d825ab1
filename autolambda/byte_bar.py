"""A bar over the bytes of a checkpoint that is being written, on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


@contextmanager
def writing(console: Console, *, total: int) -> Iterator[Callable[[int], None] | None]:
    """Takes how many of the ``total`` bytes came since the last call, and shows their rate; ``None`` off a terminal."""
    if not console.is_terminal:
        yield None
        return
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(TextColumn("writing"), *columns, console=console, transient=True) as progress:
        task = progress.add_task("writing", total=total)
        yield lambda num_bytes: progress.advance(task, num_bytes)
