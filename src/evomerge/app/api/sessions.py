"""/v1/presets and /v1/sessions: the BMM session protocol."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Path, Request

from evomerge.app.api.responses import CONFLICT, NOT_FOUND, REFUSED, STORED, Responses
from evomerge.app.schemas.base import Text
from evomerge.app.schemas.errors import Error
from evomerge.app.schemas.service import Health
from evomerge.app.schemas.sessions import (
    CandidateBody,
    Evaluated,
    Materialized,
    OptimizeBody,
    Optimized,
    PresetList,
    Session,
    SessionCreate,
)
from evomerge.app.sessions.optimize import optimize
from evomerge.app.sessions.rights import Rights
from evomerge.app.sessions.service import Sessions

router = APIRouter(tags=["sessions"])
protocol_health = APIRouter(tags=["service"])
SHARED: Responses = {
    403: {"model": Error, "description": "The key may not do this."},
    429: {"model": Error, "description": "The key has used up its evaluations, or too many wait."},
}


async def _sessions(request: Request) -> Sessions:
    return cast(Sessions, request.app.state.sessions)


async def _rights(request: Request) -> Rights:
    return cast(Rights, getattr(request.state, "rights", Rights()))


SessionsDep = Annotated[Sessions, Depends(_sessions)]
RightsDep = Annotated[Rights, Depends(_rights)]
SessionId = Annotated[Text, Path(max_length=64, description="A session's id.")]


@protocol_health.get("/health", operation_id="get_protocol_health")
async def get_protocol_health() -> Health:
    """Whether the process answers, where the session protocol looks for it."""
    return Health()


@router.get("/v1/presets", operation_id="list_presets")
async def list_presets(service: SessionsDep) -> PresetList:
    """What may be searched over by alpha and beta alone."""
    return await service.list_presets()


@router.post("/v1/sessions", operation_id="create_session", responses=NOT_FOUND | REFUSED)
async def create_session(service: SessionsDep, rights: RightsDep, body: SessionCreate) -> Session:
    """Open a session over a preset. Only the key that opened it may use it."""
    return await service.create(rights, body)


@router.get("/v1/sessions/{session_id}", operation_id="get_session", responses=NOT_FOUND)
async def get_session(service: SessionsDep, rights: RightsDep, session_id: SessionId) -> Session:
    """One session."""
    return await service.get(rights, session_id)


@router.post(
    "/v1/sessions/{session_id}/evaluate",
    operation_id="evaluate_session",
    responses=NOT_FOUND | REFUSED | SHARED | STORED,
)
async def evaluate_session(
    service: SessionsDep, rights: RightsDep, session_id: SessionId, body: CandidateBody
) -> Evaluated:
    """The loss of a candidate on the preset's search examples."""
    return await service.evaluate(rights, session_id, body)


@router.post(
    "/v1/sessions/{session_id}/materialize",
    operation_id="materialize_session",
    responses=NOT_FOUND | REFUSED | SHARED | STORED,
)
async def materialize_session(
    service: SessionsDep, rights: RightsDep, session_id: SessionId, body: CandidateBody
) -> Materialized:
    """Write a candidate as an adapter on the service's machine, for keys that may."""
    return await service.materialize(rights, session_id, body)


@router.post(
    "/v1/sessions/{session_id}/optimize",
    operation_id="optimize_session",
    responses=NOT_FOUND | REFUSED | SHARED | CONFLICT,
)
async def optimize_session(
    request: Request,
    service: SessionsDep,
    rights: RightsDep,
    session_id: SessionId,
    body: OptimizeBody,
) -> Optimized:
    """Have the service search by itself, as its preset says, and wait for what it finds."""
    return await optimize(service, rights, session_id, body, request.is_disconnected)
