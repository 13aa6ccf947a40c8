"""What a job leaves on disk: all of it, or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from evomerge.app.worker.workbench import StoredModel
from evomerge.merging.storing import written_whole

MANIFEST = "manifest.json"
MODEL_CARD = "README.md"


@dataclass(frozen=True)
class Artifact:
    """One file, by its path within the job's folder."""

    name: str
    bytes: int
    sha256: str


def folder_of(data_dir: Path, job_id: str) -> Path:
    """Where the artifacts of a job are."""
    return data_dir / "artifacts" / job_id


def store(
    folder: Path, model: StoredModel, manifest: Mapping[str, Any], card: str
) -> list[Artifact]:
    """Write the model, its manifest and its card, and move them into place as one folder.

    The manifest lists the model's files with their hashes. What an earlier attempt left behind
    is replaced; a failed attempt leaves nothing.

    Raises:
        OSError: the disk is full or refuses.
    """
    for unfinished in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    with written_whole(folder) as fresh:
        model.write(fresh)
        files = [asdict(artifact) for artifact in listing(fresh)]
        written = json.dumps({**manifest, "files": files}, indent=2, allow_nan=False)
        (fresh / MANIFEST).write_text(written + "\n", encoding="utf-8")
        (fresh / MODEL_CARD).write_text(card, encoding="utf-8")
    return listing(folder)


def listing(folder: Path) -> list[Artifact]:
    """Every file below a folder, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [_artifact(path, folder) for path in files]


def changed_file(folder: Path, hashes: Mapping[str, str]) -> str | None:
    """The first file of a job that is not as it was stored; one that is gone has not changed.

    Args:
        folder: of the job.
        hashes: SHA-256 of its files by name, as the job's result lists them. The card is for
            people, who may write in it.
    """
    for name, sha256 in hashes.items():
        if name == MODEL_CARD or not (folder / name).is_file():
            continue
        if _artifact(folder / name, folder).sha256 != sha256:
            return name
    return None


def _artifact(path: Path, folder: Path) -> Artifact:
    with path.open("rb") as stream:
        digest = file_digest(stream, "sha256").hexdigest()
    return Artifact(path.relative_to(folder).as_posix(), path.stat().st_size, digest)
