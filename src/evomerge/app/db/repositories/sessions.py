"""Sessions of the BMM protocol, and the evaluations that callers have used up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.engine import epoch
from evomerge.app.db.ids import SESSION, new_id
from evomerge.app.db.models import Quota, SharedSession
from evomerge.app.db.repositories.answers import insert_into


async def add(
    session: AsyncSession,
    *,
    caller: str,
    preset: str,
    query: Mapping[str, Any],
    spec: Mapping[str, Any],
    inputs: Mapping[str, Any],
    keep: int,
) -> SharedSession:
    """A new session; of its caller's, the `keep` newest stay."""
    row = SharedSession(
        id=new_id(SESSION),
        caller=caller,
        preset=preset,
        query=dict(query),
        spec=dict(spec),
        inputs=dict(inputs),
        created_at=epoch(),
    )
    session.add(row)
    await session.flush()
    older = (
        select(SharedSession.id)
        .where(SharedSession.caller == caller)
        .order_by(SharedSession.created_at.desc(), SharedSession.id.desc())
        .offset(keep)
    )
    stale = list(await session.scalars(older))
    if stale:
        await session.execute(delete(SharedSession).where(SharedSession.id.in_(stale)))
    return row


async def find(session: AsyncSession, caller: str, session_id: str) -> SharedSession | None:
    """A session of this caller's."""
    return await session.scalar(
        select(SharedSession).where(SharedSession.id == session_id, SharedSession.caller == caller)
    )


async def take(session: AsyncSession, caller: str, count: int, limit: int | None) -> bool:
    """Use up evaluations if the caller has so many left; atomic, whoever else takes some.

    Returns:
        Whether they were left; if not, nothing was taken.
    """
    opened = insert_into(session, Quota).values(caller=caller, evaluations=0)
    await session.execute(opened.on_conflict_do_nothing())
    taking = update(Quota).where(Quota.caller == caller)
    if limit is not None:
        taking = taking.where(Quota.evaluations + count <= limit)
    taken = taking.values(evaluations=Quota.evaluations + count).returning(Quota.caller)
    return (await session.execute(taken)).first() is not None


async def give_back(session: AsyncSession, caller: str, count: int) -> None:
    """Return evaluations that were taken and not made."""
    await session.execute(
        update(Quota).where(Quota.caller == caller).values(evaluations=Quota.evaluations - count)
    )


async def used(session: AsyncSession, caller: str) -> int:
    """Evaluations that a caller has used up."""
    return (
        await session.scalar(
            select(func.coalesce(func.sum(Quota.evaluations), 0)).where(Quota.caller == caller)
        )
        or 0
    )
