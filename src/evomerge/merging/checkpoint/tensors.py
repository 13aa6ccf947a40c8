"""Values of checkpoints, stretch by stretch, as they lie on disk.

Everything here runs on the thread that asks for it: callers share tensors out among threads, and
torch's own threads would get in their way.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.merging.checkpoint import kernels
from evomerge.merging.checkpoint.errors import TensorError
from evomerge.merging.checkpoint.files import ITEM_BYTES, Checkpoint, TensorEntry
from evomerge.merging.checkpoint.kernels import Doubles, Values

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
# Values at a time: few enough that what is added up stays in the processor's cache.
STRETCH = 1 << 16
# Values that one thread takes on at a time: many enough that threads do not wait for each other.
PIECE = 1 << 22

_STORED: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(np.uint16),
}


@dataclass(frozen=True)
class Piece:
    """Values first..last-1 of a tensor, laid end to end."""

    entry: TensorEntry
    first: int
    last: int

    def stretches(self) -> Iterator[tuple[int, int]]:
        """Bounds that are short enough to compute with."""
        for first in range(self.first, self.last, STRETCH):
            yield first, min(first + STRETCH, self.last)


def pieces(entry: TensorEntry) -> list[Piece]:
    """A tensor cut up; none for one without values."""
    return [
        Piece(entry, first, min(first + PIECE, entry.size)) for first in range(0, entry.size, PIECE)
    ]


class Source(Protocol):
    """Where a checkpoint's values come from."""

    checkpoint: Checkpoint

    def raw(self, entry: TensorEntry, first: int, last: int) -> memoryview:
        """The bytes of values first..last-1 of a tensor, until the same thread asks again.

        Raises:
            TensorError: the file has become shorter.
        """
        ...


class FileSource:
    """Reads from files each time, so that nothing stays in memory. For several threads.

    Use it as a context: it holds the files open.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._files: dict[str, int] = {}
        self._room = _Room()

    def __enter__(self) -> FileSource:
        try:
            for shard in self.checkpoint.shards:
                self._files[shard] = os.open(self.checkpoint.folder / shard, os.O_RDONLY)
        except OSError:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def raw(self, entry: TensorEntry, first: int, last: int) -> memoryview:
        """See `Source.raw`."""
        item = ITEM_BYTES[entry.dtype]
        content = self._room.of((last - first) * item)
        at = entry.offset + first * item
        if os.preadv(self._files[entry.shard], [content], at) != len(content):
            file = self.checkpoint.folder / entry.shard
            raise TensorError(file, entry.name, "cannot be read whole any more")
        return content

    def _close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])


class MappedSource:
    """Maps the files into memory: read from the disk once, if there is room, and never copied.

    The system takes the memory back where it needs it. For several threads.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._files = {
            # Copied on writing, which nobody does: kernels are compiled once more for arrays that
            # cannot be written to.
            shard: np.memmap(checkpoint.folder / shard, np.uint8, "c")
            for shard in checkpoint.shards
        }

    def raw(self, entry: TensorEntry, first: int, last: int) -> memoryview:
        """See `Source.raw`."""
        item = ITEM_BYTES[entry.dtype]
        at = entry.offset + first * item
        return self._files[entry.shard][at : at + (last - first) * item].data


class _Room(threading.local):
    """Memory of a thread that is used again and again: fresh pages cost more than the sums."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def of(self, size: int) -> memoryview:
        """So many bytes of it."""
        if len(self._bytes) < size:
            self._bytes = bytearray(size)
        return memoryview(self._bytes)[:size]


def values(source: Source, entry: TensorEntry, first: int, last: int) -> Values:
    """Values first..last-1 of a float tensor, (last - first,) float32; float64 if stored so.

    Good until the same thread asks the same source again.
    """
    stored = np.frombuffer(source.raw(entry, first, last), _STORED[entry.dtype])
    if entry.dtype == "BF16":
        wide = np.empty(stored.shape, np.float32)
        kernels.widen(stored, wide.view(np.uint32))
        return wide
    return stored.astype(np.float32) if entry.dtype == "F16" else cast("Values", stored)


def rounded(total: Doubles, dtype: str) -> NDArray[Any]:
    """What was added up, (L,), as it is stored: to the nearest float32, from there to what is less.

    Args:
        total: float64.
        dtype: by the format's name.

    Returns:
        (L,) in numpy's dtype, or bits in uint16 for BF16.
    """
    if dtype == "F64":
        return total
    with np.errstate(over="ignore"):
        singles = total.astype(np.float32)
        if dtype == "F32":
            return singles
        if dtype == "F16":
            return singles.astype(np.float16)
    halves = np.empty(singles.shape, np.uint16)
    kernels.narrow(singles.view(np.uint32), halves)
    return halves
