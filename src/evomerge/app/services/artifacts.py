"""The files that a job made."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from evomerge.app.errors import NotFoundError
from evomerge.app.schemas.result import ArtifactResult
from evomerge.app.services.context import Context
from evomerge.app.services.jobs import E, Family, J, R
from evomerge.app.worker.artifacts import folder_of

_CHUNK = 1 << 20


async def page(context: Context, family: Family[J, E, R], job_id: str) -> list[ArtifactResult]:
    """The files that a job made. Raises as `Family.result`."""
    return list((await family.result(context, job_id)).artifacts)


async def file(context: Context, family: Family[J, E, R], job_id: str, name: str) -> Path:
    """Where one of the files is. Only names that the job's result lists are looked for.

    Raises:
        NotFoundError: no such job, or it made no such file, or the file is gone.
        ConflictError: the job has no result.
    """
    known = {one.name for one in await page(context, family, job_id)}
    path = folder_of(context.settings.data_dir, job_id) / name
    if name not in known or not path.is_file():
        raise NotFoundError(f"artifact of {job_id}", name)
    return path


async def archive(context: Context, family: Family[J, E, R], job_id: str) -> Iterator[bytes]:
    """All files as one zip archive, piece by piece; never whole in memory.

    Raises:
        NotFoundError: no such job, or a file is gone.
        ConflictError: the job has no result.
    """
    names = [one.name for one in await page(context, family, job_id)]
    return _zipped([(name, await file(context, family, job_id, name)) for name in names])


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
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def _zipped(files: Sequence[tuple[str, Path]]) -> Iterator[bytes]:
    pieces = _Pieces()
    # Weights do not compress.
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for name, path in files:
            info = zipfile.ZipInfo.from_file(path, name)
            with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
                    yield pieces.take()
    yield pieces.take()
