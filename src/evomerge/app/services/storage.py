"""Files of the service's own: whole or not at all, named by their content."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evomerge.app.errors import ConflictError, StorageFullError

# What a crash leaves under this name is swept.
INCOMING = ".incoming-"
# The folder, below the service's own, of what ELMs gave to tokens, shared by all jobs: a file an
# ELM, named by its content.
LOG_PROBS = "log_probs"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """An empty folder below `parent`, gone at the end of the block.

    On the same disk as where its files go to, so that moving them is one step.

    Raises:
        StorageFullError: the disk ran full inside the block.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=INCOMING, dir=parent))
    except OSError as error:
        raise _full(error) from error
    try:
        yield folder
    except OSError as error:
        raise _full(error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def settle(source: Path, target: Path) -> None:
    """Move a file or folder to where its content names it; what is there already stays.

    Raises:
        OSError: the disk refuses.
    """
    if target.exists():
        os.utime(target)  # as good as new: it is not to be swept before its row is there
        return
    for path in [source, *source.rglob("*")] if source.is_dir() else [source]:
        _sync(path)
    try:
        source.rename(target)
    except OSError:
        # Another request with the same content was faster; a folder cannot replace a full one.
        if not target.exists():
            raise
    _sync(target.parent)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _full(error: OSError) -> Exception:
    if error.errno in _FULL:
        return StorageFullError("the disk is full: nothing was stored")
    return error


def check_stored(path: str | None) -> None:
    """Make sure, within `references.hold`, that what a row is about to name is still there.

    Raises:
        ConflictError: the same content was deleted since it was stored.
    """
    if path is not None and not Path(path).exists():
        raise ConflictError("the same content was being deleted; send it again", code="deleted")
