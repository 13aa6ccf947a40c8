"""What still refers to stored content, of experts, datasets and ELMs; who may add a reference."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Text, and_, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.models import Dataset, Expert, Forest, ForestElm, Job
from evomerge.app.db.repositories.queue import FINISHED

# Any number that no other advisory lock of this database has.
_LOCK = 4_072_511_909
_COLUMNS = (
    Expert.content_hash,
    Dataset.content_hash,
    Forest.seed_hash,
    ForestElm.content_hash,
)
# Jobs whose checkpoint belongs to nobody else.
_MAKING = ("train_seed", "average")


async def hold(session: AsyncSession, *, alone: bool = False) -> None:
    """Keep stored files as they are until this write transaction ends.

    Who adds a row or a job that names a file holds them together with others; who removes files
    holds them alone. On SQLite write transactions are alone anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        lock = func.pg_advisory_xact_lock if alone else func.pg_advisory_xact_lock_shared
        await session.execute(select(lock(_LOCK)))


async def used(session: AsyncSession, hashes: Sequence[str]) -> set[str]:
    """Those of the content hashes that an expert, a dataset, a forest or a job still needs.

    A job needs its inputs until it has ended; one whose result is made of the experts themselves
    (space: output), for ever. A seed or an average that a job made is its result, for ever too;
    an ELM is its forest's.
    """
    found: set[str] = set()
    for column in _COLUMNS:
        found.update(await session.scalars(select(column).where(column.in_(hashes))))
    lasting = and_(Job.status == "succeeded", Job.spec["space"].as_string() == "output")
    needing = or_(Job.status.not_in(FINISHED), lasting)
    for one in set(hashes) - found:
        held = or_(
            and_(needing, cast(Job.inputs, Text).contains(one)),
            and_(
                Job.kind.in_(_MAKING), Job.result["checkpoint"]["content_hash"].as_string() == one
            ),
        )
        query = select(Job.id).where(held).limit(1)
        if await session.scalar(query) is not None:
            found.add(one)
    return found
