"""The transactions behind paid calls: claim and reserve before, store and settle after."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.engine import Database
from evomerge.app.db.errors import LeaseLostError
from evomerge.app.db.repositories import answers, calls, queue
from evomerge.app.db.repositories.answers import Outcome
from evomerge.app.db.repositories.calls import Booking
from evomerge.app.db.repositories.queue import Lease
from evomerge.app.db.retry import retrying
from evomerge.app.worker.group_commit import GroupCommit


@dataclass(frozen=True)
class Owner:
    """Who claims questions.

    Attributes:
        name: unique to one book, or two would take each other's claims for their own.
        lease_seconds: how long a claim lasts if it is not renewed.
        patience: seconds that a write waits for a database that is away.
    """

    name: str
    lease_seconds: float
    patience: float


@dataclass(frozen=True)
class Verdict:
    """What became of a claim: ours, answered already, or (neither) being asked by another."""

    claimed: bool
    outcome: Outcome | None = None


@dataclass(frozen=True)
class _Claim:
    booking: Booking
    model: str

    @property
    def key(self) -> str:
        return self.booking.key


@dataclass(frozen=True)
class _Raise:
    booking: Booking

    @property
    def key(self) -> str:
        return self.booking.key


@dataclass(frozen=True)
class _Settle:
    booking: Booking
    model: str
    outcome: Outcome | None

    @property
    def key(self) -> str:
        return self.booking.key


_Write = _Claim | _Raise | _Settle


class AnswerWrites:
    """Writes for the holder of a job's lease, many calls in one transaction.

    Claims and reservations are refused once another worker has the job. Answers are stored and
    calls settled all the same: they are paid for, and whoever has the job will find them. Use as
    an async context manager; its end waits for what was begun.
    """

    def __init__(self, database: Database, lease: Lease, owner: Owner) -> None:
        self._database = database
        self._lease = lease
        self._owner = owner
        self._group: GroupCommit[_Write] = GroupCommit(self._commit)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._group.__aexit__(kind, error, traceback)

    async def claim(self, booking: Booking, model: str) -> Verdict:
        """Claim a question and book its call, both or neither.

        Cancelled, it is written all the same: settle it then.

        Raises:
            LeaseLostError: another worker has the job.
            sqlalchemy.exc.SQLAlchemyError: the database stayed away.
        """
        return cast(Verdict, await self._put(_Claim(booking, model)))

    async def book_more(self, booking: Booking) -> None:
        """Book a call that is under way at more than before.

        Raises:
            LeaseLostError: another worker has the job.
            sqlalchemy.exc.SQLAlchemyError: the database stayed away.
        """
        await self._put(_Raise(booking))

    async def settle(self, booking: Booking, model: str, outcome: Outcome | None) -> Outcome | None:
        """Store what a call gave and book what it cost; without an outcome give the claim back.

        Returns:
            What is stored: another's answer, where that was first.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database stayed away.
        """
        return cast(Outcome | None, await self._put(_Settle(booking, model, outcome)))

    def let_go(self, booking: Booking, model: str) -> None:
        """Settle without an outcome, some time before the block ends."""
        self._group.put(_Settle(booking, model, None))

    async def _put(self, write: _Write) -> object:
        # A write that has begun is not undone by whoever stops waiting for it.
        return await asyncio.shield(self._group.put(write))

    async def _commit(self, writes: Sequence[_Write]) -> list[object]:
        async def unit() -> list[object]:
            async with self._database.write() as session:
                return await self._write(session, writes)

        return await retrying(unit, self._owner.patience)

    async def _write(self, session: AsyncSession, writes: Sequence[_Write]) -> list[object]:
        """One transaction; done twice, it leaves what it leaves done once."""
        results: dict[str, Any] = {}
        settled = [write for write in writes if isinstance(write, _Settle)]
        if settled:
            results.update(await self._settle(session, settled))
        claims = [write for write in writes if isinstance(write, _Claim)]
        raises = [write for write in writes if isinstance(write, _Raise)]
        if claims or raises:
            try:
                await queue.fence(session, self._lease)
            except LeaseLostError as error:
                results.update((write.key, error) for write in claims)
                results.update((write.key, error) for write in raises)
            else:
                await calls.revise(session, [write.booking for write in raises])
                results.update(await self._claim(session, claims))
        return [results.get(write.key) for write in writes]

    async def _settle(self, session: AsyncSession, writes: Sequence[_Settle]) -> dict[str, Outcome]:
        await calls.revise(session, [write.booking for write in writes])
        unanswered = [write.key for write in writes if write.outcome is None]
        await answers.release(session, unanswered, self._owner.name)
        return await answers.store(
            session,
            {write.key: (write.model, write.outcome) for write in writes if write.outcome},
        )

    async def _claim(self, session: AsyncSession, writes: Sequence[_Claim]) -> dict[str, Verdict]:
        if not writes:
            return {}
        models = {write.key: write.model for write in writes}
        owner = self._owner
        claimed = await answers.claim(session, models, owner.name, owner.lease_seconds)
        bookings = [write.booking for write in writes if write.key in claimed]
        await calls.reserve(session, self._lease.job_id, bookings)
        missed = sorted(models.keys() - claimed)
        known = await answers.find(session, missed) if missed else {}
        return {key: Verdict(key in claimed, known.get(key)) for key in models}
