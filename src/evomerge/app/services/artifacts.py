"""What a job found, and the files that it made."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from evomerge.app.errors import ConflictError, NotFoundError
from evomerge.app.schemas.merge_jobs import Artifact, ArtifactPage, MergeJobResult
from evomerge.app.services.context import Context
from evomerge.app.services.merge_jobs import find_row
from evomerge.app.worker.artifacts import folder_of

_CHUNK = 1 << 20


async def result(context: Context, job_id: str) -> MergeJobResult:
    """The outcome of a job.

    Raises:
        NotFoundError: no such job.
        ConflictError: it has none, or none yet.
    """
    row = await find_row(context, job_id)
    if row.result is None:
        raise ConflictError(f"job {row.id} is {row.status}: it has no result", code="no_result")
    return MergeJobResult.model_validate({**row.result, "merge_job_id": row.id})


async def page(context: Context, job_id: str) -> ArtifactPage:
    """The files that a job made. Raises as `result`."""
    found = (await result(context, job_id)).artifacts
    return ArtifactPage(data=[Artifact(**vars(one)) for one in found], has_more=False)


async def file(context: Context, job_id: str, name: str) -> Path:
    """Where one of the files is. Only names that the job's result lists are looked for.

    Raises:
        NotFoundError: no such job, or it made no such file, or the file is gone.
        ConflictError: the job has no result.
    """
    known = {one.name for one in (await result(context, job_id)).artifacts}
    path = folder_of(context.settings.data_dir, job_id) / name
    if name not in known or not path.is_file():
        raise NotFoundError(f"artifact of {job_id}", name)
    return path


async def archive(context: Context, job_id: str) -> Iterator[bytes]:
    """All files as one zip archive, piece by piece; never whole in memory.

    Raises:
        NotFoundError: no such job, or a file is gone.
        ConflictError: the job has no result.
    """
    names = [one.name for one in (await result(context, job_id)).artifacts]
    return _zipped([(name, await file(context, job_id, name)) for name in names])


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
