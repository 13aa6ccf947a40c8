"""Merge jobs as clients see them; how they are run is `queue`'s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from evomerge.app.db.engine import epoch
from evomerge.app.db.ids import MERGE_JOB, new_id
from evomerge.app.db.models import Evaluation, Job
from evomerge.app.db.repositories.lookup import newest

MERGE = "merge"


@dataclass(frozen=True)
class Filters:
    """What a list of jobs is narrowed to; None and empty narrow nothing."""

    status: str | None = None
    name: str | None = None
    metadata: Mapping[str, str] | None = None


async def add(
    session: AsyncSession,
    *,
    name: str | None,
    spec: Mapping[str, Any],
    inputs: Mapping[str, Any],
    meta: Mapping[str, str],
) -> Job:
    """Queue a job."""
    query = (
        insert(Job)
        .returning(Job)
        .values(
            id=new_id(MERGE_JOB),
            kind=MERGE,
            name=name,
            status="queued",
            spec=dict(spec),
            inputs=dict(inputs),
            meta=dict(meta),
            progress={},
            lease_token=0,
            attempts=0,
            seconds_used=0.0,
            created_at=epoch(),
        )
    )
    return (await session.scalars(query)).one()


async def find(session: AsyncSession, job_id: str) -> Job | None:
    """The job of this id."""
    return await session.get(Job, job_id)


async def status(session: AsyncSession, job_id: str) -> str | None:
    """Where the job stands; None where there is none."""
    return await session.scalar(select(Job.status).where(Job.id == job_id))


async def page(
    session: AsyncSession, filters: Filters, *, after: str | None, limit: int
) -> tuple[list[Job], bool]:
    """Jobs, newest first, and whether there are more. Results stay in the database.

    Raises:
        UnknownCursorError: no job has the id `after`.
    """
    where = [Job.kind == MERGE]
    if filters.status is not None:
        where.append(Job.status == filters.status)
    if filters.name is not None:
        where.append(Job.name == filters.name)
    for key, value in (filters.metadata or {}).items():
        where.append(Job.meta[key].as_string() == value)
    return await newest(session, Job, *where, after=after, limit=limit, options=[defer(Job.result)])


async def throughput(session: AsyncSession, base: str, jobs: int = 5) -> float | None:
    """Tokens a second of the newest jobs over a base; None where none has scored anything."""
    recent = (
        select(Job.id)
        .where(Job.inputs["base"].as_string() == base, Job.started_at.is_not(None))
        .order_by(Job.created_at.desc())
        .limit(jobs)
    )
    query = select(func.sum(Evaluation.tokens), func.sum(Evaluation.seconds)).where(
        Evaluation.job_id.in_(recent)
    )
    tokens, seconds = (await session.execute(query)).one()
    return float(tokens) / float(seconds) if tokens and seconds else None
