"""/v1/pools."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from evomerge.app.api.dependencies import (
    After,
    AskingDep,
    ContextDep,
    Key,
    Limit,
    answered,
)
from evomerge.app.api.responses import NOT_FOUND, REFUSED, STORED, existed
from evomerge.app.schemas.base import Deleted
from evomerge.app.schemas.pools import Pool, PoolCreate, PoolPage
from evomerge.app.services import pools
from evomerge.app.services.once import given_before, once

router = APIRouter(prefix="/v1/pools", tags=["pools"])


@router.post(
    "",
    operation_id="create_pool",
    status_code=201,
    response_model=Pool,
    responses=existed(Pool) | REFUSED | STORED,
)
async def create_pool(
    body: PoolCreate,
    context: ContextDep,
    asking: AskingDep,
) -> JSONResponse:
    """Make a pool of registered experts, or register every adapter below a pattern of folders.

    All folders are registered or none; one error names every bad one. The same experts under the
    same name are the same pool (200 instead of 201).
    """
    asked = asking.ticket(body)
    if before := await given_before(context.database, asked):
        return answered(before)
    found = (
        await pools.check_folders(context, body.folders, body.base)
        if body.folders is not None
        else []
    )
    make = pools.creation(body, found, context.settings.max_pool_experts)
    return answered(await once(context.database, asked, make))


@router.get("", operation_id="list_pools")
async def list_pools(context: ContextDep, limit: Limit = 20, after: After = None) -> PoolPage:
    """Pools, newest first."""
    return await pools.page(context, after, limit)


@router.get("/{pool}", operation_id="get_pool", responses=NOT_FOUND)
async def get_pool(context: ContextDep, pool: Key) -> Pool:
    """One pool, by id or name."""
    return await pools.get(context, pool)


@router.delete("/{pool}", operation_id="delete_pool", responses=NOT_FOUND)
async def delete_pool(context: ContextDep, pool: Key) -> Deleted:
    """Forget a pool. Its experts stay, and so do jobs that were created with it."""
    return await pools.delete(context, pool)
