"""Whom a merge job merges: the experts that it lists, a pool's, or a forest's ELMs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.models import Expert, Forest, ForestElm, Pool
from evomerge.app.db.repositories import forests, pools
from evomerge.app.db.repositories.lookup import find
from evomerge.app.errors import InvalidRequestError
from evomerge.app.schemas.inputs import ExpertInput, SeedInput
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.services.references import find_experts
from evomerge.merging.checkpoint.files import CONFIG_FILE


@dataclass(frozen=True)
class Members:
    """The experts of a job, all of one kind.

    Attributes:
        experts: in order.
        pool_id: of the pool or the forest; None where the spec lists experts.
        base: of adapters.
        seed: of ELMs.
    """

    experts: list[ExpertInput]
    pool_id: str | None = None
    base: str | None = None
    seed: SeedInput | None = None


async def find_members(session: AsyncSession, spec: MergeJobSpec) -> Members:
    """The experts that a spec means now.

    Raises:
        InvalidRequestError: one is unknown, or a forest has no ELM yet; names the field.
    """
    if spec.pool is None:
        return _of(await find_experts(session, spec.experts or []), None)
    pool = await find(session, Pool, spec.pool)
    if pool is not None:
        return _of(await pools.members(session, pool.id), pool.id)
    forest = await find(session, Forest, spec.pool)
    if forest is None:
        raise InvalidRequestError(
            f"pool: no pool or forest {spec.pool!r}", param="pool", code="not_found"
        )
    elms = await forests.elms(session, forest.id)
    if not elms:
        raise InvalidRequestError(f"pool: forest {forest.name!r} has no ELM yet", param="pool")
    if not (Path(forest.seed_path) / CONFIG_FILE).is_file():
        raise InvalidRequestError(
            f"pool: the seed of forest {forest.name!r} is no longer where it was", param="pool"
        )
    seed = SeedInput(forest=forest.name, path=Path(forest.seed_path), content_hash=forest.seed_hash)
    return Members([_elm(row) for row in elms], forest.id, seed=seed)


def _of(rows: Sequence[Expert], pool_id: str | None) -> Members:
    return Members([_expert(row) for row in rows], pool_id, rows[0].base)


def _expert(row: Expert) -> ExpertInput:
    return ExpertInput(
        id=row.id,
        name=row.name,
        content_hash=row.content_hash,
        kind=row.kind,
        path=None if row.path is None else Path(row.path),
        definition=row.definition,
        capabilities=row.info.get("capabilities"),
    )


def _elm(row: ForestElm) -> ExpertInput:
    return ExpertInput(
        id=row.id,
        name=row.name,
        content_hash=row.content_hash,
        kind="elm",
        path=Path(row.path),
    )
