"""Seeds of forests: in a folder, among the settings' bases, or trained by a job."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from evomerge.app.db.models import Job
from evomerge.app.db.repositories import jobs
from evomerge.app.errors import ConflictError, InvalidRequestError
from evomerge.app.schemas.forests import SeedSource
from evomerge.app.services.checkpoints import Seed, check_seed
from evomerge.app.services.context import Context
from evomerge.app.services.roots import folder_below_roots
from evomerge.evaluation.errors import short

_PARAM = "seed"


async def find_seed(context: Context, source: SeedSource) -> Seed:
    """The seed that a body names, read whole.

    Raises:
        InvalidRequestError: there is none, or it cannot be a seed; names the field.
        ConflictError: the job that it comes from has not succeeded.
    """
    if source.path is not None:
        param = f"{_PARAM}.path"
        folder = folder_below_roots(source.path, context.settings.roots, param)
    elif source.base is not None:
        param = f"{_PARAM}.base"
        folder = _base(context, source.base, param)
    else:
        param = f"{_PARAM}.job"
        folder = await _trained(context, str(source.job), param)
    return await asyncio.to_thread(check_seed, folder, param)


def _base(context: Context, name: str, param: str) -> Path:
    folder = context.settings.bases.get(name)
    if folder is None:
        known = ", ".join(map(repr, sorted(context.settings.bases))) or "no base model at all"
        raise InvalidRequestError(
            f"{param}={short(name)}: the service knows {known}", param=param, code="not_found"
        )
    return folder.resolve()


async def _trained(context: Context, job_id: str, param: str) -> Path:
    async with context.database.read() as session:
        job = await jobs.find(session, ("train_seed",), job_id)
    if job is None:
        raise InvalidRequestError(
            f"{param}={short(job_id)}: no train_seed job has this id", param=param, code="not_found"
        )
    if job.result is None or job.status != "succeeded":
        raise ConflictError(
            f"{param}: job {job.id} is {job.status}: it has no seed", param=param, code="no_result"
        )
    return _folder(job, job.result)


def _folder(job: Job, result: dict[str, Any]) -> Path:
    return Path(result["checkpoint"]["path"])
