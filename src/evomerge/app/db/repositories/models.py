"""The names under which the models are called that jobs made."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from evomerge.app.db.engine import epoch
from evomerge.app.db.models import Expert, Job, MergedModel
from evomerge.app.db.repositories.answers import insert_into

# Jobs whose results are called.
SERVED = ("merge", "average")


async def name(session: AsyncSession, model: str, job_id: str) -> None:
    """Give a job's merge a name; another job's loses it."""
    query = insert_into(session, MergedModel).values(name=model, job_id=job_id, created_at=epoch())
    await session.execute(
        query.on_conflict_do_update(
            index_elements=["name"],
            set_={each: query.excluded[each] for each in ("job_id", "created_at")},
        )
    )


async def find(session: AsyncSession, key: str) -> Job | None:
    """The job of this id, or else the one whose merge has this name; finished or not."""
    by_id = await session.get(Job, key, options=[defer(Job.result)])
    if by_id is not None:
        return by_id
    query = (
        select(Job)
        .join(MergedModel, MergedModel.job_id == Job.id)
        .where(MergedModel.name == key)
        .options(defer(Job.result))
    )
    return (await session.scalars(query)).one_or_none()


async def named(session: AsyncSession) -> list[tuple[MergedModel, Job]]:
    """Every name with its job, newest first."""
    query = (
        select(MergedModel, Job)
        .join(Job, MergedModel.job_id == Job.id)
        .order_by(MergedModel.created_at.desc(), MergedModel.name)
        .options(defer(Job.result))
    )
    return [(model, job) for model, job in (await session.execute(query)).all()]


async def unnamed(session: AsyncSession, limit: int) -> list[Job]:
    """The newest jobs that succeeded and are called by their ids alone."""
    query = (
        select(Job)
        .where(
            Job.kind.in_(SERVED),
            Job.status == "succeeded",
            Job.id.not_in(select(MergedModel.job_id)),
        )
        .order_by(Job.finished_at.desc(), Job.id)
        .limit(limit)
        .options(defer(Job.result))
    )
    return list(await session.scalars(query))


async def experts(session: AsyncSession, limit: int) -> list[Expert]:
    """The newest experts whose weights are here."""
    query = (
        select(Expert)
        .where(Expert.kind == "lora")
        .order_by(Expert.created_at.desc(), Expert.id)
        .limit(limit)
    )
    return list(await session.scalars(query))


async def result(session: AsyncSession, job_id: str) -> dict[str, Any]:
    """What a job found and made; empty while there is nothing."""
    return await session.scalar(select(Job.result).where(Job.id == job_id)) or {}
