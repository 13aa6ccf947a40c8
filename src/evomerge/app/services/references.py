"""What a request refers to by id or name."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.models import Dataset, Expert
from evomerge.app.db.repositories.lookup import Named, find, find_all
from evomerge.app.errors import InvalidRequestError, NotFoundError


async def known(session: AsyncSession, table: type[Named], key: str) -> Named:
    """The row that has this id or name.

    Raises:
        NotFoundError: there is none.
    """
    row = await find(session, table, key)
    if row is None:
        raise NotFoundError(table.__name__.lower(), key)
    return row


async def find_experts(
    session: AsyncSession, keys: Sequence[str], param: str = "experts"
) -> list[Expert]:
    """The experts of a list of ids or names: each known, none twice, all of one kind and base.

    Raises:
        InvalidRequestError: one is not so; names its place.
    """
    found = await find_all(session, Expert, keys)
    experts: list[Expert] = []
    for number, key in enumerate(keys):
        where = f"{param}.{number}"
        expert = found.get(key)
        if expert is None:
            raise InvalidRequestError(f"{where}: no expert {key!r}", param=where, code="not_found")
        if expert in experts:
            raise InvalidRequestError(f"{where}: {key!r} stands more than once", param=where)
        if experts and expert.kind != experts[0].kind:
            raise InvalidRequestError(
                f"{where}: {key!r} is of kind {expert.kind!r}, the experts before it of kind "
                f"{experts[0].kind!r}",
                param=where,
            )
        if experts and expert.base != experts[0].base:
            raise InvalidRequestError(
                f"{where}: {key!r} is over base {expert.base!r}, the experts before it over "
                f"{experts[0].base!r}",
                param=where,
            )
        experts.append(expert)
    return experts


async def find_datasets(session: AsyncSession, keys: Sequence[str]) -> list[Dataset]:
    """The datasets of an objective: each known, none twice, each fit to be split.

    Raises:
        InvalidRequestError: one is not so; names its place.
    """
    found = await find_all(session, Dataset, keys)
    datasets: list[Dataset] = []
    for number, key in enumerate(keys):
        where = f"objective.datasets.{number}.dataset"
        dataset = found.get(key)
        if dataset is None:
            raise InvalidRequestError(f"{where}: no dataset {key!r}", param=where, code="not_found")
        if dataset in datasets:
            raise InvalidRequestError(f"{where}: {key!r} stands more than once", param=where)
        if dataset.info["prompts"] < 2:
            raise InvalidRequestError(
                f"{where}: {key!r} has {dataset.rows} rows with {dataset.info['prompts']} "
                "different prompts; searching and proving need two at least",
                param=where,
                code="dataset_too_small",
            )
        datasets.append(dataset)
    return datasets
