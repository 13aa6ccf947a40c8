"""Experts: adapters registered where they lie, or uploaded and kept by content."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.models import Expert as ExpertRow
from evomerge.app.db.repositories import experts, references
from evomerge.app.db.repositories.experts import NewExpert
from evomerge.app.db.repositories.lookup import newest
from evomerge.app.errors import ConflictError
from evomerge.app.schemas.base import Deleted
from evomerge.app.schemas.experts import Expert, ExpertFields, ExpertPage
from evomerge.app.services import leftovers
from evomerge.app.services.adapters import CheckedAdapter, check_adapter
from evomerge.app.services.bases import Bases
from evomerge.app.services.context import Context
from evomerge.app.services.names import name_from
from evomerge.app.services.once import Answer, Make
from evomerge.app.services.references import known
from evomerge.app.services.roots import folder_below_roots
from evomerge.app.services.storage import check_stored, scratch, settle

# What PEFT calls the files, by the form's fields.
FILES: Mapping[str, str] = {
    "config": "adapter_config.json",
    "weights": "adapter_model.safetensors",
}


async def check_path(context: Context, path: str, base: str | None) -> CheckedAdapter:
    """The adapter in a folder that the service can read.

    Raises:
        InvalidRequestError: the folder lies outside the roots, or the adapter is refused.
    """
    folder = folder_below_roots(path, context.settings.roots)
    return await asyncio.to_thread(check_adapter, folder, base, context.bases)


async def store(
    context: Context, files: Mapping[str, BinaryIO], base: str | None
) -> CheckedAdapter:
    """An uploaded adapter, kept below the data folder under its content's hash.

    Raises:
        InvalidRequestError: the adapter is refused; nothing is kept.
        StorageFullError: no room.
    """
    parent = (context.settings.data_dir / "experts").absolute()
    return await asyncio.to_thread(_store, parent, files, base, context.bases)


def creation(new: NewExpert) -> Make:
    """What makes the row; the same thing under the same name is the same expert."""

    async def make(session: AsyncSession) -> Answer:
        await references.hold(session)
        there = (await experts.by_names(session, [new.name])).get(new.name)
        if there is None:
            check_stored(new.path)
            return _answer(201, (await experts.add(session, [new]))[0])
        if not is_same(there, new):
            raise ConflictError(taken(there), param="name", code="name_taken")
        return _answer(200, there)

    return make


def named(fields: ExpertFields, checked: CheckedAdapter) -> NewExpert:
    """The row to be of a checked adapter, under its own name or its folder's.

    Raises:
        InvalidRequestError: it has neither.
    """
    return new_expert(fields.name or name_from(checked.folder.name), checked, fields.metadata)


def new_expert(name: str, checked: CheckedAdapter, meta: Mapping[str, str]) -> NewExpert:
    """The row to be of a checked adapter."""
    return NewExpert(
        name=name,
        base=checked.base,
        path=str(checked.folder),
        content_hash=checked.content_hash,
        info=checked.info,
        meta=meta,
    )


def is_same(there: ExpertRow, new: NewExpert) -> bool:
    """Whether an expert of the same name is the same expert."""
    return (there.kind, there.content_hash, there.base) == (new.kind, new.content_hash, new.base)


def taken(there: ExpertRow) -> str:
    """What to say of a name that another expert has."""
    what = "other weights or another base" if there.kind == "lora" else "is called otherwise"
    return f"name={there.name!r}: {there.id} has this name and {what}"


async def get(context: Context, key: str) -> Expert:
    """An expert by id or name.

    Raises:
        NotFoundError: there is none.
    """
    async with context.database.read() as session:
        row = await known(session, ExpertRow, key)
    return Expert.model_validate(row)


async def page(context: Context, after: str | None, limit: int) -> ExpertPage:
    """Experts, newest first."""
    async with context.database.read() as session:
        rows, more = await newest(session, ExpertRow, after=after, limit=limit)
    return ExpertPage(data=[Expert.model_validate(row) for row in rows], has_more=more)


async def delete(context: Context, key: str) -> Deleted:
    """Forget an expert. Its files, if the service stored them, go with the last that needs them.

    Raises:
        NotFoundError: there is none.
        ConflictError: a pool holds it.
    """
    try:
        async with context.database.write() as session:
            row = await known(session, ExpertRow, key)
            if pools := await experts.pools_of(session, row.id):
                names = ", ".join(map(repr, pools))
                raise ConflictError(f"expert {row.name!r} is in pool {names}", code="in_use")
            await experts.remove(session, row.id)
    except IntegrityError as error:
        raise ConflictError(f"expert {key!r} has come into a pool", code="in_use") from error
    await leftovers.clear(context, row.path)
    return Deleted(id=row.id, object="expert")


def _store(
    parent: Path, files: Mapping[str, BinaryIO], base: str | None, bases: Bases
) -> CheckedAdapter:
    with scratch(parent) as incoming:
        folder = incoming / "adapter"
        folder.mkdir()
        for field, stream in files.items():
            with (folder / FILES[field]).open("wb") as out:
                shutil.copyfileobj(stream, out)
        checked = check_adapter(folder, base, bases)
        # The hash covers the weights and what they mean over any base.
        target = parent / checked.content_hash
        settle(folder, target)
    return CheckedAdapter(target, checked.base, checked.content_hash, checked.info)


def _answer(status: int, row: ExpertRow) -> Answer:
    return Answer(status, Expert.model_validate(row).model_dump(mode="json"), row.id)
