"""Pools: lists of experts over one base, also whole folders of adapters at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.models import Expert as ExpertRow
from evomerge.app.db.models import Forest
from evomerge.app.db.models import Pool as PoolRow
from evomerge.app.db.repositories import experts, pools
from evomerge.app.db.repositories.experts import NewExpert
from evomerge.app.db.repositories.lookup import find, newest
from evomerge.app.errors import ConflictError, Detail, InvalidRequestError
from evomerge.app.schemas.base import Deleted
from evomerge.app.schemas.pools import Pool, PoolCreate, PoolMember, PoolPage
from evomerge.app.services.adapters import check_adapter
from evomerge.app.services.context import Context
from evomerge.app.services.experts import is_same, new_expert, taken
from evomerge.app.services.names import name_from, refuse_name_of
from evomerge.app.services.once import Answer, Make
from evomerge.app.services.references import find_experts, known
from evomerge.app.services.roots import folders_below_roots

_NAMED = 10


async def check_folders(context: Context, pattern: str, base: str | None) -> list[NewExpert]:
    """Every adapter that a pattern of folders names, in order of their names.

    Raises:
        InvalidRequestError: folders are refused; each of them is named.
    """
    limit = context.settings.max_pool_experts
    folders = folders_below_roots(pattern, context.settings.roots, limit)
    return await asyncio.to_thread(_check_folders, context, folders, base)


def creation(body: PoolCreate, found: Sequence[NewExpert], max_experts: int) -> Make:
    """What makes the rows; the same experts under the same name are the same pool.

    Args:
        found: the adapters of the body's folders; none where it lists experts.
    """

    async def make(session: AsyncSession) -> Answer:
        if body.experts is not None:
            members = await find_experts(session, body.experts)
        else:
            members = await _register(session, found)
        if len(members) > max_experts:
            raise InvalidRequestError(
                f"experts: {len(members)} of them, the service takes {max_experts}",
                param="experts",
            )
        ids = [(member.id, member.name) for member in members]
        there = await find(session, PoolRow, body.name)
        if there is not None and there.name == body.name:
            if (await pools.member_names(session, [there.id]))[there.id] != ids:
                raise ConflictError(
                    f"name={body.name!r}: {there.id} has this name and other experts",
                    param="name",
                    code="name_taken",
                )
            return _answer(200, there, ids)
        await refuse_name_of(session, Forest, body.name)
        row = await pools.add(
            session,
            name=body.name,
            base=members[0].base,
            expert_ids=[member.id for member in members],
            meta=body.metadata,
        )
        return _answer(201, row, ids)

    return make


async def get(context: Context, key: str) -> Pool:
    """A pool by id or name.

    Raises:
        NotFoundError: there is none.
    """
    async with context.database.read() as session:
        row = await known(session, PoolRow, key)
        members = await pools.member_names(session, [row.id])
    return _resource(row, members[row.id])


async def page(context: Context, after: str | None, limit: int) -> PoolPage:
    """Pools, newest first."""
    async with context.database.read() as session:
        rows, more = await newest(session, PoolRow, after=after, limit=limit)
        members = await pools.member_names(session, [row.id for row in rows])
    return PoolPage(data=[_resource(row, members[row.id]) for row in rows], has_more=more)


async def delete(context: Context, key: str) -> Deleted:
    """Forget a pool; its experts stay.

    Raises:
        NotFoundError: there is none.
    """
    async with context.database.write() as session:
        row = await known(session, PoolRow, key)
        await pools.remove(session, row.id)
    return Deleted(id=row.id, object="pool")


def _check_folders(context: Context, folders: Sequence[Path], base: str | None) -> list[NewExpert]:
    found: dict[str, NewExpert] = {}
    wrong: list[Detail] = []
    for folder in folders:
        try:
            name = name_from(folder.name)
            checked = check_adapter(folder, base, context.bases)
            if name in found:
                raise InvalidRequestError(f"its name {name!r} is that of {found[name].path} too")
            if found and checked.base != (first := next(iter(found.values()))).base:
                raise InvalidRequestError(
                    f"is over base {checked.base!r}, {first.name!r} over {first.base!r}"
                )
        except InvalidRequestError as error:
            wrong.append(Detail(f"{folder}: {error.message}", "folders"))
        else:
            found[name] = new_expert(name, checked, {})
    _refuse(wrong)
    return list(found.values())


async def _register(session: AsyncSession, found: Sequence[NewExpert]) -> list[ExpertRow]:
    """The experts of these adapters in order, those that are missing made now."""
    there = await experts.by_names(session, [new.name for new in found])
    _refuse(
        Detail(f"{new.path}: {taken(there[new.name])}", "folders")
        for new in found
        if new.name in there and not is_same(there[new.name], new)
    )
    missing = [new for new in found if new.name not in there]
    if missing:
        there |= {row.name: row for row in await experts.add(session, missing)}
    return [there[new.name] for new in found]


def _refuse(faults: Iterable[Detail]) -> None:
    """Raise one error that names every fault, if there is any."""
    wrong = list(faults)
    if not wrong:
        return
    message = "; ".join(fault.message for fault in wrong[:_NAMED])
    if len(wrong) > _NAMED:
        message += f"; and {len(wrong) - _NAMED} more folders"
    raise InvalidRequestError(message, param="folders", code="invalid_adapter", details=wrong)


def _resource(row: PoolRow, members: Sequence[tuple[str, str]]) -> Pool:
    return Pool(
        id=row.id,
        name=row.name,
        base=row.base,
        experts=[PoolMember(id=expert_id, name=name) for expert_id, name in members],
        metadata=row.meta,
        created_at=row.created_at,
    )


def _answer(status: int, row: PoolRow, members: Sequence[tuple[str, str]]) -> Answer:
    return Answer(status, _resource(row, members).model_dump(mode="json"), row.id)
