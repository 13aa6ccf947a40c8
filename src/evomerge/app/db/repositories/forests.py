"""Forests: a row each, and one for every ELM in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Text, cast, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.engine import epoch
from evomerge.app.db.errors import NameTakenError, UnknownCursorError
from evomerge.app.db.ids import ELM, FOREST, new_id
from evomerge.app.db.models import Forest, ForestElm, Job
from evomerge.app.db.repositories.queue import FINISHED
from evomerge.app.ensembles import Ensemble


@dataclass(frozen=True)
class NewForest:
    """What is known of a forest before it has a row."""

    name: str
    seed_path: str
    seed_hash: str
    seed_lineage: Mapping[str, Any]
    vocabulary_hash: str
    architecture: Mapping[str, Any]
    ensemble: Ensemble
    meta: Mapping[str, str]


@dataclass(frozen=True)
class NewElm:
    """What is known of an ELM before it has a row."""

    name: str
    domain: str
    path: str
    content_hash: str
    lineage: Mapping[str, Any]
    tokens: int
    own_tokens: int
    job_id: str | None = None


async def add(session: AsyncSession, new: NewForest) -> Forest:
    """Insert a forest that has no ELM yet.

    Raises:
        NameTakenError: the name is taken; the transaction must be given up.
    """
    row = {**vars(new), "id": new_id(FOREST), "ensemble": new.ensemble.stored()}
    query = insert(Forest).values(created_at=epoch(), **row).returning(Forest)
    try:
        return (await session.scalars(query)).one()
    except IntegrityError as error:
        raise NameTakenError("forest", new.name) from error


async def lock(session: AsyncSession, forest_id: str) -> Forest | None:
    """The forest's row as it stands, which nobody else changes until this transaction ends.

    Whoever adds or removes ELMs holds it, so that two of them who come at once take turns.
    """
    query = select(Forest).where(Forest.id == forest_id).with_for_update()
    return await session.scalar(query.execution_options(populate_existing=True))


async def add_elm(session: AsyncSession, forest: Forest, new: NewElm) -> ForestElm:
    """Append an ELM to a forest that `lock` gave; the prior makes room for it.

    Raises:
        NameTakenError: an ELM of the forest has the name; the transaction must be given up.
    """
    count, last = (
        await session.execute(
            select(func.count(), func.max(ForestElm.position)).where(
                ForestElm.forest_id == forest.id
            )
        )
    ).one()
    position = 0 if last is None else last + 1
    row = {**vars(new), "id": new_id(ELM), "forest_id": forest.id, "position": position}
    query = insert(ForestElm).values(created_at=epoch(), **row).returning(ForestElm)
    try:
        elm = (await session.scalars(query)).one()
    except IntegrityError as error:
        raise NameTakenError("ELM", new.name) from error
    settings = Ensemble.of(forest.ensemble).with_elm(new.name, count + 1)
    await set_ensemble(session, forest.id, settings)
    return elm


async def elms(session: AsyncSession, forest_id: str) -> list[ForestElm]:
    """The ELMs of a forest, in order."""
    return (await elms_of(session, [forest_id]))[forest_id]


async def elms_of(session: AsyncSession, forest_ids: Sequence[str]) -> dict[str, list[ForestElm]]:
    """The ELMs of each forest, in order."""
    query = (
        select(ForestElm)
        .where(ForestElm.forest_id.in_(forest_ids))
        .order_by(ForestElm.forest_id, ForestElm.position)
    )
    found: dict[str, list[ForestElm]] = {forest_id: [] for forest_id in forest_ids}
    for elm in await session.scalars(query):
        found[elm.forest_id].append(elm)
    return found


async def page_of_elms(
    session: AsyncSession, forest_id: str, *, after: str | None, limit: int
) -> tuple[list[ForestElm], bool]:
    """At most `limit` ELMs in order, from behind the one of id `after`; whether there are more.

    Raises:
        UnknownCursorError: the forest has no ELM of the id `after`.
    """
    query = select(ForestElm).where(ForestElm.forest_id == forest_id)
    if after is not None:
        since = await session.get(ForestElm, after)
        if since is None or since.forest_id != forest_id:
            raise UnknownCursorError(after)
        query = query.where(ForestElm.position > since.position)
    rows = list(await session.scalars(query.order_by(ForestElm.position).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


async def remove_elm(session: AsyncSession, forest: Forest, elm: ForestElm, left: int) -> None:
    """Delete an ELM of a forest that `lock` gave; the prior goes to the others.

    Args:
        left: how many ELMs the forest has without it, one at least.
    """
    await session.execute(delete(ForestElm).where(ForestElm.id == elm.id))
    settings = Ensemble.of(forest.ensemble).without_elm(elm.name, left)
    await set_ensemble(session, forest.id, settings)


async def set_ensemble(session: AsyncSession, forest_id: str, ensemble: Ensemble) -> None:
    """Replace how a forest's ELMs speak together."""
    query = update(Forest).where(Forest.id == forest_id).values(ensemble=ensemble.stored())
    await session.execute(query.execution_options(synchronize_session="fetch"))


async def set_metadata(session: AsyncSession, forest_id: str, meta: Mapping[str, str]) -> None:
    """Replace what a client has noted of a forest."""
    query = update(Forest).where(Forest.id == forest_id).values(meta=dict(meta))
    await session.execute(query.execution_options(synchronize_session="fetch"))


async def jobs_using(session: AsyncSession, forest_id: str, limit: int = 5) -> list[str]:
    """Ids of jobs that have this forest among their inputs and have not finished."""
    query = (
        select(Job.id)
        .where(Job.status.not_in(FINISHED), cast(Job.inputs, Text).contains(forest_id))
        .order_by(Job.created_at, Job.id)
        .limit(limit)
    )
    return list(await session.scalars(query))


async def remove(session: AsyncSession, forest_id: str) -> None:
    """Delete a forest and the rows of its ELMs."""
    await session.execute(delete(Forest).where(Forest.id == forest_id))
