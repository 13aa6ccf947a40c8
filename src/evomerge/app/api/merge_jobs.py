"""/v1/merge_jobs: creating, finding, stopping."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from evomerge.app.api.dependencies import (
    After,
    ContextDep,
    IdempotencyKey,
    JobId,
    Limit,
    answered,
    ticket,
)
from evomerge.app.api.responses import CONFLICT, NOT_FOUND, REFUSED
from evomerge.app.db.repositories.jobs import Filters
from evomerge.app.errors import InvalidRequestError
from evomerge.app.schemas.base import Name
from evomerge.app.schemas.merge_jobs import MergeJob, MergeJobPage, Status
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.services import merge_jobs

router = APIRouter(prefix="/v1/merge_jobs", tags=["merge jobs"])

_METADATA = re.compile(r"metadata\[(.{1,64})\]", re.DOTALL)
_METADATA_PARAMETER = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "required": False,
    "description": "Only jobs with these pairs, as metadata[key]=value.",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}


@router.post(
    "",
    operation_id="create_merge_job",
    status_code=201,
    response_model=MergeJob,
    responses=REFUSED,
)
async def create_merge_job(
    request: Request,
    spec: MergeJobSpec,
    context: ContextDep,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Queue a search. Whatever the spec refers to is fixed now, by id and content hash."""
    asked = ticket(request, idempotency_key, spec)
    return answered(await merge_jobs.create(context, spec, asked))


async def _metadata(request: Request) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if match := _METADATA.fullmatch(name):
            if set(match[1]) & set('"\\\x00') or "\x00" in value:
                raise InvalidRequestError(
                    f"{name!r}: quotes, backslashes and NUL cannot be looked for", param="metadata"
                )
            pairs[match[1]] = value
    return pairs


@router.get("", operation_id="list_merge_jobs", openapi_extra={"parameters": [_METADATA_PARAMETER]})
async def list_merge_jobs(
    context: ContextDep,
    metadata: Annotated[dict[str, str], Depends(_metadata)],
    limit: Limit = 20,
    after: After = None,
    status: Annotated[Status | None, Query(description="Only jobs in this state.")] = None,
    name: Annotated[Name | None, Query(description="Only jobs of this name.")] = None,
) -> MergeJobPage:
    """Jobs, newest first."""
    return await merge_jobs.page(context, Filters(status, name, metadata), after, limit)


@router.get("/{job_id}", operation_id="get_merge_job", responses=NOT_FOUND)
async def get_merge_job(context: ContextDep, job_id: JobId) -> MergeJob:
    """One job, with its progress."""
    return await merge_jobs.get(context, job_id)


@router.post("/{job_id}/cancel", operation_id="cancel_merge_job", responses=NOT_FOUND | CONFLICT)
async def cancel_merge_job(context: ContextDep, job_id: JobId) -> MergeJob:
    """End a job for good; what it has scored stays readable."""
    return await merge_jobs.stop(context, job_id, "cancel")


@router.post("/{job_id}/pause", operation_id="pause_merge_job", responses=NOT_FOUND | CONFLICT)
async def pause_merge_job(context: ContextDep, job_id: JobId) -> MergeJob:
    """Stop a job soon and keep its place."""
    return await merge_jobs.stop(context, job_id, "pause")


@router.post("/{job_id}/resume", operation_id="resume_merge_job", responses=NOT_FOUND | CONFLICT)
async def resume_merge_job(context: ContextDep, job_id: JobId) -> MergeJob:
    """Queue a paused or failed job again; nothing that was scored is scored again."""
    return await merge_jobs.resume(context, job_id)
