"""What the storage promises a worker, on every database."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from tests.support import jobs

from evomerge.app.db.engine import Database, epoch
from evomerge.app.db.errors import JobNotFoundError, JobStateError, LeaseLostError
from evomerge.app.db.models import Job
from evomerge.app.db.repositories import evaluations, events, queue
from evomerge.app.db.repositories.evaluations import HELD_OUT, HELD_OUT_NUMBER, Scored
from evomerge.app.db.repositories.queue import Lease, StopRequest
from evomerge.optimizers import Candidate

LONG = 1000.0
ATTEMPTS = 3


@pytest.fixture
async def database(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(database_url, pool_size=10)
    yield database
    await database.dispose()


@pytest.fixture
async def queued(database: Database, tmp_path: Path) -> str:
    """A job that waits, of id mj_1."""
    await jobs.add_job(database, jobs.inputs(tmp_path))
    return "mj_1"


async def claim(database: Database, owner: str = "one") -> Lease | None:
    async with database.write() as session:
        return await queue.claim(session, owner, LONG, ATTEMPTS)


async def held(database: Database, owner: str = "one") -> Lease:
    lease = await claim(database, owner)
    assert lease is not None
    return lease


async def lapse(database: Database) -> None:
    """Let every lease run out."""
    async with database.write() as session:
        await session.execute(update(Job).values(lease_until=epoch() - 1))


async def stop(database: Database, request: StopRequest) -> str:
    async with database.write() as session:
        return await queue.request_stop(session, "mj_1", request)


async def fence(database: Database, lease: Lease) -> StopRequest | None:
    async with database.write() as session:
        return await queue.fence(session, lease)


async def release(database: Database, lease: Lease) -> str:
    async with database.write() as session:
        return await queue.release(session, lease)


def row(
    index: int = 0, *, loss: float = 1.5, stage_number: int = 0, stage: str = "probe"
) -> Scored:
    candidate = Candidate(np.array([[0.1, 1.0]]), np.array([[-0.3, 1 / 3]]))
    losses = np.array([loss, 0.1])
    return Scored(stage_number, stage, 0, index, candidate, loss, 7, 0.5, losses, np.ones(2))


async def test_an_empty_queue_gives_nothing(database: Database) -> None:
    assert await claim(database) is None


async def test_a_claim_takes_the_oldest_job(database: Database, tmp_path: Path) -> None:
    for number in (2, 1, 3):
        await jobs.add_job(database, jobs.inputs(tmp_path), f"mj_{number}")
    taken = [(await held(database)).job_id for _ in range(3)]
    assert taken == ["mj_2", "mj_1", "mj_3"]
    assert await claim(database) is None


async def test_a_claimed_job_says_so(database: Database, queued: str) -> None:
    lease = await held(database, "me")
    job = await jobs.get_job(database)
    assert (job.status, job.lease_owner, job.attempts) == ("running", "me", 1)
    assert lease == Lease(queued, "me", job.lease_token)
    assert job.started_at is not None
    assert job.lease_until is not None
    assert job.lease_until == pytest.approx(job.started_at + LONG, abs=1)


async def test_many_workers_never_claim_the_same_job(database: Database, tmp_path: Path) -> None:
    for number in range(6):
        await jobs.add_job(database, jobs.inputs(tmp_path), f"mj_{number}")
    claims = await asyncio.gather(*(claim(database, f"w{n}") for n in range(9)))
    taken = [lease.job_id for lease in claims if lease]
    assert sorted(taken) == [f"mj_{n}" for n in range(6)]


async def test_a_lapsed_lease_is_taken_over_and_the_first_worker_fenced(
    database: Database, queued: str
) -> None:
    first = await held(database, "first")
    await lapse(database)
    second = await held(database, "second")
    assert second.token == first.token + 1
    with pytest.raises(LeaseLostError):
        await fence(database, first)
    with pytest.raises(LeaseLostError):
        await release(database, first)
    with pytest.raises(LeaseLostError):
        async with database.write() as session:
            await queue.succeed(session, first, {})
    with pytest.raises(LeaseLostError):
        async with database.write() as session:
            await queue.fail(session, first, "x", "y")
    async with database.write() as session:
        beaten = await session.execute(queue.beat(first, LONG))
        assert beaten.rowcount == 0
    assert await fence(database, second) is None


async def test_nothing_of_a_fenced_transaction_stays(database: Database, queued: str) -> None:
    first = await held(database, "first")
    await lapse(database)
    await held(database, "second")

    async def record() -> None:
        async with database.write() as session:
            await evaluations.append(session, queued, [row()])
            await events.append(session, queued, "from the dead")
            await queue.fence(session, first)

    with pytest.raises(LeaseLostError):
        await record()
    async with database.read() as session:
        assert await evaluations.count(session, queued) == 0
        assert not await events.page(session, queued)


async def test_a_beat_prolongs_a_lease_even_a_lapsed_one(database: Database, queued: str) -> None:
    lease = await held(database)
    await lapse(database)
    async with database.write() as session:
        assert (await session.execute(queue.beat(lease, LONG))).rowcount == 1
    assert await claim(database, "second") is None


async def test_attempts_are_capped(database: Database, queued: str) -> None:
    for _ in range(ATTEMPTS):
        await held(database)
        await lapse(database)
    assert await claim(database) is None
    job = await jobs.get_job(database)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "attempts_exhausted"
    assert job.finished_at is not None
    async with database.read() as session:
        assert (await events.page(session, queued))[-1].level == "error"


async def test_a_graceful_release_burns_no_attempt(database: Database, queued: str) -> None:
    for _ in range(ATTEMPTS + 2):
        assert await release(database, await held(database)) == "queued"
    job = await jobs.get_job(database)
    assert (job.status, job.attempts, job.lease_owner) == ("queued", 0, None)


@pytest.mark.parametrize(
    ("request_", "while_running", "then"),
    [("pause", "pausing", "paused"), ("cancel", "cancelling", "cancelled")],
)
async def test_a_stop_is_obeyed_at_the_next_write(
    database: Database, queued: str, request_: StopRequest, while_running: str, then: str
) -> None:
    lease = await held(database)
    assert await stop(database, request_) == while_running
    assert await stop(database, request_) == while_running
    assert await fence(database, lease) == request_
    assert await release(database, lease) == then
    job = await jobs.get_job(database)
    assert (job.status, job.stop_request, job.attempts) == (then, None, 0)
    assert (job.finished_at is None) == (then == "paused")


@pytest.mark.parametrize(("request_", "then"), [("pause", "paused"), ("cancel", "cancelled")])
async def test_a_waiting_job_stops_at_once(
    database: Database, queued: str, request_: StopRequest, then: str
) -> None:
    assert await stop(database, request_) == then
    assert await claim(database) is None


@pytest.mark.parametrize(("request_", "then"), [("pause", "paused"), ("cancel", "cancelled")])
async def test_a_stop_survives_the_death_of_the_worker(
    database: Database, queued: str, request_: StopRequest, then: str
) -> None:
    lease = await held(database)
    await stop(database, request_)
    await lapse(database)
    assert await claim(database) is None
    assert (await jobs.get_job(database)).status == then
    with pytest.raises(LeaseLostError):
        await fence(database, lease)


async def test_a_cancel_overrides_a_pause_but_not_the_reverse(
    database: Database, queued: str
) -> None:
    await held(database)
    await stop(database, "pause")
    assert await stop(database, "cancel") == "cancelling"
    with pytest.raises(JobStateError, match="cancelling"):
        await stop(database, "pause")


async def test_a_paused_job_resumes_with_all_its_attempts(database: Database, queued: str) -> None:
    for _ in range(ATTEMPTS - 1):
        await held(database)
        await lapse(database)
    lease = await held(database)
    await stop(database, "pause")
    await release(database, lease)
    async with database.write() as session:
        assert await queue.resume(session, queued) == "queued"
        assert await queue.resume(session, queued) == "queued"
    assert (await jobs.get_job(database)).attempts == 0
    assert await claim(database) is not None


async def test_a_failed_job_resumes_without_its_error(database: Database, queued: str) -> None:
    lease = await held(database)
    async with database.write() as session:
        await queue.fail(session, lease, "disk_full", "no room", None)
    async with database.write() as session:
        await queue.resume(session, queued)
    job = await jobs.get_job(database)
    assert (job.status, job.error, job.finished_at) == ("queued", None, None)


@pytest.mark.parametrize("action", ["pause", "cancel", "resume"])
async def test_what_has_ended_stays_ended(database: Database, queued: str, action: str) -> None:
    lease = await held(database)
    async with database.write() as session:
        await queue.succeed(session, lease, {"answer": 42})

    async def act() -> str:
        async with database.write() as session:
            if action == "resume":
                return await queue.resume(session, queued)
            return await queue.request_stop(session, queued, action)  # type: ignore[arg-type]

    with pytest.raises(JobStateError, match="succeeded"):
        await act()
    job = await jobs.get_job(database)
    assert (job.status, job.result, job.lease_until) == ("succeeded", {"answer": 42}, None)


async def test_a_job_that_ends_before_its_stop_is_seen_has_ended(
    database: Database, queued: str
) -> None:
    lease = await held(database)
    await stop(database, "cancel")
    async with database.write() as session:
        await queue.succeed(session, lease, {})
    assert (await jobs.get_job(database)).status == "succeeded"


async def test_an_unknown_job_is_named(database: Database) -> None:
    with pytest.raises(JobNotFoundError, match="mj_x"):
        async with database.write() as session:
            await queue.request_stop(session, "mj_x", "pause")


async def test_progress_and_seconds_are_booked_with_the_fence(
    database: Database, queued: str
) -> None:
    lease = await held(database)
    for seconds in (1.5, 2.0):
        async with database.write() as session:
            await queue.fence(session, lease, progress={"stage": "probe"}, seconds=seconds)
    job = await jobs.get_job(database)
    assert (job.progress, job.seconds_used) == ({"stage": "probe"}, 3.5)


async def test_evaluations_come_back_bit_for_bit(database: Database, queued: str) -> None:
    rows = [row(1), row(0, loss=math.nan)]
    proof = row(0, stage_number=HELD_OUT_NUMBER, stage=HELD_OUT)
    async with database.write() as session:
        await evaluations.append(session, queued, [*rows, proof])
    async with database.read() as session:
        search = await evaluations.search_log(session, queued)
        proven = await evaluations.proof_log(session, queued)
        page = await evaluations.page(session, queued)
    assert [found.index for found in search] == [0, 1]
    assert math.isnan(search[0].loss)
    assert page[0].loss is None
    assert search[1].loss == 1.5
    assert np.array_equal(search[1].candidate.beta, rows[0].candidate.beta)
    assert np.array_equal(search[1].candidate.alpha, rows[0].candidate.alpha)
    assert (search[1].tokens, search[1].seconds) == (7, 0.5)
    assert [found.stage for found in proven] == [HELD_OUT]
    assert np.array_equal(proven[0].losses, proof.losses)
    assert np.array_equal(proven[0].weights, proof.weights)


async def test_the_same_evaluation_is_never_logged_twice(database: Database, queued: str) -> None:
    async with database.write() as session:
        await evaluations.append(session, queued, [row(0), row(1)])
        assert await evaluations.holds(session, queued, row(1))
        assert not await evaluations.holds(session, queued, row(2))
    with pytest.raises(IntegrityError):
        async with database.write() as session:
            await evaluations.append(session, queued, [row(2), row(1)])
    async with database.read() as session:
        assert await evaluations.count(session, queued) == 2


async def test_evaluations_are_paged_in_the_order_of_the_search(
    database: Database, queued: str
) -> None:
    async with database.write() as session:
        for stage_number in (1, 0):
            rows = [row(index, stage_number=stage_number) for index in range(3)]
            await evaluations.append(session, queued, rows)
    seen: list[evaluations.Key] = []
    async with database.read() as session:
        while page := await evaluations.page(
            session, queued, after=seen[-1] if seen else None, limit=2
        ):
            seen += [(found.stage_number, found.generation, found.index) for found in page]
    assert seen == [(stage, 0, index) for stage in (0, 1) for index in range(3)]


async def test_events_are_paged_by_id(database: Database, queued: str) -> None:
    async with database.write() as session:
        for number in range(5):
            await events.append(session, queued, f"event {number}", data={"n": number})
    async with database.read() as session:
        first = await events.page(session, queued, limit=3)
        rest = await events.page(session, queued, after=first[-1].id)
    assert [event.data["n"] for event in [*first, *rest]] == [0, 1, 2, 3, 4]
    assert first[0].created_at > 1e9
