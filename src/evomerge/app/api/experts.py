"""/v1/experts."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from evomerge.app.api.bodies import documented, form_body, is_form, json_body
from evomerge.app.api.dependencies import (
    After,
    AskingDep,
    ContextDep,
    Key,
    Limit,
    answered,
)
from evomerge.app.api.responses import CONFLICT, NOT_FOUND, REFUSED, STORED, existed
from evomerge.app.schemas.api_experts import ApiExpertCreate
from evomerge.app.schemas.base import Deleted
from evomerge.app.schemas.experts import Expert, ExpertCreate, ExpertFields, ExpertPage
from evomerge.app.services import api_experts, experts
from evomerge.app.services.once import given_before, once

router = APIRouter(prefix="/v1/experts", tags=["experts"])


@router.post(
    "",
    operation_id="create_expert",
    status_code=201,
    response_model=Expert,
    responses=existed(Expert) | REFUSED | STORED,
    openapi_extra=documented(ExpertCreate, ExpertFields, experts.FILES),
)
async def create_expert(request: Request, context: ContextDep, asking: AskingDep) -> JSONResponse:
    """Register a LoRA adapter (upload its two files as a form, or name a folder), or an API.

    Every tensor of an adapter is checked against the base model; what is wrong is named with its
    tensor. An API is probed for what it can do. The same thing under the same name is the same
    expert (200 instead of 201).
    """
    if is_form(request):
        async with form_body(request, ExpertFields, list(experts.FILES)) as (fields, files):
            streams = {name: file.file for name, file in files.items()}
            new = experts.named(fields, await experts.store(context, streams, fields.base))
        asked = asking.ticket(fields, new.content_hash)
    else:
        body = (await json_body(request, ExpertCreate)).root
        asked = asking.ticket(body)
        if before := await given_before(context.database, asked):
            return answered(before)
        if isinstance(body, ApiExpertCreate):
            new = await api_experts.probed(context, body)
        else:
            new = experts.named(body, await experts.check_path(context, body.path, body.base))
    return answered(await once(context.database, asked, experts.creation(new)))


@router.get("", operation_id="list_experts")
async def list_experts(context: ContextDep, limit: Limit = 20, after: After = None) -> ExpertPage:
    """Experts, newest first."""
    return await experts.page(context, after, limit)


@router.get("/{expert}", operation_id="get_expert", responses=NOT_FOUND)
async def get_expert(context: ContextDep, expert: Key) -> Expert:
    """One expert, by id or name."""
    return await experts.get(context, expert)


@router.post(
    "/{expert}/check", operation_id="check_expert", responses=NOT_FOUND | CONFLICT | REFUSED
)
async def check_expert(context: ContextDep, expert: Key) -> Expert:
    """Probe an API expert again and keep what is found."""
    return await api_experts.check(context, expert)


@router.delete("/{expert}", operation_id="delete_expert", responses=NOT_FOUND | CONFLICT)
async def delete_expert(context: ContextDep, expert: Key) -> Deleted:
    """Forget an expert that no pool holds. Jobs that were created with it keep its files
    until they end; uploaded files are then deleted, folders that were registered never."""
    return await experts.delete(context, expert)
