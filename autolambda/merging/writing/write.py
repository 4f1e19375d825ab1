"""Merges from files to files in one pass over the bytes: read, hash, check, merge, write, hash.

Each thread processes one tensor at a time, in pieces, so the memory does not grow with the model. The pass also
computes the parents' digests (``Checkpoint.digest``), checks them for NaN, and hashes what it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import torch
from torch import Tensor

from autolambda.merging.checkpoint import Checkpoint
from autolambda.merging.fingerprint import NUM_THREADS, TensorHash, digest_of_hashes, hash_files, is_finite
from autolambda.merging.kernels.sums import PIECE, regions_of
from autolambda.merging.merge import Merge
from autolambda.merging.reading import fitted, read_tensor, stored_name
from autolambda.merging.rounding import matrix_shape
from autolambda.merging.shards import ShardReader
from autolambda.merging.writing.shard_writer import ShardWriter

OnBytes = Callable[[int], None]
"""Receives the number of bytes of the merge that were written since the last call, from any thread."""


@dataclass(frozen=True)
class Written:
    """The hashes that a pass computed, as SHA-256 (hex).

    ``tensors`` holds the hash of each written tensor. ``models`` holds the digest of each model by role; it is empty if
    the models were not hashed.
    """

    models: Mapping[str, str]
    tensors: Mapping[str, str]

    @property
    def digest(self) -> str:
        """The SHA-256 (hex) of all weights, equal to the fingerprint of an engine that holds them whole."""
        return digest_of_hashes(self.tensors)


class _Stopped(Exception):
    """Another thread failed, or the user interrupted the merge."""


def write_weights(
    folder: Path,
    merge: Merge,
    *,
    max_shard_size: int,
    identify: bool,
    on_bytes: OnBytes | None = None,
    num_threads: int | None = None,
) -> Written:
    """Writes the merge's tensors as shards into an existing empty ``folder``.

    If ``identify`` is true, every byte of the models is hashed too. With few cores this takes longer than the rest.
    Raises ``CheckpointError`` when a model cannot be read or holds NaN or infinite values, and ``OutputError`` when the
    disk refuses.
    """
    num_threads = num_threads or NUM_THREADS
    by_size = sorted(merge.infos, key=lambda name: -merge.infos[name].num_bytes)
    with ExitStack() as stack:
        readers = [stack.enter_context(ShardReader(model.folder)) for model in merge.models.values()]
        writer = stack.enter_context(ShardWriter(folder, merge.infos, max_shard_size=max_shard_size))
        stack.enter_context(one_thread_each())
        work = _Pass(merge, readers, writer, identify, on_bytes or (lambda num_bytes: None))
        pool = stack.enter_context(ThreadPoolExecutor(num_threads))
        futures = []
        try:
            futures = [pool.submit(work.write, name) for name in by_size]
            wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:  # an interrupt
            work.stopped.set()
            raise
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, _Stopped)):
            raise error
        for role, model in merge.models.items():
            model.check_finite(work.hashes[role])
        models = {role: model.digest_of(work.hashes[role]) for role, model in merge.models.items() if identify}
        return Written(models, {name: work.written[name].hex() for name in merge.infos})


class _Pass:
    """The state that all threads share."""

    def __init__(
        self, merge: Merge, readers: list[ShardReader], writer: ShardWriter, identify: bool, on_bytes: OnBytes
    ) -> None:
        self._merge, self._readers, self._writer = merge, readers, writer
        self._identify, self._on_bytes = identify, on_bytes
        self.hashes: dict[str, dict[str, TensorHash]] = {role: {} for role in merge.models}
        self.written: dict[str, bytes] = {}
        self.stopped = Event()

    def write(self, name: str) -> None:
        """Merges and writes one tensor. A failure stops the other threads."""
        if self.stopped.is_set():
            raise _Stopped
        try:
            self._write(name)
        except BaseException:
            self.stopped.set()
            raise

    def _write(self, name: str) -> None:
        info = self._merge.infos[name]
        make, draws = self._merge.arithmetic(name, lambda: self._pieces(name)), self._merge.draws(name)
        hashes = self._model_hashes(name)
        merged_hash = TensorHash(name, info)
        copied: TensorHash | None = None  # the hash of the model whose tensor the merge copies
        shows_broken = self._merge.shows_broken(name)
        begin = 0
        for region, pieces in zip(regions_of(info.shape), self._pieces(name), strict=True):
            merged = make(*pieces, draws=draws and draws.part(*region))
            checked = not (shows_broken and is_finite(merged))
            for model_hash, piece in zip(hashes, pieces, strict=True):
                if model_hash and (checked or self._identify):
                    model_hash.update(piece, hashed=self._identify, checked=checked)
            copied = next(
                (h for h, piece in zip(hashes, pieces, strict=True) if piece is merged and self._identify), None
            )
            if copied is None:
                merged_hash.update(merged, checked=False)
            self._writer.write(name, begin, merged)
            begin += merged.nbytes
            self._on_bytes(merged.nbytes)
        self.written[name] = (copied or merged_hash).digest()

    def _pieces(self, name: str) -> Iterator[tuple[Tensor, ...]]:
        """Yields the tensor of all models piece by piece, in buffers that the next piece overwrites."""
        info = self._merge.infos[name]
        models = list(self._merge.models.items())
        # what is converted is mapped, the rest read
        mapped = {role: _matrix(model, name) for role, model in models if not self._merge.fits(role, name)}
        thinking = _matrix(self._merge.pair.thinking, name) if mapped else None
        stored = {role: stored_name(model, name) for role, model in models}
        size = min(PIECE * info.dtype.itemsize, info.num_bytes)
        buffers = {role: torch.empty(0 if role in mapped else size, dtype=torch.uint8) for role, _ in models}
        begin = 0
        for rows, columns in regions_of(info.shape):
            if self.stopped.is_set():
                raise _Stopped
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            num_bytes = shape[0] * shape[1] * info.dtype.itemsize
            yield tuple(
                fitted(mapped[role], thinking, (rows, columns))
                if thinking is not None and role in mapped
                else reader.read(stored[role], model.tensors[stored[role]], begin, buffers[role][:num_bytes])
                .view(info.dtype)
                .view(shape)
                for reader, (role, model) in zip(self._readers, models, strict=True)
            )
            begin += num_bytes

    def _model_hashes(self, name: str) -> list[TensorHash | None]:
        """Returns a hash for each model, or ``None`` for what is hashed elsewhere.

        That is a tied lm_head, whose bytes are hashed as the embedding, and a tensor that is converted piece by piece:
        it is hashed here, as it is stored.
        """
        for role, model in self._merge.models.items():
            if name in model.tensors and not self._merge.fits(role, name):
                self.hashes[role] |= hash_files(model.folder, {name: model.tensors[name]})
            elif name in model.tensors:
                self.hashes[role][name] = TensorHash(name, model.tensors[name])
        return [self.hashes[role].get(name) if self._merge.fits(role, name) else None for role in self._merge.models]


def _matrix(model: Checkpoint, name: str) -> Tensor:
    """Returns a model's tensor, memory-mapped, with its leading dimensions flattened."""
    tensor = read_tensor(model, name)
    return tensor.reshape(matrix_shape(tensor.shape))


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Gives PyTorch one thread inside each of our threads, and restores its number of threads afterwards.

    Its threads wait for each other after every operation on a piece, which takes 10 times as long on a busy machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
