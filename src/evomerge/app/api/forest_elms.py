"""/v1/forests/{forest}/elms."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse

from evomerge.app.api.dependencies import (
    After,
    AskingDep,
    ContextDep,
    Key,
    Limit,
    answered,
)
from evomerge.app.api.responses import CONFLICT, NOT_FOUND, REFUSED, existed
from evomerge.app.schemas.base import Deleted, Text
from evomerge.app.schemas.forest_elms import Elm, ElmCreate, ElmPage
from evomerge.app.services import forest_elms
from evomerge.app.services.once import given_before, once

router = APIRouter(prefix="/v1/forests/{forest}/elms", tags=["forests"], responses=NOT_FOUND)

ElmKey = Annotated[Text, Path(max_length=128, description="An ELM's id, or its name.")]


@router.post(
    "",
    operation_id="add_elm",
    status_code=201,
    response_model=Elm,
    responses=existed(Elm) | REFUSED,
)
async def add_elm(
    forest: Key,
    body: ElmCreate,
    context: ContextDep,
    asking: AskingDep,
) -> JSONResponse:
    """Add a checkpoint that is there already, or the seed itself, as an ELM.

    Its elm.json must name the forest's seed, its tensors must be those of the seed in name and
    shape, and its tokenizer must be the seed's. Nothing of the others changes but the prior, which
    makes room for one part in all. The same content under the same name is the same ELM (200
    instead of 201).
    """
    asked = asking.ticket(body)
    if before := await given_before(context.database, asked):
        return answered(before)
    row, new = await forest_elms.check(context, forest, body)
    make = forest_elms.creation(row.id, new, context.settings.max_pool_experts)
    return answered(await once(context.database, asked, make))


@router.get("", operation_id="list_elms")
async def list_elms(
    context: ContextDep, forest: Key, limit: Limit = 20, after: After = None
) -> ElmPage:
    """The ELMs of a forest, in order."""
    return await forest_elms.page(context, forest, after, limit)


@router.get("/{elm}", operation_id="get_elm")
async def get_elm(context: ContextDep, forest: Key, elm: ElmKey) -> Elm:
    """One ELM, by id or name."""
    return await forest_elms.get(context, forest, elm)


@router.delete("/{elm}", operation_id="remove_elm", responses=CONFLICT)
async def remove_elm(context: ContextDep, forest: Key, elm: ElmKey) -> Deleted:
    """Take an ELM out of its forest; the last one stays.

    The prior of the others is brought to the sum one. Jobs that were created before keep what
    they were given.
    """
    return await forest_elms.delete(context, forest, elm)
