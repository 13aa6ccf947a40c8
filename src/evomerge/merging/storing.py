"""Folders that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evomerge.merging.errors import ArtifactWriteError


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place if the block succeeds.

    What was at `folder` before is replaced. Files and folders are on the disk before the rename.

    Raises:
        DiskFullError: there is no room; nothing was left behind.
        ArtifactWriteError: the system refused otherwise; likewise.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True
        ) as scratch:
            fresh = Path(scratch) / "new"
            fresh.mkdir()
            yield fresh
            to_disk(fresh)
            if folder.exists():
                folder.rename(Path(scratch) / "old")
            fresh.rename(folder)
        _sync(folder.parent)
    except OSError as error:
        raise ArtifactWriteError.of(folder, error) from error


def copy_file(source: Path, target: Path) -> None:
    """The content of a file, links followed."""
    shutil.copyfile(source, target)


def to_disk(folder: Path) -> None:
    """Return once a folder and everything in it is on the disk."""
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
