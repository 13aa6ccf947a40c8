"""What still refers to the content of experts and datasets, and who may add a reference."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Text, and_, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.models import Dataset, Expert, Job
from evomerge.app.db.repositories.queue import FINISHED

# Any number that no other advisory lock of this database has.
_LOCK = 4_072_511_909


async def hold(session: AsyncSession, *, alone: bool = False) -> None:
    """Keep stored files as they are until this write transaction ends.

    Who adds a row or a job that names a file holds them together with others; who removes files
    holds them alone. On SQLite write transactions are alone anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        lock = func.pg_advisory_xact_lock if alone else func.pg_advisory_xact_lock_shared
        await session.execute(select(lock(_LOCK)))


async def used(session: AsyncSession, hashes: Sequence[str]) -> set[str]:
    """Those of the content hashes that an expert, a dataset or a job still needs.

    A job needs its inputs until it has ended; one whose result is made of the experts themselves
    (space: output), for ever.
    """
    found: set[str] = set()
    for column in (Expert.content_hash, Dataset.content_hash):
        found.update(await session.scalars(select(column).where(column.in_(hashes))))
    lasting = and_(Job.status == "succeeded", Job.spec["space"].as_string() == "output")
    needing = or_(Job.status.not_in(FINISHED), lasting)
    for one in set(hashes) - found:
        query = select(Job.id).where(needing, cast(Job.inputs, Text).contains(one)).limit(1)
        if await session.scalar(query) is not None:
            found.add(one)
    return found
