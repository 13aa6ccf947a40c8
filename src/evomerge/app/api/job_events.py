"""What a job writes in its history, by page or as it happens: a route of every kind of job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from evomerge.app.api.dependencies import ContextDep, JobId, Limit
from evomerge.app.api.job_routes import Shown
from evomerge.app.api.responses import NOT_FOUND, Responses
from evomerge.app.schemas.base import Page
from evomerge.app.schemas.examples import EVENT_STREAM
from evomerge.app.schemas.jobs import AnyJobEvent
from evomerge.app.services import job_log
from evomerge.app.services.jobs import E, J, R

_MAX_ID = 2**63 - 1
_STREAM = "text/event-stream"


def add_events(router: APIRouter, shown: Shown[J, E, R]) -> None:
    """The list of events, which is a stream too."""
    page_or_stream: Responses = {
        200: {
            "model": shown.event_page,
            "description": "A page of events, or with stream=true all of them as they happen.",
            "content": {_STREAM: {"schema": {"type": "string"}, "example": EVENT_STREAM}},
        }
    }

    @router.get(
        "/{job_id}/events",
        operation_id=f"list_{shown.noun}_events",
        response_model=shown.event_page,
        responses=page_or_stream | NOT_FOUND,
        description="What a job has written in its history, oldest first.",
    )
    async def list_events(
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
    ) -> Page[AnyJobEvent] | StreamingResponse:
        family = shown.family
        found, more = await job_log.event_page(context, family, job_id, after, limit)
        if not stream:
            return Page[AnyJobEvent](data=list(found), has_more=more)
        since = after if last_event_id is None else last_event_id
        return StreamingResponse(
            _written(job_log.event_stream(context, family, job_id, since)),
            media_type=_STREAM,
            # Proxies must neither keep nor hold back what is to be seen at once.
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )


async def _written(stream: AsyncIterator[AnyJobEvent | None]) -> AsyncIterator[str]:
    """Events in the wire format of WHATWG HTML, section 9.2; silence as a comment."""
    yield ": events follow\n\n"
    async for event in stream:
        if event is None:
            yield ": still there\n\n"
        else:
            yield f"id: {event.id}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n"
