"""The files that a job made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evomerge.app.errors import NotFoundError
from evomerge.app.schemas.result import ArtifactResult
from evomerge.app.services.archives import zipped
from evomerge.app.services.context import Context
from evomerge.app.services.jobs import E, Family, J, R


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
    row = await family.row(context, job_id)
    path = family.folder(context.settings.data_dir, row) / name
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
    return zipped([(name, await file(context, family, job_id, name)) for name in names])
