"""What a job keeps on disk until it ends: checkpoints of a training, numbers read once.

A job's folder is named by the lease that it is in the hands of. Who claims the job after another
worker renames it, so that a worker that was taken for dead finds it gone: what it goes on writing
stands in nobody's way.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from evomerge.app.db.repositories.queue import Lease

SCRATCH = "scratch"


def take(data_dir: Path, lease: Lease) -> Path:
    """The folder of a job that was claimed, with what earlier attempts left in it.

    Raises:
        OSError: the disk refuses.
    """
    home = data_dir / SCRATCH
    home.mkdir(parents=True, exist_ok=True)
    mine = home / f"{lease.job_id}.{lease.token}"
    earlier = sorted(_folders(home, lease.job_id), key=_token)
    if earlier and not mine.exists():
        earlier.pop().rename(mine)
    mine.mkdir(exist_ok=True)
    _delete(path for path in earlier if path != mine)
    return mine


def remove(data_dir: Path, job_id: str) -> None:
    """Delete all that a job kept."""
    _delete(_folders(data_dir / SCRATCH, job_id))


@dataclass(frozen=True)
class Kept:
    """A folder of a job, and when it was last changed (seconds since 1970)."""

    path: Path
    job_id: str
    changed_at: float


def everything(data_dir: Path) -> list[Kept]:
    """What all jobs keep."""
    home = data_dir / SCRATCH
    folders = _folders(home, "*") if home.is_dir() else []
    return [
        Kept(path, path.name.partition(".")[0], path.stat().st_mtime)
        for path in folders
        if path.is_dir()
    ]


def discard(kept: Kept) -> None:
    """Delete a folder, unless a worker has taken it meanwhile."""
    aside = kept.path.with_name(f".{kept.path.name}")
    with suppress(FileNotFoundError):
        kept.path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _folders(home: Path, job_id: str) -> list[Path]:
    return [path for path in home.glob(f"{job_id}.*") if path.suffix[1:].isdecimal()]


def _token(path: Path) -> int:
    return int(path.suffix[1:])


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
