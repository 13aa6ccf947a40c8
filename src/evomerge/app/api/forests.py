"""/v1/forests."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, StreamingResponse

from evomerge.app.api.dependencies import (
    After,
    AskingDep,
    ContextDep,
    Key,
    Limit,
    answered,
)
from evomerge.app.api.responses import CONFLICT, NOT_FOUND, REFUSED, binary, existed
from evomerge.app.schemas.base import Deleted
from evomerge.app.schemas.forests import Forest, ForestCreate, ForestPage, ForestUpdate
from evomerge.app.services import forest_archive, forests
from evomerge.app.services.once import given_before, once

router = APIRouter(prefix="/v1/forests", tags=["forests"])


@router.post(
    "",
    operation_id="create_forest",
    status_code=201,
    response_model=Forest,
    responses=existed(Forest) | REFUSED,
)
async def create_forest(
    body: ForestCreate,
    context: ContextDep,
    asking: AskingDep,
) -> JSONResponse:
    """Make a forest over a seed: a checkpoint's folder, a base, or what a train_seed job made.

    ELMs that are there already may come with it; all of them are taken or none. Every byte is
    read, so this takes about a second a gigabyte. The same seed, ELMs and ensemble under the same
    name are the same forest (200 instead of 201).
    """
    asked = asking.ticket(body)
    if before := await given_before(context.database, asked):
        return answered(before)
    make = forests.creation(body, await forests.check(context, body))
    return answered(await once(context.database, asked, make))


@router.get("", operation_id="list_forests")
async def list_forests(context: ContextDep, limit: Limit = 20, after: After = None) -> ForestPage:
    """Forests, newest first."""
    return await forests.page(context, after, limit)


@router.get("/{forest}", operation_id="get_forest", responses=NOT_FOUND)
async def get_forest(context: ContextDep, forest: Key) -> Forest:
    """One forest, by id or name."""
    return await forests.get(context, forest)


@router.patch("/{forest}", operation_id="update_forest", responses=NOT_FOUND | REFUSED)
async def update_forest(context: ContextDep, forest: Key, body: ForestUpdate) -> Forest:
    """Change how the ELMs speak together: prior, its mode, history, top-k. Or the metadata.

    What is left out stays as it is. Jobs that were created before keep what they were given.
    """
    return await forests.update(context, forest, body)


@router.delete("/{forest}", operation_id="delete_forest", responses=NOT_FOUND | CONFLICT)
async def delete_forest(context: ContextDep, forest: Key) -> Deleted:
    """Forget a forest, unless a job that has not finished uses it.

    Files that the service stored go with the last forest or job that needs them; what lies below
    its roots stays.
    """
    return await forests.delete(context, forest)


@router.get(
    "/{forest}/archive.zip",
    operation_id="download_forest_archive",
    response_class=StreamingResponse,
    responses=NOT_FOUND | CONFLICT | binary("application/zip", "The forest in one archive."),
)
async def download_forest_archive(context: ContextDep, forest: Key) -> StreamingResponse:
    """The whole forest as one zip archive, streamed: forest.json, the seed, and every ELM.

    Each model is a folder that transformers loads.
    """
    name, pieces = await forest_archive.archive(context, forest)
    return StreamingResponse(
        pieces,
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{name}.zip"'},
    )
