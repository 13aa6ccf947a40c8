"""Values of checkpoints, stretch by stretch, as they lie on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from evomerge.merging.checkpoint.errors import TensorError
from evomerge.merging.checkpoint.files import ITEM_BYTES, Checkpoint, TensorEntry

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
        """The bytes of values first..last-1 of a tensor.

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
        content = bytearray((last - first) * item)
        at = entry.offset + first * item
        if os.preadv(self._files[entry.shard], [content], at) != len(content):
            file = self.checkpoint.folder / entry.shard
            raise TensorError(file, entry.name, "cannot be read whole any more")
        return memoryview(content)

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
            # Copied on writing, which nobody does: torch takes no memory that cannot be written to.
            shard: np.memmap(checkpoint.folder / shard, np.uint8, "c")
            for shard in checkpoint.shards
        }

    def raw(self, entry: TensorEntry, first: int, last: int) -> memoryview:
        """See `Source.raw`."""
        item = ITEM_BYTES[entry.dtype]
        at = entry.offset + first * item
        return self._files[entry.shard][at : at + (last - first) * item].data


def values(source: Source, entry: TensorEntry, first: int, last: int) -> Tensor:
    """Values first..last-1 of a float tensor, (last - first,) float32; float64 if stored so."""
    raw = source.raw(entry, first, last)
    stored = torch.frombuffer(raw, dtype=DTYPES[entry.dtype])
    return stored if entry.dtype == "F64" else stored.float()
