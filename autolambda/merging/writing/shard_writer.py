"""Writes safetensors files that are laid out in advance and filled in any order, by any thread.

The tensors' descriptions give all sizes, so every file gets its final name and its space at the start. A disk that is
too small therefore fails before anything is computed. Written bytes are sent to the disk during the work, so that
little is left to sync at the end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from types import TracebackType

from torch import Tensor

from autolambda.merging.shards import DTYPES, TensorInfo, bytes_of
from autolambda.merging.writing.atomic_folder import output_errors

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_FLUSH_EVERY = 128 * 10**6  # bytes written, after which a file is sent to the disk
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class ShardWriter:
    """A context manager that writes shards into an existing ``folder``; at its end the files are synced to the disk.

    A shard holds at most ``max_shard_size`` bytes of tensors; a larger tensor gets its own shard. ``tensors`` fill the
    shards in their order. Several shards get an index. Raises ``OutputError`` when the disk refuses.
    """

    def __init__(self, folder: Path, tensors: Mapping[str, TensorInfo], *, max_shard_size: int) -> None:
        self._folder = folder
        self._files: dict[str, int] = {}
        self._flusher = ThreadPoolExecutor(1, "flusher")
        self._flushes: list[tuple[str, Future[None]]] = []
        self._num_waiting, self._lock = 0, Lock()  # bytes written since the last flush
        groups = list(_grouped(tensors, max_shard_size))
        self._infos: dict[str, TensorInfo] = {}
        try:
            for number, names in enumerate(groups, start=1):
                file = SINGLE if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
                self._create(file, {name: tensors[name] for name in names})
            if len(groups) > 1:
                self._write_index()
        except BaseException:
            self._close()
            raise

    def write(self, name: str, begin: int, piece: Tensor) -> None:
        """Writes a contiguous piece of a tensor, from byte ``begin`` of the tensor on."""
        info, data = self._infos[name], bytes_of(piece)
        with output_errors(self._folder / info.file):
            done = 0
            while done < len(data):
                done += os.pwrite(self._files[info.file], data[done:], info.offset + begin + done)
        with self._lock:
            self._num_waiting += len(data)
            if self._num_waiting >= _FLUSH_EVERY:
                self._num_waiting = 0
                self._flushes.append((info.file, self._flusher.submit(os.fdatasync, self._files[info.file])))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for file, flush in self._flushes:  # the system reports an error only once
                    with output_errors(self._folder / file):
                        flush.result()
                for file, descriptor in self._files.items():
                    with output_errors(self._folder / file):
                        os.fsync(descriptor)
        finally:
            self._close()

    def _create(self, file: str, tensors: Mapping[str, TensorInfo]) -> None:
        """Creates a file with its header and with space for its tensors."""
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))  # keeps each tensor aligned
        begins, end = {}, 0
        for name in order:
            info = tensors[name]
            begins[name], end = end, end + info.num_bytes
            header[name] = {"dtype": _NAMES[info.dtype], "shape": [*info.shape], "data_offsets": [begins[name], end]}
        encoded = json.dumps(header, separators=(",", ":")).encode()
        encoded += b" " * (-len(encoded) % 8)
        start = 8 + len(encoded)
        self._infos |= {name: replace(tensors[name], file=file, offset=start + begins[name]) for name in order}
        path = self._folder / file
        with output_errors(path):
            self._files[file] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            os.posix_fallocate(self._files[file], 0, start + end)
            os.pwrite(self._files[file], len(encoded).to_bytes(8, "little") + encoded, 0)

    def _write_index(self) -> None:
        total_size = sum(info.num_bytes for info in self._infos.values())
        weight_map = {name: info.file for name, info in sorted(self._infos.items())}
        content = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        with output_errors(self._folder / INDEX):
            (self._folder / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _close(self) -> None:
        self._flusher.shutdown(cancel_futures=True)
        while self._files:
            os.close(self._files.popitem()[1])


def _grouped(tensors: Mapping[str, TensorInfo], max_shard_size: int) -> Iterator[list[str]]:
    """Yields the names of each shard's tensors, for at least one shard."""
    names: list[str] = []
    size = 0
    for name, info in tensors.items():
        if names and size + info.num_bytes > max_shard_size:
            yield names
            names, size = [], 0
        names.append(name)
        size += info.num_bytes
    yield names
