"""Pools: a row each, and one for every place in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.engine import epoch
from evomerge.app.db.errors import NameTakenError
from evomerge.app.db.ids import POOL, new_id
from evomerge.app.db.models import Expert, Pool, PoolMember


async def add(
    session: AsyncSession,
    *,
    name: str,
    base: str | None,
    expert_ids: Sequence[str],
    meta: Mapping[str, str],
) -> Pool:
    """Insert a pool of experts, in order.

    Raises:
        NameTakenError: the name is taken; the transaction must be given up.
    """
    row = {"id": new_id(POOL), "name": name, "base": base, "meta": dict(meta)}
    try:
        pool = (
            await session.scalars(insert(Pool).values(created_at=epoch(), **row).returning(Pool))
        ).one()
    except IntegrityError as error:
        raise NameTakenError("pool", name) from error
    await session.execute(
        insert(PoolMember),
        [
            {"pool_id": pool.id, "position": position, "expert_id": expert_id}
            for position, expert_id in enumerate(expert_ids)
        ],
    )
    return pool


async def members(session: AsyncSession, pool_id: str) -> list[Expert]:
    """The experts of a pool, in order."""
    query = (
        select(Expert)
        .join(PoolMember, PoolMember.expert_id == Expert.id)
        .where(PoolMember.pool_id == pool_id)
        .order_by(PoolMember.position)
    )
    return list(await session.scalars(query))


async def member_names(
    session: AsyncSession, pool_ids: Sequence[str]
) -> dict[str, list[tuple[str, str]]]:
    """(id, name) of the experts of each pool, in order."""
    query = (
        select(PoolMember.pool_id, Expert.id, Expert.name)
        .join(Expert, PoolMember.expert_id == Expert.id)
        .where(PoolMember.pool_id.in_(pool_ids))
        .order_by(PoolMember.pool_id, PoolMember.position)
    )
    found: dict[str, list[tuple[str, str]]] = {pool_id: [] for pool_id in pool_ids}
    for pool_id, expert_id, name in await session.execute(query):
        found[pool_id].append((expert_id, name))
    return found


async def remove(session: AsyncSession, pool_id: str) -> None:
    """Delete a pool; its experts stay."""
    await session.execute(delete(Pool).where(Pool.id == pool_id))
