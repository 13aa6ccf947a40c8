"""The ELMs of a forest: added where they lie, listed, removed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.models import Forest as ForestRow
from evomerge.app.db.models import ForestElm as ElmRow
from evomerge.app.db.repositories import forests, references
from evomerge.app.db.repositories.forests import NewElm
from evomerge.app.errors import ConflictError, InvalidRequestError, NotFoundError
from evomerge.app.schemas.base import Deleted
from evomerge.app.schemas.forest_elms import Elm, ElmCreate, ElmPage
from evomerge.app.services import leftovers
from evomerge.app.services.checkpoints import Seed, check_elm
from evomerge.app.services.context import Context
from evomerge.app.services.names import name_from
from evomerge.app.services.once import Answer, Make
from evomerge.app.services.references import known
from evomerge.app.services.roots import folder_below_roots
from evomerge.app.services.storage import check_stored


async def check(context: Context, forest: str, body: ElmCreate) -> tuple[ForestRow, NewElm]:
    """The forest, and the ELM that a body asks for, read whole and held against its seed.

    Raises:
        NotFoundError: no such forest.
        InvalidRequestError: the checkpoint is refused; names the field and what is at fault.
    """
    async with context.database.read() as session:
        row = await known(session, ForestRow, forest)
    seed = Seed.of(row)
    return row, await new_elm(context, seed, body)


async def new_elm(context: Context, seed: Seed, body: ElmCreate, param: str = "") -> NewElm:
    """The row to be of an ELM of this seed. Raises as `check`.

    Args:
        param: what stands before the names of the body's fields, such as "elms.3.".
    """
    if body.path is None:
        checked = seed.as_elm()
    else:
        folder = folder_below_roots(body.path, context.settings.roots, f"{param}path")
        checked = await asyncio.to_thread(check_elm, folder, seed, f"{param}path")
    domain = body.domain or checked.lineage.domain
    if domain is None:
        raise InvalidRequestError(
            f"{param}domain: its elm.json names none; give one", param=f"{param}domain"
        )
    return NewElm(
        name=body.name or name_from(domain, f"{param}name"),
        domain=domain,
        path=str(checked.folder),
        content_hash=checked.content_hash,
        lineage=asdict(checked.lineage),
        tokens=checked.lineage.tokens,
        own_tokens=checked.lineage.own_tokens,
    )


def creation(forest_id: str, new: NewElm, max_elms: int) -> Make:
    """What makes the row; the same content under the same name is the same ELM."""

    async def make(session: AsyncSession) -> Answer:
        await references.hold(session)
        forest = await locked(session, forest_id)
        members = await forests.elms(session, forest.id)
        there = next((elm for elm in members if elm.name == new.name), None)
        if there is not None:
            if not is_same(there, new):
                raise ConflictError(
                    f"name={new.name!r}: {there.id} has this name and other weights or another "
                    "domain",
                    param="name",
                    code="name_taken",
                )
            return _answer(200, there)
        check_room(len(members) + 1, max_elms)
        check_stored(new.path)
        return _answer(201, await forests.add_elm(session, forest, new))

    return make


async def page(context: Context, forest: str, after: str | None, limit: int) -> ElmPage:
    """The ELMs of a forest, in order.

    Raises:
        NotFoundError: no such forest.
        UnknownCursorError: it has no ELM of the id `after`.
    """
    async with context.database.read() as session:
        row = await known(session, ForestRow, forest)
        rows, more = await forests.page_of_elms(session, row.id, after=after, limit=limit)
    return ElmPage(data=[Elm.model_validate(row) for row in rows], has_more=more)


async def get(context: Context, forest: str, key: str) -> Elm:
    """One ELM, by id or name.

    Raises:
        NotFoundError: no such forest, or no such ELM in it.
    """
    async with context.database.read() as session:
        row = await known(session, ForestRow, forest)
        return Elm.model_validate(_one(await forests.elms(session, row.id), key))


async def delete(context: Context, forest: str, key: str) -> Deleted:
    """Take an ELM out; the others weigh what they weighed to each other.

    Its files, if the service stored them, go with the last that needs them.

    Raises:
        NotFoundError: no such forest, or no such ELM in it.
        ConflictError: it is the last one.
    """
    async with context.database.write() as session:
        row = await locked(session, (await known(session, ForestRow, forest)).id)
        members = await forests.elms(session, row.id)
        elm = _one(members, key)
        if len(members) == 1:
            raise ConflictError(
                f"{elm.name!r} is the last ELM of forest {row.name!r}; delete the forest instead",
                code="last_elm",
            )
        await forests.remove_elm(session, row, elm, len(members) - 1)
    await leftovers.clear(context, elm.path)
    return Deleted(id=elm.id, object="forest.elm")


def is_same(there: ElmRow, new: NewElm) -> bool:
    """Whether an ELM of the same name is the same ELM."""
    return (there.content_hash, there.domain) == (new.content_hash, new.domain)


def check_room(elms: int, most: int) -> None:
    """Make sure that a forest may have so many ELMs.

    Raises:
        InvalidRequestError: it may not.
    """
    if elms > most:
        raise InvalidRequestError(
            f"elms: {elms} of them, the service takes {most}", param="elms", code="too_many"
        )


async def locked(session: AsyncSession, forest_id: str) -> ForestRow:
    """The forest, nobody else changing it. Raises NotFoundError: it has gone meanwhile."""
    row = await forests.lock(session, forest_id)
    if row is None:
        raise NotFoundError("forest", forest_id)
    return row


def _one(members: Sequence[ElmRow], key: str) -> ElmRow:
    """The ELM of this name, or else of this id. Raises NotFoundError: there is none."""
    for elm in sorted(members, key=lambda elm: elm.name != key):
        if key in (elm.name, elm.id):
            return elm
    raise NotFoundError("ELM", key)


def _answer(status: int, row: ElmRow) -> Answer:
    return Answer(status, Elm.model_validate(row).model_dump(mode="json"), row.id)
