"""The books of one job in hand: everything that its worker reads and writes of the database."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.engine import Database
from evomerge.app.db.errors import JobNotFoundError
from evomerge.app.db.models import Job
from evomerge.app.db.repositories import evaluations, events, models, queue
from evomerge.app.db.repositories.evaluations import Recorded, Scored
from evomerge.app.db.repositories.queue import Lease, StopRequest
from evomerge.app.db.retry import retrying

T = TypeVar("T")
# What happens together with a job's success; gives further fields of its result.
Also = Callable[[AsyncSession], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True)
class Note:
    """An event that waits for the next transaction."""

    message: str
    level: events.Level = "info"
    type: events.Type = "message"
    data: Mapping[str, Any] | None = None


class Ledger:
    """Writes for the holder of a lease, each in one fenced transaction.

    Every method waits while the database is away, for `patience` seconds at most, and raises
    `LeaseLostError` once another worker has claimed the job.

    Attributes:
        seconds: running time of the job so far, over all attempts.
    """

    def __init__(
        self,
        database: Database,
        lease: Lease,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lease = lease
        self._database = database
        self._patience = patience
        self._clock = clock
        self._notes: list[Note] = []
        self._before = 0.0  # used by earlier attempts
        self._begun = clock()
        self._booked = 0.0  # of this attempt, already in the row

    @property
    def seconds(self) -> float:
        return self._before + self._clock() - self._begun

    async def open(self) -> Job:
        """The job's row as it is now."""

        async def work() -> Job:
            async with self._database.read() as session:
                job = await session.get(Job, self.lease.job_id)
                if job is None:
                    raise JobNotFoundError(self.lease.job_id)
                return job

        job = await retrying(work, self._patience)
        self._before = job.seconds_used
        return job

    async def search_log(self) -> list[Recorded]:
        """What the search has scored so far, in its order."""

        async def work() -> list[Recorded]:
            async with self._database.read() as session:
                return await evaluations.search_log(session, self.lease.job_id)

        return await retrying(work, self._patience)

    async def proof_log(self) -> list[Scored]:
        """What was scored on held-out data so far."""

        async def work() -> list[Scored]:
            async with self._database.read() as session:
                return await evaluations.proof_log(session, self.lease.job_id)

        return await retrying(work, self._patience)

    def note(self, message: str, *, level: events.Level = "info", **data: Any) -> None:
        """An event that goes with the next `record`, so that both happen or neither."""
        self._notes.append(Note(message, level, data=data))

    async def record(
        self,
        rows: Sequence[Scored] = (),
        *,
        progress: Mapping[str, Any] | None = None,
        metrics: Note | None = None,
        gathered: Mapping[str, Any] | None = None,
    ) -> StopRequest | None:
        """Log scored candidates, waiting notes, progress and time used, in one transaction.

        Args:
            gathered: what the search has answers for, to hold for all later attempts.

        Returns:
            The stop that was asked for, if any.
        """
        notes = [*self._notes, *([metrics] if metrics else [])]
        elapsed = self._clock() - self._begun

        async def work(session: AsyncSession) -> StopRequest | None:
            # A commit whose answer got lost is not repeated: the rows are there already.
            if rows and await evaluations.holds(session, self.lease.job_id, rows[0]):
                return await queue.fence(session, self.lease)
            stop = await queue.fence(
                session,
                self.lease,
                progress=progress,
                gathered=gathered,
                seconds=elapsed - self._booked,
            )
            await evaluations.append(session, self.lease.job_id, rows)
            await self._append(session, notes)
            return stop

        stop = await self._write(work)
        self._booked = elapsed
        self._notes.clear()
        return stop

    async def succeed(
        self,
        result: Mapping[str, Any],
        progress: Mapping[str, Any],
        message: str,
        serve_as: str | None = None,
        also: Also | None = None,
    ) -> None:
        """End the job with its result, and give its merge the name it is to be called by.

        Args:
            also: done in the same transaction, behind its fence; adds what it gives to the result.
        """
        last = Note(message, data={"status": "succeeded"})

        async def work(session: AsyncSession) -> None:
            await self._book(session, progress)
            added = {} if also is None else await also(session)
            await queue.succeed(session, self.lease, {**result, **added})
            if serve_as is not None:
                await models.name(session, serve_as, self.lease.job_id)
            await self._append(session, [*self._notes, last])

        await self._write(work)

    async def fail(self, code: str, message: str, param: str | None = None) -> None:
        """End the job with an error."""

        async def work(session: AsyncSession) -> None:
            await self._book(session)
            await self._append(session, self._notes)
            await queue.fail(session, self.lease, code, message, param)

        await self._write(work)

    async def release(self) -> str:
        """Give the job back unfinished; where it went. Waiting notes come up again later."""

        async def work(session: AsyncSession) -> str:
            await self._book(session)
            return await queue.release(session, self.lease)

        return await self._write(work)

    async def _book(self, session: AsyncSession, progress: Mapping[str, Any] | None = None) -> None:
        seconds = self._clock() - self._begun - self._booked
        await queue.fence(session, self.lease, progress=progress, seconds=seconds)

    async def _append(self, session: AsyncSession, notes: Sequence[Note]) -> None:
        for note in notes:
            await events.append(
                session,
                self.lease.job_id,
                note.message,
                level=note.level,
                type=note.type,
                data=note.data,
            )

    async def _write(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        async def unit() -> T:
            async with self._database.write() as session:
                return await work(session)

        return await retrying(unit, self._patience)
