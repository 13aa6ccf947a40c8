"""Datasets: one row a file in normal form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.engine import epoch
from evomerge.app.db.errors import NameTakenError
from evomerge.app.db.ids import DATASET, new_id
from evomerge.app.db.models import Dataset


@dataclass(frozen=True)
class NewDataset:
    """What is known of a dataset before it has a row."""

    name: str
    kind: str
    content_hash: str
    rows: int
    path: str
    info: Mapping[str, Any]
    meta: Mapping[str, str]


async def add(session: AsyncSession, dataset: NewDataset) -> Dataset:
    """Insert a dataset.

    Raises:
        NameTakenError: the name is taken; the transaction must be given up.
    """
    values = {"id": new_id(DATASET), **vars(dataset)}
    query = insert(Dataset).values(created_at=epoch(), **values).returning(Dataset)
    try:
        return (await session.scalars(query)).one()
    except IntegrityError as error:
        raise NameTakenError("dataset", dataset.name) from error


async def remove(session: AsyncSession, dataset_id: str) -> None:
    """Delete the row alone."""
    await session.execute(delete(Dataset).where(Dataset.id == dataset_id))
