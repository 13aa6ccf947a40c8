"""The log of scored candidates, which is the search's checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import func, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from evomerge.app.db.engine import epoch
from evomerge.app.db.models import Evaluation
from evomerge.optimizers.candidate import Candidate, FloatArray

_FLOAT = np.dtype("<f8")
_KEY = (Evaluation.stage_number, Evaluation.generation, Evaluation.index)
Key = tuple[int, int, int]


# The proof's rows stand behind those of every search stage.
HELD_OUT = "held_out"
HELD_OUT_NUMBER = 1000


@dataclass(frozen=True, eq=False)
class Recorded:
    """One scored candidate, without its losses example by example.

    Attributes:
        stage_number, stage, generation, index: its place in the search.
        loss: the mean that the search is told; NaN where the candidate broke.
        tokens, seconds: its share of what its batch cost.
    """

    stage_number: int
    stage: str
    generation: int
    index: int
    candidate: Candidate
    loss: float
    tokens: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Scored(Recorded):
    """One scored candidate, as it is logged.

    Attributes:
        losses: (examples,) float64.
        weights: (examples,) float64 where the statistics need them, else None.
    """

    losses: FloatArray
    weights: FloatArray | None = None


async def append(session: AsyncSession, job_id: str, rows: Sequence[Scored]) -> None:
    """Log candidates. Call it in the transaction that fenced the lease.

    Raises:
        sqlalchemy.exc.IntegrityError: one of them is logged already.
    """
    if rows:
        await session.execute(
            insert(Evaluation).values(created_at=epoch()), [_values(job_id, row) for row in rows]
        )


async def holds(session: AsyncSession, job_id: str, row: Recorded) -> bool:
    """Whether the place of a row is taken in the log."""
    place = (row.stage_number, row.generation, row.index)
    query = select(Evaluation.index).where(Evaluation.job_id == job_id, tuple_(*_KEY) == place)
    return await session.scalar(query) is not None


async def search_log(session: AsyncSession, job_id: str) -> list[Recorded]:
    """What the search has scored, in its order. Losses by example stay in the database."""
    query = (
        select(Evaluation)
        .options(defer(Evaluation.losses), defer(Evaluation.weights))
        .where(Evaluation.job_id == job_id, Evaluation.stage_number < HELD_OUT_NUMBER)
        .order_by(*_KEY)
        .execution_options(yield_per=1000)
    )
    return [recorded(row) async for row in await session.stream_scalars(query)]


async def proof_log(session: AsyncSession, job_id: str) -> list[Scored]:
    """What has been scored on held-out data, by metric and contender."""
    query = (
        select(Evaluation)
        .where(Evaluation.job_id == job_id, Evaluation.stage_number == HELD_OUT_NUMBER)
        .order_by(*_KEY)
    )
    return [scored(row) for row in await session.scalars(query)]


async def page(
    session: AsyncSession,
    job_id: str,
    *,
    stage: str | None = None,
    after: Key | None = None,
    limit: int = 100,
) -> Sequence[Evaluation]:
    """Rows after the key (stage_number, generation, index), in the order of the search.

    Losses by example stay in the database.
    """
    query = (
        select(Evaluation)
        .options(defer(Evaluation.losses), defer(Evaluation.weights))
        .where(Evaluation.job_id == job_id)
        .order_by(*_KEY)
        .limit(limit)
    )
    if stage is not None:
        query = query.where(Evaluation.stage == stage)
    if after is not None:
        query = query.where(tuple_(*_KEY) > after)
    return (await session.scalars(query)).all()


async def count(session: AsyncSession, job_id: str) -> int:
    """How many candidates are logged."""
    query = select(func.count()).select_from(Evaluation).where(Evaluation.job_id == job_id)
    return await session.scalar(query) or 0


def recorded(row: Evaluation) -> Recorded:
    """A row with its candidate read."""
    shape = (row.groups, -1)
    return Recorded(
        stage_number=row.stage_number,
        stage=row.stage,
        generation=row.generation,
        index=row.index,
        candidate=Candidate(_array(row.alpha).reshape(shape), _array(row.beta).reshape(shape)),
        loss=math.nan if row.loss is None else row.loss,
        tokens=row.tokens,
        seconds=row.seconds,
    )


def scored(row: Evaluation) -> Scored:
    """A row with all its arrays read."""
    weights = None if row.weights is None else _array(row.weights)
    return Scored(**vars(recorded(row)), losses=_array(row.losses), weights=weights)


def _values(job_id: str, row: Scored) -> dict[str, object]:
    return {
        "job_id": job_id,
        "stage_number": row.stage_number,
        "stage": row.stage,
        "generation": row.generation,
        "index": row.index,
        "groups": row.candidate.groups,
        "alpha": _bytes(row.candidate.alpha),
        "beta": _bytes(row.candidate.beta),
        "loss": row.loss if math.isfinite(row.loss) else None,
        "losses": _bytes(row.losses),
        "weights": None if row.weights is None else _bytes(row.weights),
        "tokens": row.tokens,
        "seconds": row.seconds,
    }


def _bytes(array: FloatArray) -> bytes:
    return np.ascontiguousarray(array, dtype=_FLOAT).tobytes()


def _array(data: bytes) -> FloatArray:
    return np.frombuffer(data, dtype=_FLOAT).astype(np.float64)
