"""What jobs have reserved for calls to APIs, and what they have spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.engine import epoch
from evomerge.app.db.models import Call, StoredAnswer
from evomerge.app.db.repositories.answers import insert_into

_UPDATE = (
    update(Call.__table__)  # type: ignore[arg-type]  # many rows at once, past the session
    .where(Call.id == bindparam("call_id"))
    .values({name: bindparam(f"new_{name}") for name in ("requests", "input_tokens")})
    .values({name: bindparam(f"new_{name}") for name in ("output_tokens", "usd", "settled")})
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call or many cost: HTTP requests, tokens as the provider counts them, dollars."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.usd + other.usd,
        )

    def __sub__(self, other: Cost) -> Cost:
        return self + -1 * other

    def __rmul__(self, times: int) -> Cost:
        return Cost(
            times * self.requests,
            times * self.input_tokens,
            times * self.output_tokens,
            times * self.usd,
        )


NOTHING = Cost()


@dataclass(frozen=True, slots=True)
class Booking:
    """One call as it stands in the books.

    Attributes:
        id: drawn by whoever books it, so that a commit whose answer was lost can be repeated.
        key: of its question.
        cost: at most, while it is under way; what it came to, once settled.
    """

    id: int
    key: str
    cost: Cost
    settled: bool = False


async def reserve(session: AsyncSession, job_id: str, bookings: Sequence[Booking]) -> None:
    """Book calls that are about to be made. Call it in the transaction that fenced the lease."""
    if bookings:
        query = insert_into(session, Call).values(created_at=epoch()).on_conflict_do_nothing()
        await session.execute(query, [_values(job_id, booking) for booking in bookings])


async def revise(session: AsyncSession, bookings: Sequence[Booking]) -> None:
    """Book calls that were reserved at what they cost now. Unknown ones are left out."""
    if not bookings:
        return
    connection = await session.connection()
    await connection.execute(
        _UPDATE,
        [
            {
                "call_id": booking.id,
                "new_requests": booking.cost.requests,
                "new_input_tokens": booking.cost.input_tokens,
                "new_output_tokens": booking.cost.output_tokens,
                "new_usd": booking.cost.usd,
                "new_settled": booking.settled,
            }
            for booking in bookings
        ],
    )


async def total(session: AsyncSession, job_id: str) -> Cost:
    """All that a job has spent or reserved: what a crash left unsettled counts as spent."""
    row = (await session.execute(select(*_sums()).where(Call.job_id == job_id))).one()
    return _cost(row)


async def by_model(session: AsyncSession, job_id: str) -> dict[str, Cost]:
    """All that a job has spent or reserved, by base URL and model, in order of the names."""
    query = (
        select(StoredAnswer.model, *_sums())
        .join(StoredAnswer, StoredAnswer.key == Call.key)
        .where(Call.job_id == job_id)
        .group_by(StoredAnswer.model)
        .order_by(StoredAnswer.model)
    )
    return {model: _cost(sums) for model, *sums in await session.execute(query)}


def _sums() -> list[ColumnElement[int | float]]:
    whole = (Call.requests, Call.input_tokens, Call.output_tokens)
    # Postgres sums bigint to numeric; the cast brings it back.
    counts = [func.coalesce(func.sum(column), 0).cast(Call.id.type) for column in whole]
    return [*counts, func.coalesce(func.sum(Call.usd), 0.0)]


def _cost(sums: Sequence[Any]) -> Cost:
    requests, input_tokens, output_tokens, usd = sums
    return Cost(requests, input_tokens, output_tokens, usd)


def _values(job_id: str, booking: Booking) -> dict[str, object]:
    return {
        "id": booking.id,
        "job_id": job_id,
        "key": booking.key,
        "requests": booking.cost.requests,
        "input_tokens": booking.cost.input_tokens,
        "output_tokens": booking.cost.output_tokens,
        "usd": booking.cost.usd,
        "settled": booking.settled,
    }
