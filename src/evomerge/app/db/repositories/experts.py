"""Experts: one row an adapter that was checked, or an API that was probed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.engine import epoch
from evomerge.app.db.errors import NameTakenError
from evomerge.app.db.ids import EXPERT, new_id
from evomerge.app.db.models import Expert, Pool, PoolMember


@dataclass(frozen=True)
class NewExpert:
    """What is known of an expert before it has a row."""

    name: str
    base: str | None
    path: str | None
    content_hash: str
    info: Mapping[str, Any]
    meta: Mapping[str, str]
    kind: str = "lora"
    definition: Mapping[str, Any] | None = None


async def add(session: AsyncSession, experts: Sequence[NewExpert]) -> list[Expert]:
    """Insert experts, in order.

    Raises:
        NameTakenError: one of the names is taken; the transaction must be given up.
    """
    rows = [{"id": new_id(EXPERT), **vars(expert)} for expert in experts]
    try:
        added = await session.scalars(
            insert(Expert)
            .values(created_at=epoch())
            .returning(Expert, sort_by_parameter_order=True),
            rows,
        )
        return list(added)
    except IntegrityError as error:
        raise NameTakenError("expert", ", ".join(expert.name for expert in experts)) from error


async def by_names(session: AsyncSession, names: Sequence[str]) -> dict[str, Expert]:
    """The experts that have these names, by name."""
    found = await session.scalars(select(Expert).where(Expert.name.in_(names)))
    return {expert.name: expert for expert in found}


async def newest_of_kind(session: AsyncSession, kind: str, limit: int = 200) -> list[Expert]:
    """The experts of a kind that were registered last."""
    query = select(Expert).where(Expert.kind == kind).order_by(Expert.created_at.desc())
    return list(await session.scalars(query.limit(limit)))


async def set_info(session: AsyncSession, expert_id: str, info: Mapping[str, Any]) -> None:
    """Replace what is known of an expert."""
    await session.execute(update(Expert).where(Expert.id == expert_id).values(info=dict(info)))


async def pools_of(session: AsyncSession, expert_id: str, limit: int = 5) -> list[str]:
    """Names of pools that an expert is in."""
    query = (
        select(Pool.name)
        .join(PoolMember, PoolMember.pool_id == Pool.id)
        .where(PoolMember.expert_id == expert_id)
        .distinct()
        .order_by(Pool.name)
        .limit(limit)
    )
    return list(await session.scalars(query))


async def remove(session: AsyncSession, expert_id: str) -> None:
    """Delete the row alone.

    Raises:
        sqlalchemy.exc.IntegrityError: a pool has come to hold it meanwhile.
    """
    await session.execute(delete(Expert).where(Expert.id == expert_id))
