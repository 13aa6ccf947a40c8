"""Names that pools and forests share, for a forest is a pool of whole models."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.models import Forest, Pool

# Any number that no other advisory lock of this database has.
_LOCK = 4_072_511_910


async def hold(session: AsyncSession) -> None:
    """Let nobody else give a pool or a forest a name until this write transaction ends.

    On SQLite write transactions are alone anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(select(func.pg_advisory_xact_lock(_LOCK)))


async def owner(session: AsyncSession, table: type[Pool] | type[Forest], name: str) -> str | None:
    """The id of the pool or forest of this name."""
    return await session.scalar(select(table.id).where(table.name == name))
