"""/v1/merge_jobs/{job_id}: estimate beforehand, events and evaluations meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from evomerge.app.api.dependencies import ContextDep, JobId, Limit
from evomerge.app.api.responses import NOT_FOUND, REFUSED, Responses
from evomerge.app.schemas.examples import EVENT_STREAM
from evomerge.app.schemas.merge_jobs import (
    Estimate,
    MergeJobEvaluationPage,
    MergeJobEvent,
    MergeJobEventPage,
)
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.services import job_log
from evomerge.app.services.estimate import estimate

router = APIRouter(prefix="/v1/merge_jobs", tags=["merge jobs"])

_MAX_ID = 2**63 - 1
_STREAM = "text/event-stream"
_PAGE_OR_STREAM: Responses = {
    200: {
        "model": MergeJobEventPage,
        "description": "A page of events, or with stream=true all of them as they happen.",
        "content": {_STREAM: {"schema": {"type": "string"}, "example": EVENT_STREAM}},
    }
}


@router.post("/estimate", operation_id="estimate_merge_job", responses=REFUSED)
async def estimate_merge_job(spec: MergeJobSpec, context: ContextDep) -> Estimate:
    """What a job would cost at most: a dry run, which creates and spends nothing."""
    return await estimate(context, spec)


@router.get(
    "/{job_id}/events",
    operation_id="list_merge_job_events",
    response_model=MergeJobEventPage,
    responses=_PAGE_OR_STREAM | NOT_FOUND,
)
async def list_merge_job_events(
    context: ContextDep,
    job_id: JobId,
    limit: Limit = 20,
    after: Annotated[int, Query(ge=0, le=_MAX_ID, description="Events behind this id.")] = 0,
    stream: Annotated[
        bool, Query(description="Server-sent events from `after` on, until the job ends.")
    ] = False,
    last_event_id: Annotated[
        int | None,
        Header(ge=0, le=_MAX_ID, description="Sent by event sources that connect again."),
    ] = None,
) -> MergeJobEventPage | StreamingResponse:
    """What a job has written in its history, oldest first."""
    page = await job_log.event_page(context, job_id, after, limit)
    if not stream:
        return page
    since = after if last_event_id is None else last_event_id
    return StreamingResponse(
        _written(job_log.event_stream(context, job_id, since)),
        media_type=_STREAM,
        # Proxies must neither keep nor hold back what is to be seen at once.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.get("/{job_id}/evaluations", operation_id="list_merge_job_evaluations", responses=NOT_FOUND)
async def list_merge_job_evaluations(
    context: ContextDep,
    job_id: JobId,
    limit: Limit = 20,
    after: Annotated[
        str | None, Query(max_length=32, description="Behind this id, the last one before.")
    ] = None,
    stage: Annotated[
        str | None,
        Query(
            max_length=32,
            pattern=r"^[a-z_]+$",
            description="Only this stage: probe, denoising, scaling, random or held_out.",
        ),
    ] = None,
) -> MergeJobEvaluationPage:
    """Scored candidates in the order of the search; those of the proof come last."""
    return await job_log.evaluation_page(context, job_id, stage, after, limit)


async def _written(stream: AsyncIterator[MergeJobEvent | None]) -> AsyncIterator[str]:
    """Events in the wire format of WHATWG HTML, section 9.2; silence as a comment."""
    yield ": events follow\n\n"
    async for event in stream:
        if event is None:
            yield ": still there\n\n"
        else:
            yield f"id: {event.id}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n"
