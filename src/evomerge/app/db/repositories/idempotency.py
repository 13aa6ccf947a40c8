"""Answers already given to a POST, by the key that its client chose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.engine import epoch
from evomerge.app.db.models import IdempotencyKey


async def find(session: AsyncSession, key: str, route: str) -> IdempotencyKey | None:
    """The answer given to this key on this route, if any."""
    return await session.scalar(
        select(IdempotencyKey).where(IdempotencyKey.key == key, IdempotencyKey.route == route)
    )


async def add(
    session: AsyncSession,
    *,
    key: str,
    route: str,
    body_hash: str,
    resource_id: str,
    status: int,
    response: Mapping[str, Any],
) -> None:
    """Keep an answer, in the transaction that made what it tells of.

    Raises:
        sqlalchemy.exc.IntegrityError: the same key was answered meanwhile; give up the
            transaction, and what it made with it.
    """
    await session.execute(
        insert(IdempotencyKey).values(
            key=key,
            route=route,
            body_hash=body_hash,
            resource_id=resource_id,
            status=status,
            response=dict(response),
            created_at=epoch(),
        )
    )
