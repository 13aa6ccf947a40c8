"""Finding rows: by id or name, and page by page, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, case, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.interfaces import ORMOption

from evomerge.app.db.errors import UnknownCursorError
from evomerge.app.db.models import Dataset, Expert, Forest, Job, Pool

Named = TypeVar("Named", Expert, Pool, Dataset, Forest)
Dated = TypeVar("Dated", Expert, Pool, Dataset, Forest, Job)


async def find(session: AsyncSession, table: type[Named], key: str) -> Named | None:
    """The row that has this id, or else this name."""
    found = await find_all(session, table, [key])
    return found.get(key)


async def find_all(
    session: AsyncSession, table: type[Named], keys: Sequence[str]
) -> dict[str, Named]:
    """Rows by the id or name that they were asked by; what is unknown is left out."""
    query = (
        select(table)
        .where(or_(table.id.in_(keys), table.name.in_(keys)))
        # Ids come last, so that a name that looks like another row's id never hides that row.
        .order_by(case((table.id.in_(keys), 1), else_=0))
    )
    rows: dict[str, Named] = {}
    for row in await session.scalars(query):
        rows[row.name] = row
    for row in list(rows.values()):
        rows[row.id] = row
    return {key: rows[key] for key in keys if key in rows}


async def newest(
    session: AsyncSession,
    table: type[Dated],
    *where: ColumnElement[bool],
    after: str | None,
    limit: int,
    options: Sequence[ORMOption] = (),
) -> tuple[list[Dated], bool]:
    """At most `limit` rows, newest first, from behind the row `after`; whether there are more.

    The place is found by its key and not by counting, so page 100 is as fast as page 1.

    Raises:
        UnknownCursorError: no row has the id `after`.
    """
    place: tuple[Any, Any] = (table.created_at, table.id)
    query = select(table).where(*where).options(*options)
    if after is not None:
        since = await _created_at(session, table, after)
        query = query.where(tuple_(*place) < tuple_(since, after))
    query = query.order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)
    rows = list(await session.scalars(query))
    return rows[:limit], len(rows) > limit


async def _created_at(session: AsyncSession, table: type[Dated], row_id: str) -> float:
    at = await session.scalar(select(table.created_at).where(table.id == row_id))
    if at is None:
        raise UnknownCursorError(row_id)
    return at
