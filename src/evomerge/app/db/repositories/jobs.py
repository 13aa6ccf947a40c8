"""Jobs as clients see them; how they are run is `queue`'s."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Text, and_, cast, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from evomerge.app.db.engine import epoch
from evomerge.app.db.ids import FOREST_JOB, MERGE_JOB, new_id
from evomerge.app.db.models import Evaluation, Job
from evomerge.app.db.repositories.lookup import newest
from evomerge.app.db.repositories.queue import FINISHED

MERGE = "merge"
TRAINING_KINDS = ("train_seed", "branch_train")
# What is done with forests.
FOREST_KINDS = (*TRAINING_KINDS, "cluster", "average", "evaluate")


@dataclass(frozen=True)
class Filters:
    """What a list of jobs is narrowed to; None and empty narrow nothing."""

    status: str | None = None
    name: str | None = None
    metadata: Mapping[str, str] | None = None


async def add(
    session: AsyncSession,
    *,
    kind: str,
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
            id=new_id(FOREST_JOB if kind in FOREST_KINDS else MERGE_JOB),
            kind=kind,
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


async def find(session: AsyncSession, kinds: Collection[str], job_id: str) -> Job | None:
    """The job of this id, if it is of one of the kinds."""
    job = await session.get(Job, job_id)
    return job if job is not None and job.kind in kinds else None


async def status(session: AsyncSession, kinds: Collection[str], job_id: str) -> str | None:
    """Where the job stands; None where there is none of these kinds."""
    return await session.scalar(select(Job.status).where(Job.id == job_id, Job.kind.in_(kinds)))


async def statuses(session: AsyncSession, job_ids: Collection[str]) -> dict[str, str]:
    """Where jobs stand, by id; what there is not is left out."""
    rows = await session.execute(select(Job.id, Job.status).where(Job.id.in_(job_ids)))
    return {row.id: row.status for row in rows}


async def page(
    session: AsyncSession,
    kinds: Collection[str],
    filters: Filters,
    *,
    after: str | None,
    limit: int,
) -> tuple[list[Job], bool]:
    """Jobs of these kinds, newest first, and whether there are more. Results stay in the database.

    Raises:
        UnknownCursorError: no job has the id `after`.
    """
    where: list[ColumnElement[bool]] = [Job.kind.in_(kinds)]
    if filters.status is not None:
        where.append(Job.status == filters.status)
    if filters.name is not None:
        where.append(Job.name == filters.name)
    for key, value in (filters.metadata or {}).items():
        where.append(Job.meta[key].as_string() == value)
    return await newest(session, Job, *where, after=after, limit=limit, options=[defer(Job.result)])


async def throughput(
    session: AsyncSession, over: Literal["base", "pool_id"], which: str | None, jobs: int = 5
) -> float | None:
    """Tokens a second of the newest jobs over a base, or over a pool or forest.

    Returns:
        None where none has scored anything.
    """
    recent = (
        select(Job.id)
        .where(Job.inputs[over].as_string() == which, Job.started_at.is_not(None))
        .order_by(Job.created_at.desc())
        .limit(jobs)
    )
    query = select(func.sum(Evaluation.tokens), func.sum(Evaluation.seconds)).where(
        Evaluation.job_id.in_(recent)
    )
    tokens, seconds = (await session.execute(query)).one()
    return float(tokens) / float(seconds) if tokens and seconds else None


async def training_pace(session: AsyncSession, parameters: int) -> float | None:
    """Tokens a second of the newest training of a model of this size; None where there is none."""
    pace = Job.progress["tokens_per_second"].as_float()
    query = (
        select(pace)
        .where(
            Job.kind.in_(TRAINING_KINDS),
            Job.inputs["parameters"].as_integer() == parameters,
            pace.is_not(None),
        )
        .order_by(Job.created_at.desc())
        .limit(1)
    )
    return await session.scalar(query)


async def trained(session: AsyncSession, job_ids: Collection[str], seed_hash: str) -> list[Job]:
    """Training jobs of these ids, and those that made the seed; without their results."""
    seed = and_(Job.kind == "train_seed", cast(Job.result, Text).contains(seed_hash))
    query = select(Job).where(or_(Job.id.in_(job_ids), seed)).options(defer(Job.result))
    return list(await session.scalars(query))


async def training_elm(session: AsyncSession, forest_id: str, elm: str) -> str | None:
    """The id of an unfinished job that trains an ELM of this name for a forest."""
    query = select(Job.id).where(
        Job.kind == "branch_train",
        Job.status.not_in(FINISHED),
        Job.inputs["elm"].as_string() == elm,
        Job.inputs["forest", "id"].as_string() == forest_id,
    )
    return await session.scalar(query.limit(1))
