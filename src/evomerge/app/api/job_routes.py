"""The routes that every collection of jobs has: find, list, stop, resume."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic

from fastapi import APIRouter, Depends, Query, Request

from evomerge.app.api.dependencies import ContextDep, JobId
from evomerge.app.api.responses import CONFLICT, NOT_FOUND
from evomerge.app.db.repositories.jobs import Filters
from evomerge.app.db.repositories.queue import StopRequest
from evomerge.app.errors import InvalidRequestError
from evomerge.app.schemas.base import Name, Page
from evomerge.app.schemas.jobs import AnyJob, Status
from evomerge.app.schemas.result import ArtifactResult
from evomerge.app.services.jobs import E, Family, J, R

_METADATA = re.compile(r"metadata\[(.{1,64})\]", re.DOTALL)
# For `openapi_extra` of routes that take `FiltersDep`.
METADATA_PARAMETER: Mapping[str, Any] = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "required": False,
    "description": "Only jobs with these pairs, as metadata[key]=value.",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}


@dataclass(frozen=True)
class Shown(Generic[J, E, R]):
    """A family of jobs, and the bodies that its routes answer with.

    Attributes:
        noun: what names of operations call one.
        job, event_page, artifact, artifact_page, result: models of answers.
        about: what commands and files mean for these jobs, by name: cancel, resume, result and
            artifacts.
    """

    family: Family[J, E, R]
    noun: str
    job: type[J]
    event_page: type[Page[E]]
    artifact: type[ArtifactResult]
    artifact_page: type[Page[Any]]
    result: type[R]
    about: Mapping[str, str]


async def _filters(
    request: Request,
    status: Annotated[Status | None, Query(description="Only jobs in this state.")] = None,
    name: Annotated[Name | None, Query(description="Only jobs of this name.")] = None,
) -> Filters:
    pairs: dict[str, str] = {}
    for field, value in request.query_params.multi_items():
        if match := _METADATA.fullmatch(field):
            if set(match[1]) & set('"\\\x00') or "\x00" in value:
                raise InvalidRequestError(
                    f"{field!r}: quotes, backslashes and NUL cannot be looked for", param="metadata"
                )
            pairs[match[1]] = value
    return Filters(status, name, pairs)


FiltersDep = Annotated[Filters, Depends(_filters)]


def add_commands(router: APIRouter, shown: Shown[J, E, R]) -> None:
    """Get, cancel, pause and resume."""
    family = shown.family

    @router.get(
        "/{job_id}",
        operation_id=f"get_{shown.noun}",
        response_model=shown.job,
        responses=NOT_FOUND,
        description="One job, with its progress.",
    )
    async def get_job(context: ContextDep, job_id: JobId) -> AnyJob:
        return await family.get(context, job_id)

    stops: tuple[tuple[StopRequest, str], ...] = (
        ("cancel", shown.about["cancel"]),
        ("pause", "Stop a job soon and keep its place."),
    )
    for wanted, description in stops:
        _add_stop(router, shown, wanted, description)

    @router.post(
        "/{job_id}/resume",
        operation_id=f"resume_{shown.noun}",
        response_model=shown.job,
        responses=NOT_FOUND | CONFLICT,
        description=shown.about["resume"],
    )
    async def resume_job(context: ContextDep, job_id: JobId) -> AnyJob:
        return await family.resume(context, job_id)


def _add_stop(
    router: APIRouter, shown: Shown[J, E, R], wanted: StopRequest, description: str
) -> None:
    @router.post(
        f"/{{job_id}}/{wanted}",
        operation_id=f"{wanted}_{shown.noun}",
        response_model=shown.job,
        responses=NOT_FOUND | CONFLICT,
        description=description,
    )
    async def stop_job(context: ContextDep, job_id: JobId) -> AnyJob:
        return await shown.family.stop(context, job_id, wanted)
