"""Zip archives of files on disk, made as they are sent."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# Name in the archive; the file, or the bytes themselves.
Entry = tuple[str, Path | bytes]

_CHUNK = 1 << 20


def zipped(entries: Sequence[Entry]) -> Iterator[bytes]:
    """An archive piece by piece, about a megabyte each; never whole in memory.

    Raises:
        OSError: a file cannot be read.
    """
    pieces = _Pieces()
    # Weights do not compress.
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, content in entries:
            with (
                _opened(name, content) as (info, source),
                archive.open(info, "w", force_zip64=True) as target,
            ):
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
                    yield pieces.take()
    yield pieces.take()


@contextmanager
def _opened(name: str, content: Path | bytes) -> Iterator[tuple[zipfile.ZipInfo, BinaryIO]]:
    if isinstance(content, bytes):
        yield zipfile.ZipInfo(name), io.BytesIO(content)
    else:
        with content.open("rb") as source:
            yield zipfile.ZipInfo.from_file(content, name), source


class _Pieces:
    """A file to write to, which cannot seek, emptied as it fills."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
