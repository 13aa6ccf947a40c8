"""Paid calls that are cancelled, outlive their job, or find no room to be stored."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.engine.interfaces import DBAPIConnection
from tests.support import jobs
from tests.support.answers import (
    EXPERT,
    INPUT,
    Parrot,
    all_answers,
    all_calls,
    answer,
    ask_all,
    claim_job,
    held_job,
    opened,
    question,
    seen,
    so,
)

from evomerge.app.db.engine import Database, epoch
from evomerge.app.db.errors import LeaseLostError
from evomerge.app.db.models import Job
from evomerge.app.db.repositories import calls
from evomerge.app.db.repositories.calls import NOTHING
from evomerge.app.worker.paid_call import most
from evomerge.connectors.question import Question


async def test_a_cancelled_call_gives_its_claim_back_and_stays_booked(database: Database) -> None:
    lease, parrot = await held_job(database), Parrot(gate=lambda _: asyncio.Event().wait())
    async with opened(database, lease, parrot) as book:
        task = asyncio.create_task(book.ask(question(1), EXPERT))
        await jobs.until(lambda: seen(parrot))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        parrot.gate = None
        assert await book.ask(question(1), EXPERT) == answer("q0000001")
    cancelled, paid = sorted(await all_calls(database), key=lambda call: -call.input_tokens)
    whole = most(question(1), EXPERT)
    assert (cancelled.requests, cancelled.input_tokens) == (1, whole.input_tokens)
    assert (paid.requests, paid.input_tokens) == (1, INPUT)


async def test_cancelled_before_anything_is_sent_it_costs_nothing(database: Database) -> None:
    lease, parrot = await held_job(database), Parrot(gate=lambda _: asyncio.Event().wait())
    parrot.attempts, under_way = 0, lambda: so(parrot.most == 1)
    async with opened(database, lease, parrot) as book:
        task = asyncio.create_task(book.ask(question(1), EXPERT))
        await jobs.until(under_way)
        task.cancel()
        await asyncio.wait([task])
        assert book.spending.spent == NOTHING
    (call,) = await all_calls(database)
    assert (call.requests, call.input_tokens, call.usd, call.settled) == (0, 0, 0.0, True)


async def test_cancelled_at_any_moment_it_leaves_no_claim(database: Database) -> None:
    lease, parrot = await held_job(database), Parrot()
    for steps in range(40):
        async with opened(database, lease, parrot) as book:
            task = asyncio.create_task(ask_all(book, range(100 * steps, 100 * steps + 3)))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert book.spending.reserved == NOTHING
    assert all(call.settled for call in await all_calls(database))
    assert all(row.owner is None for row in (await all_answers(database)).values())
    async with database.read() as session:
        spent = await calls.total(session, "mj_1")
    assert spent.requests == parrot.asked.total()


async def test_leaving_early_cancels_the_rest(database: Database) -> None:
    lease, parrot = await held_job(database), Parrot(gate=lambda q: first_only(q))
    async with opened(database, lease, parrot) as book:
        asked = [(question(number), EXPERT) for number in range(50)]
        async with aclosing(book.ask_all(asked, 4)) as outcomes:
            async for place, outcome in outcomes:
                assert (place, outcome) == (0, answer("q0000000"))
                break
        assert book.spending.reserved == NOTHING
    assert parrot.asked.total() <= 8
    assert all(row.owner is None for row in (await all_answers(database)).values())


async def test_a_worker_that_lost_the_job_sends_nothing_more_but_keeps_its_answers(
    database: Database,
) -> None:
    lease, gate = await held_job(database), asyncio.Event()
    parrot = Parrot(gate=lambda _: gate.wait())
    async with opened(database, lease, parrot) as book:
        paid = asyncio.create_task(book.ask(question(1), EXPERT))
        await jobs.until(lambda: seen(parrot))
        async with database.write() as session:
            await session.execute(update(Job).values(lease_until=epoch() - 1))
        successor = await claim_job(database, "two")
        with pytest.raises(LeaseLostError):
            await book.ask(question(2), EXPERT)
        gate.set()
        assert await paid == answer("q0000001")
    assert parrot.asked == {"q0000001": 1}
    async with opened(database, successor, parrot) as book:
        assert book.spending.spent.requests == 1
        assert await book.ask(question(1), EXPERT) == answer("q0000001")
    assert parrot.asked == {"q0000001": 1}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_database_that_is_locked_for_a_while_loses_nothing(database: Database) -> None:
    lease, gate = await held_job(database), asyncio.Event()
    parrot = Parrot(gate=lambda _: gate.wait())
    async with opened(database, lease, parrot) as book:
        task = asyncio.create_task(book.ask(question(1), EXPERT))
        await jobs.until(lambda: seen(parrot))
        async with database.write() as session:
            await session.execute(text("SELECT 1"))
            gate.set()
            await asyncio.wait([task], timeout=0.2)
            assert not task.done()
        assert await task == answer("q0000001")
    (call,) = await all_calls(database)
    assert call.settled


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_full_disk_is_waited_for(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite is told to grow no more, which it reports as it does a full disk."""
    lease, parrot = await held_job(database), Parrot()

    async def limit(pages: int) -> None:
        database.engine.sync_engine.pool.dispose()
        event.listen(database.engine.sync_engine, "connect", partial(_limit, pages))

    async with database.read() as session:
        pages = await session.scalar(text("PRAGMA page_count"))
    await limit(pages + 1)
    async with opened(database, lease, parrot) as book:
        task = asyncio.create_task(ask_all(book, range(200), 64))
        await jobs.until(lambda: so("full" in caplog.text), patience=60)
        assert not task.done()
        await limit(1_000_000)
        assert len(await task) == 200
    assert set(parrot.asked.values()) == {1}
    assert all(call.settled for call in await all_calls(database))


def _limit(pages: int, connection: DBAPIConnection, record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA max_page_count = {pages}")
    cursor.close()


async def first_only(asked: Question) -> None:
    if asked != question(0):
        await asyncio.Event().wait()
