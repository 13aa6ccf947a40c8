"""The queue of jobs: who may run one, for how long, and how it is asked to stop.

A job in hand (running, pausing or cancelling) has a lease: an owner, a token and an end. The
token grows at every claim and every write of a worker checks it in the same transaction, so a
worker that was taken for dead cannot write over its successor. Every time is by the database's
clock. Functions take a session and never commit; writing ones expect `Database.write()`.

    queued -> running -> succeeded | failed
    running -> pausing -> paused -> queued (resume)
    running -> cancelling -> cancelled;  queued, paused -> cancelled;  failed -> queued (resume)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Update, and_, case, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.engine import epoch
from evomerge.app.db.errors import JobNotFoundError, JobStateError, LeaseLostError
from evomerge.app.db.models import Job
from evomerge.app.db.repositories import events

StopRequest = Literal["pause", "cancel"]
IN_HAND = ("running", "pausing", "cancelling")
FINISHED = ("succeeded", "failed", "cancelled")

_STOPPING = {"pause": "pausing", "cancel": "cancelling"}
_STOPPED = {"pause": "paused", "cancel": "cancelled"}
_UNLEASED: dict[str, Any] = {"lease_owner": None, "lease_until": None}


@dataclass(frozen=True)
class Lease:
    """The right to run one job; void once another claim has raised the token."""

    job_id: str
    owner: str
    token: int


async def claim(
    session: AsyncSession, owner: str, lease_seconds: float, max_attempts: int
) -> Lease | None:
    """Take the oldest job that is queued or whose lease ran out; None when there is none.

    Jobs whose worker died after a stop was asked are put where they were to go, and those that
    have used up their attempts are failed, before one is chosen.
    """
    await _settle(session, max_attempts)
    chosen = await session.scalar(
        select(Job.id)
        .where(or_(Job.status == "queued", and_(Job.status == "running", _lapsed())))
        .order_by(Job.created_at, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if chosen is None:
        return None
    claimed = await session.execute(
        _update()
        .where(Job.id == chosen)
        .values(
            status="running",
            lease_owner=owner,
            lease_token=Job.lease_token + 1,
            lease_until=epoch() + lease_seconds,
            attempts=Job.attempts + 1,
            started_at=func.coalesce(Job.started_at, epoch()),
        )
        .returning(Job.lease_token)
    )
    return Lease(chosen, owner, claimed.scalar_one())


def beat(lease: Lease, lease_seconds: float) -> Update:
    """The statement that prolongs a lease; it changes no row when the lease was lost.

    A statement, because the heartbeat runs in a thread on a connection of its own.
    """
    return _update().where(_owned(lease)).values(lease_until=epoch() + lease_seconds)


async def fence(
    session: AsyncSession,
    lease: Lease,
    *,
    progress: Mapping[str, Any] | None = None,
    gathered: Mapping[str, Any] | None = None,
    seconds: float = 0.0,
) -> StopRequest | None:
    """Check the lease within this transaction, and note on the way what is given.

    The row stays locked until the transaction ends, so nobody can claim the job in between.

    Returns:
        The stop that was asked for, if any.

    Raises:
        LeaseLostError: another worker has claimed the job since.
    """
    values: dict[str, Any] = {"seconds_used": Job.seconds_used + seconds}
    if progress is not None:
        values["progress"] = dict(progress)
    if gathered is not None:
        values["gathered"] = dict(gathered)
    row = (
        await session.execute(
            _update().where(_owned(lease)).values(**values).returning(Job.stop_request)
        )
    ).one_or_none()
    if row is None:
        raise LeaseLostError(lease.job_id, lease.token)
    stop: StopRequest | None = row.stop_request
    return stop


async def succeed(session: AsyncSession, lease: Lease, result: Mapping[str, Any]) -> None:
    """End the job with its result, even if a stop came too late.

    Raises:
        LeaseLostError: another worker has claimed the job since.
    """
    await _leave(session, lease, "succeeded", result=dict(result), finished_at=epoch())


async def fail(
    session: AsyncSession, lease: Lease, code: str, message: str, param: str | None = None
) -> None:
    """End the job with an error that a person can act on. Its evaluations stay.

    Raises:
        LeaseLostError: another worker has claimed the job since.
    """
    error = {"code": code, "message": message, "param": param}
    await _leave(session, lease, "failed", error=error, finished_at=epoch())
    await events.append(session, lease.job_id, message, level="error", data={"code": code})


async def release(session: AsyncSession, lease: Lease) -> str:
    """Give the job back unfinished; the attempt is not counted.

    Returns:
        Where it went: paused or cancelled if that was asked for, else queued.

    Raises:
        LeaseLostError: another worker has claimed the job since.
    """
    stop = await fence(session, lease)
    status = _STOPPED[stop] if stop else "queued"
    ended = {"finished_at": epoch()} if status == "cancelled" else {}
    await _leave(session, lease, status, attempts=Job.attempts - 1, **ended)
    await events.append(session, lease.job_id, f"The job is {status}.", data={"status": status})
    return status


async def request_stop(session: AsyncSession, job_id: str, stop: StopRequest) -> str:
    """Ask for a pause or a cancel; a job that no worker has in hand stops at once.

    Returns:
        The new status. Asking again for what is under way changes nothing; a cancel overrides
        a pause.

    Raises:
        JobNotFoundError: no such job.
        JobStateError: the job has ended, or is being cancelled and cannot pause.
    """
    job = await _locked(session, job_id)
    if job.status in (_STOPPING[stop], _STOPPED[stop]):
        return job.status
    if job.status in FINISHED or (job.status == "cancelling" and stop == "pause"):
        raise JobStateError(job_id, job.status, stop)
    if job.status in IN_HAND:
        job.status, job.stop_request = _STOPPING[stop], stop
    else:
        job.status, job.stop_request = _STOPPED[stop], None
        if stop == "cancel":
            job.finished_at = await session.scalar(select(epoch()))
    await session.flush()
    message = f"A {stop} was asked for: the job is {job.status}."
    await events.append(session, job_id, message, data={"status": job.status})
    return job.status


async def resume(session: AsyncSession, job_id: str) -> str:
    """Queue a paused or failed job again, with all its attempts; it goes on from its log.

    Raises:
        JobNotFoundError: no such job.
        JobStateError: the job is neither paused, failed nor already queued.
    """
    job = await _locked(session, job_id)
    if job.status == "queued":
        return job.status
    if job.status not in ("paused", "failed"):
        raise JobStateError(job_id, job.status, "resume")
    job.status, job.stop_request, job.attempts = "queued", None, 0
    job.error, job.finished_at = None, None
    await session.flush()
    await events.append(session, job_id, "The job is queued again.", data={"status": "queued"})
    return job.status


async def _settle(session: AsyncSession, max_attempts: int) -> None:
    """Move the jobs that a dead worker left behind and that nobody should take up."""
    freed = {**_UNLEASED, "stop_request": None, "lease_token": Job.lease_token + 1}
    stopped = await session.execute(
        _update()
        .where(Job.status.in_(_STOPPING.values()), _lapsed())
        .values(
            status=case((Job.status == "pausing", "paused"), else_="cancelled"),
            finished_at=case((Job.status == "cancelling", epoch()), else_=None),
            **freed,
        )
        .returning(Job.id, Job.status)
    )
    for job_id, status in stopped.all():
        await events.append(session, job_id, f"The job is {status}.", data={"status": status})
    message = (
        f"The job was given up after {max_attempts} attempts that ended without a word: its "
        "workers died (out of memory?) or lost the database. Resume it to try again."
    )
    error = {"code": "attempts_exhausted", "message": message, "param": None}
    given_up = await session.scalars(
        _update()
        .where(Job.status == "running", _lapsed(), Job.attempts >= max_attempts)
        .values(status="failed", error=error, finished_at=epoch(), **freed)
        .returning(Job.id)
    )
    for job_id in given_up.all():
        await events.append(session, job_id, message, level="error", data={"code": error["code"]})


async def _leave(session: AsyncSession, lease: Lease, status: str, **values: Any) -> None:
    changed = await session.scalar(
        _update()
        .where(_owned(lease))
        .values(status=status, stop_request=None, **_UNLEASED, **values)
        .returning(Job.id)
    )
    if changed is None:
        raise LeaseLostError(lease.job_id, lease.token)


def _update() -> Update:
    # Rows held in the session are never the ones changed here, so none need bringing up to date.
    return update(Job).execution_options(synchronize_session=False)


async def _locked(session: AsyncSession, job_id: str) -> Job:
    query = select(Job).where(Job.id == job_id).with_for_update()
    job = await session.scalar(query.execution_options(populate_existing=True))
    if job is None:
        raise JobNotFoundError(job_id)
    return job


def _owned(lease: Lease) -> ColumnElement[bool]:
    return and_(Job.id == lease.job_id, Job.lease_token == lease.token, Job.status.in_(IN_HAND))


def _lapsed() -> ColumnElement[bool]:
    return Job.lease_until < epoch()
