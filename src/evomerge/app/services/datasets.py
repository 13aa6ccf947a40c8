"""Datasets: read, checked, brought into normal form, kept by content."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.models import Dataset as DatasetRow
from evomerge.app.db.repositories import datasets, references
from evomerge.app.db.repositories.datasets import NewDataset
from evomerge.app.db.repositories.lookup import find, newest
from evomerge.app.errors import (
    ConflictError,
    Detail,
    InvalidRequestError,
    NotFoundError,
    NotPossibleError,
)
from evomerge.app.schemas.base import Deleted
from evomerge.app.schemas.datasets import (
    Dataset,
    DatasetFields,
    DatasetPage,
    DatasetPreview,
)
from evomerge.app.services import leftovers
from evomerge.app.services.context import Context
from evomerge.app.services.names import name_from
from evomerge.app.services.once import Answer, Make
from evomerge.app.services.references import known
from evomerge.app.services.roots import below_roots
from evomerge.app.services.storage import check_stored, scratch, settle
from evomerge.evaluation import (
    DatasetError,
    DatasetKind,
    Example,
    Format,
    InvalidArgumentError,
    Limits,
    MissingLibraryError,
    from_jsonl,
    stream_examples,
)
from evomerge.evaluation.normal_form import to_line
from evomerge.evaluation.reading.records import format_of

_SHOWN_CHARACTERS = 2000


@dataclass(frozen=True)
class StoredRows:
    """A file of rows in normal form, and what was seen while it was written."""

    path: Path
    content_hash: str
    rows: int
    kind: DatasetKind
    info: Mapping[str, Any]


async def store_path(context: Context, path: str, format: Format | None) -> tuple[str, StoredRows]:
    """Read the dataset that the service finds at `path`; its file's name, and the rows.

    Raises:
        InvalidRequestError: it lies outside the roots, is too large, or rows are wrong.
        StorageFullError: no room for the copy.
    """
    file = below_roots(path, context.settings.roots)
    if not file.is_file():
        raise InvalidRequestError(f"path={path!r}: is not a file", param="path")
    limit = context.settings.max_upload_bytes
    if file.stat().st_size > limit:
        raise InvalidRequestError(
            f"path={path!r}: has {file.stat().st_size} bytes, the limit is {limit}", param="path"
        )
    with await asyncio.to_thread(file.open, "rb") as stream:
        return file.stem, await store(context, stream, file.name, format, "path")


async def store(
    context: Context, stream: BinaryIO, name: str | None, format: Format | None, param: str
) -> StoredRows:
    """Read a dataset and keep its rows.

    Raises:
        InvalidRequestError: the format is unknown or rows are wrong, each named by its number.
        NotPossibleError: a library for the format is missing.
        StorageFullError: no room.
    """
    settings = context.settings
    limits = Limits(rows=settings.max_dataset_rows)
    folder = settings.data_dir / "datasets"
    try:
        return await asyncio.to_thread(_store, folder, stream, name, format, limits)
    except DatasetError as error:
        details = [Detail(str(fault), param) for fault in error.errors]
        raise InvalidRequestError(
            str(error), param=param, code="invalid_dataset", details=details
        ) from error
    except InvalidArgumentError as error:
        wrong = "format" if format is not None else param
        raise InvalidRequestError(str(error), param=wrong) from error
    except MissingLibraryError as error:
        raise NotPossibleError(str(error), param="format") from error


def creation(fields: DatasetFields, stored: StoredRows, default_name: str | None) -> Make:
    """What makes the row; the same content under the same name is the same dataset."""
    name = fields.name or name_from(default_name)
    new = NewDataset(
        name=name,
        kind=stored.kind,
        content_hash=stored.content_hash,
        rows=stored.rows,
        path=str(stored.path),
        info=stored.info,
        meta=fields.metadata,
    )

    async def make(session: AsyncSession) -> Answer:
        await references.hold(session)
        there = await find(session, DatasetRow, name)
        if there is not None and there.name == name:
            if there.content_hash != stored.content_hash:
                raise ConflictError(
                    f"name={name!r}: {there.id} has this name and other rows",
                    param="name",
                    code="name_taken",
                )
            return _answer(200, there)
        check_stored(new.path)
        return _answer(201, await datasets.add(session, new))

    return make


async def get(context: Context, key: str) -> Dataset:
    """A dataset by id or name.

    Raises:
        NotFoundError: there is none.
    """
    return Dataset.model_validate(await _row(context, key))


async def page(context: Context, after: str | None, limit: int) -> DatasetPage:
    """Datasets, newest first."""
    async with context.database.read() as session:
        rows, more = await newest(session, DatasetRow, after=after, limit=limit)
    return DatasetPage(data=[Dataset.model_validate(row) for row in rows], has_more=more)


async def preview(context: Context, key: str, limit: int) -> DatasetPreview:
    """The first rows of a dataset.

    Raises:
        NotFoundError: there is none, or its file is gone.
    """
    row = await _row(context, key)
    try:
        lines = await asyncio.to_thread(_first_lines, Path(row.path), limit)
    except FileNotFoundError as error:
        raise NotFoundError("file of dataset", row.id) from error
    return DatasetPreview(
        id=row.id, rows=[_cut(json.loads(line)) for line in lines], total=row.rows
    )


async def first_example(path: Path) -> Example:
    """The first row of a stored dataset."""
    lines = await asyncio.to_thread(_first_lines, path, 1)
    return from_jsonl(lines[0])[0]


async def delete(context: Context, key: str) -> Deleted:
    """Forget a dataset. Its file goes with the last job that needs it.

    Raises:
        NotFoundError: there is none.
    """
    async with context.database.write() as session:
        row = await known(session, DatasetRow, key)
        await datasets.remove(session, row.id)
    await leftovers.clear(context, row.path)
    return Deleted(id=row.id, object="dataset")


def _store(
    folder: Path, stream: BinaryIO, name: str | None, format: Format | None, limits: Limits
) -> StoredRows:
    digest, prompts = sha256(), set[bytes]()
    rows = size = 0
    kind: DatasetKind = "completion"
    with scratch(folder) as incoming:
        file = incoming / "rows.jsonl"
        with file.open("wb") as out:
            for example in stream_examples(stream, name=name, format=format, limits=limits):
                line = to_line(example)
                digest.update(line)
                size += out.write(line)
                rows += 1
                kind = example.kind
                asked = example.prompt or example.completion
                prompts.add(sha256(asked.encode()).digest()[:8])
        path = (folder / f"{digest.hexdigest()}.jsonl").absolute()
        settle(file, path)
    info = {"format": format_of(format, name), "bytes": size, "prompts": len(prompts)}
    return StoredRows(path, digest.hexdigest(), rows, kind, info)


def _first_lines(path: Path, limit: int) -> list[bytes]:
    with path.open("rb") as stream:
        return list(islice(stream, limit))


def _cut(value: Any) -> Any:
    """The value with long texts cut."""
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return value[:_SHOWN_CHARACTERS] + "…"
    if isinstance(value, list):
        return [_cut(one) for one in value]
    if isinstance(value, dict):
        return {name: _cut(one) for name, one in value.items()}
    return value


async def _row(context: Context, key: str) -> DatasetRow:
    async with context.database.read() as session:
        return await known(session, DatasetRow, key)


def _answer(status: int, row: DatasetRow) -> Answer:
    return Answer(status, Dataset.model_validate(row).model_dump(mode="json"), row.id)
