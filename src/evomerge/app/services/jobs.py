"""Jobs of one collection of the API: found, listed, stopped and resumed, whatever they do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.errors import JobNotFoundError, JobStateError
from evomerge.app.db.models import Job
from evomerge.app.db.repositories import jobs, queue
from evomerge.app.db.repositories.jobs import Filters
from evomerge.app.db.repositories.queue import StopRequest
from evomerge.app.errors import ConflictError, NotFoundError
from evomerge.app.schemas.jobs import AnyJob, AnyJobEvent
from evomerge.app.schemas.result import ArtifactResult
from evomerge.app.services.context import Context
from evomerge.app.worker.artifacts import folder_of


class WithArtifacts(Protocol):
    """A job's result, as far as its files go."""

    @property
    def artifacts(self) -> Sequence[ArtifactResult]:
        """The files that it made."""
        ...


J = TypeVar("J", bound=AnyJob)
E = TypeVar("E", bound=AnyJobEvent)
R = TypeVar("R", bound=WithArtifacts)


@dataclass(frozen=True)
class Family(Generic[J, E, R]):
    """Jobs that share a collection. An id of another collection's job is unknown here.

    Attributes:
        what: what errors call one.
        kinds: the kinds of job in it.
        resource: a row as clients see it.
        event: an event as clients see it.
        outcome: the result of a row that has one.
        folder: where the files are that a job made, given the data folder.
    """

    what: str
    kinds: tuple[str, ...]
    resource: Callable[[Job], J]
    event: type[E]
    outcome: Callable[[Job], R]
    folder: Callable[[Path, Job], Path]

    async def get(self, context: Context, job_id: str) -> J:
        """A job by its id.

        Raises:
            NotFoundError: there is none.
        """
        return self.resource(await self.row(context, job_id))

    async def row(self, context: Context, job_id: str) -> Job:
        """A job's row.

        Raises:
            NotFoundError: there is none.
        """
        async with context.database.read() as session:
            row = await jobs.find(session, self.kinds, job_id)
        if row is None:
            raise NotFoundError(self.what, job_id)
        return row

    async def page(
        self,
        context: Context,
        filters: Filters,
        after: str | None,
        limit: int,
        kinds: Sequence[str] = (),
    ) -> tuple[list[J], bool]:
        """Jobs, newest first, of some kinds or all; whether there are more."""
        async with context.database.read() as session:
            rows, more = await jobs.page(
                session, kinds or self.kinds, filters, after=after, limit=limit
            )
        return [self.resource(row) for row in rows], more

    async def stop(self, context: Context, job_id: str, wanted: StopRequest) -> J:
        """Ask a job to pause or to end.

        Raises:
            NotFoundError: there is none.
            ConflictError: it has ended, or is being cancelled and cannot pause.
        """

        return await self._change(
            context, job_id, lambda session: queue.request_stop(session, job_id, wanted)
        )

    async def resume(self, context: Context, job_id: str) -> J:
        """Queue a paused or failed job again.

        Raises:
            NotFoundError: there is none.
            ConflictError: it is neither paused nor failed.
        """
        return await self._change(context, job_id, lambda session: queue.resume(session, job_id))

    async def result(self, context: Context, job_id: str) -> R:
        """What a job found.

        Raises:
            NotFoundError: no such job.
            ConflictError: it has no result, or none yet.
        """
        row = await self.row(context, job_id)
        if row.result is None:
            raise ConflictError(f"job {row.id} is {row.status}: it has no result", code="no_result")
        return self.outcome(row)

    async def _change(
        self, context: Context, job_id: str, change: Callable[[AsyncSession], Awaitable[str]]
    ) -> J:
        try:
            async with context.database.write() as session:
                row = await jobs.find(session, self.kinds, job_id)
                if row is None:
                    raise NotFoundError(self.what, job_id)
                await change(session)
                return self.resource(row)
        except JobNotFoundError as error:
            raise NotFoundError(self.what, job_id) from error
        except JobStateError as error:
            raise ConflictError(str(error), code="job_state") from error


def own_folder(data_dir: Path, row: Job) -> Path:
    """The folder of a job's own files."""
    return folder_of(data_dir, row.id)


def shared_fields(row: Job) -> dict[str, Any]:
    """What any job shows of its row, whatever it does."""
    same = (
        "id",
        "name",
        "status",
        "progress",
        "error",
        "attempts",
        "seconds_used",
        "created_at",
        "started_at",
        "finished_at",
    )
    return {"metadata": row.meta, **{name: getattr(row, name) for name in same}}
