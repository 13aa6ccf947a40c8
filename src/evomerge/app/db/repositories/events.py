"""A job's history: messages for people and metrics for plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.engine import epoch
from evomerge.app.db.models import Event

Level = Literal["info", "warn", "error"]
Type = Literal["message", "metrics"]


async def append(
    session: AsyncSession,
    job_id: str,
    message: str,
    *,
    level: Level = "info",
    type: Type = "message",
    data: Mapping[str, Any] | None = None,
) -> None:
    """Add one event, dated by the database. `data` must be JSON without NaN."""
    await session.execute(
        insert(Event).values(
            job_id=job_id,
            created_at=epoch(),
            level=level,
            type=type,
            message=message,
            data=dict(data or {}),
        )
    )


async def page(
    session: AsyncSession, job_id: str, *, after: int = 0, limit: int = 100
) -> Sequence[Event]:
    """Events whose id is above `after`, oldest first, at most `limit`.

    A job has one writer at a time, so ids appear in order: a reader that goes on from the last
    id it saw misses none.
    """
    query = (
        select(Event)
        .where(Event.job_id == job_id, Event.id > after)
        .order_by(Event.id)
        .limit(limit)
    )
    return (await session.scalars(query)).all()
