"""What a job has written so far: its events, also as they happen, and its evaluations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from evomerge.app.db.models import Evaluation, Event
from evomerge.app.db.repositories import evaluations, events, jobs
from evomerge.app.db.repositories.evaluations import Key
from evomerge.app.db.repositories.queue import FINISHED
from evomerge.app.db.retry import is_away
from evomerge.app.errors import InvalidRequestError, NotFoundError
from evomerge.app.schemas.merge_jobs import MergeJobEvaluation, MergeJobEvaluationPage
from evomerge.app.services.context import Context
from evomerge.app.services.jobs import E, Family, J, R
from evomerge.app.services.merge_jobs import JOBS

_PAGE = 100


async def event_page(
    context: Context, family: Family[J, E, R], job_id: str, after: int, limit: int
) -> tuple[list[E], bool]:
    """Events behind the id `after`, oldest first; whether there are more.

    Raises:
        NotFoundError: no such job.
    """
    async with context.database.read() as session:
        if await jobs.status(session, family.kinds, job_id) is None:
            raise NotFoundError(family.what, job_id)
        rows = await events.page(session, job_id, after=after, limit=limit + 1)
    return [_event(family.event, row) for row in rows[:limit]], len(rows) > limit


async def event_stream(
    context: Context, family: Family[J, E, R], job_id: str, after: int
) -> AsyncIterator[E | None]:
    """Events behind the id `after` as they happen, until the job has ended; None in silence.

    The database may be away for a while: the stream then waits.
    """
    clock = asyncio.get_running_loop().time
    spoke = clock()
    while True:
        try:
            async with context.database.read() as session:
                # The status first: what ended the job wrote its last events with it.
                status = await jobs.status(session, family.kinds, job_id)
                rows = await events.page(session, job_id, after=after, limit=_PAGE)
        except (DBAPIError, PoolTimeoutError) as error:
            if not is_away(error):
                raise
            status, rows = "unknown", []
        for row in rows:
            yield _event(family.event, row)
            after, spoke = row.id, clock()
        if len(rows) == _PAGE:
            continue
        if status is None or status in FINISHED:
            return
        if clock() - spoke >= context.settings.heartbeat_seconds:
            yield None
            spoke = clock()
        await asyncio.sleep(context.settings.poll_seconds)


async def evaluation_page(
    context: Context, job_id: str, stage: str | None, after: str | None, limit: int
) -> MergeJobEvaluationPage:
    """Scored candidates in the order of the search; the proof's come last.

    Raises:
        NotFoundError: no such job.
        InvalidRequestError: `after` is no evaluation's id.
    """
    key = None if after is None else _key(after)
    async with context.database.read() as session:
        if await jobs.status(session, JOBS.kinds, job_id) is None:
            raise NotFoundError(JOBS.what, job_id)
        rows = await evaluations.page(session, job_id, stage=stage, after=key, limit=limit + 1)
    return MergeJobEvaluationPage(
        data=[_evaluation(row) for row in rows[:limit]], has_more=len(rows) > limit
    )


def _event(kind: type[E], row: Event) -> E:
    return kind(
        id=str(row.id),
        created_at=row.created_at,
        level=row.level,
        type=row.type,
        message=row.message,
        data=row.data,
    )


def _evaluation(row: Evaluation) -> MergeJobEvaluation:
    candidate = evaluations.recorded(row).candidate
    return MergeJobEvaluation(
        id=f"{row.stage_number}-{row.generation}-{row.index}",
        stage=row.stage,
        generation=row.generation,
        index=row.index,
        loss=row.loss,
        alpha=candidate.alpha.tolist(),
        beta=candidate.beta.tolist(),
        tokens=row.tokens,
        seconds=row.seconds,
        created_at=row.created_at,
    )


def _key(after: str) -> Key:
    parts = after.split("-")
    if len(parts) != 3 or not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise InvalidRequestError(
            f"after={after!r}: is no evaluation's id, such as 0-3-12", param="after"
        )
    stage_number, generation, index = map(int, parts)
    return stage_number, generation, index
