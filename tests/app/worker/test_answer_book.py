"""Paid calls: once for each question, within the budget, whoever is killed or cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.engine.interfaces import DBAPIConnection
from tests.support import jobs
from tests.support.answers import (
    ENDPOINT,
    EXPERT,
    INPUT,
    OUTPUT,
    Parrot,
    all_answers,
    all_calls,
    answer,
    claim_job,
    held_job,
    opened,
    question,
)

from evomerge.app.db.engine import Database, epoch
from evomerge.app.db.errors import LeaseLostError
from evomerge.app.db.models import Job, StoredAnswer
from evomerge.app.db.repositories import calls
from evomerge.app.db.repositories.answers import Outcome
from evomerge.app.db.repositories.calls import NOTHING, Booking, Cost
from evomerge.app.schemas.spec import Budget
from evomerge.app.worker.answer_book import AnswerBook
from evomerge.app.worker.paid_call import most
from evomerge.app.worker.spending import BudgetReachedError
from evomerge.connectors.errors import (
    AskError,
    CredentialError,
    HostRefusedError,
    OverloadedError,
    ProviderDownError,
    QuestionRefusedError,
    TooLongError,
)
from evomerge.connectors.question import Question


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.dispose()


async def ask_all(
    book: AnswerBook, numbers: Sequence[int], concurrency: int = 8
) -> dict[int, Outcome]:
    asked = [(question(number), EXPERT) for number in numbers]
    return {place: outcome async for place, outcome in book.ask_all(asked, concurrency)}


async def test_an_answer_is_paid_for_once(database: Database) -> None:
    lease, parrot = await held_job(database), Parrot()
    async with opened(database, lease, parrot) as book:
        first = await book.ask(question(1), EXPERT)
        again = await book.ask(question(1), EXPERT)
    assert first == again == answer("q0000001")
    assert parrot.asked == {"q0000001": 1}
    (call,) = await all_calls(database)
    assert call.settled
    assert (call.requests, call.input_tokens, call.output_tokens) == (1, INPUT, OUTPUT)
    assert call.usd == pytest.approx((INPUT + 2 * OUTPUT) / 1e6)


async def test_many_questions_are_each_asked_once(database: Database) -> None:
    lease, parrot = await held_job(database), Parrot()
    async with opened(database, lease, parrot) as book:
        got = await ask_all(book, [n % 700 for n in range(1500)], concurrency=32)
        assert book.spending.reserved.requests == 0
        assert book.spending.spent.requests == 700
    assert got == {n: answer(f"q{n % 700:07d}") for n in range(1500)}
    assert set(parrot.asked.values()) == {1}
    assert len(parrot.asked) == 700
    assert 1 < parrot.most <= 32
    assert len(await all_calls(database)) == 700
    async with opened(database, lease, Parrot(fault=lambda _: AssertionError())) as book:
        assert await ask_all(book, range(700)) == {n: answer(f"q{n:07d}") for n in range(700)}


async def test_tasks_that_ask_the_same_at_once_share_one_call(database: Database) -> None:
    lease, gate = await held_job(database), asyncio.Event()
    parrot = Parrot(gate=lambda _: gate.wait())
    async with opened(database, lease, parrot) as book:
        tasks = [asyncio.create_task(book.ask(question(1), EXPERT)) for _ in range(5)]
        await jobs.until(lambda: seen(parrot))
        gate.set()
        assert await asyncio.gather(*tasks) == [answer("q0000001")] * 5
    assert parrot.asked == {"q0000001": 1}


async def test_the_sample_tells_questions_apart(database: Database) -> None:
    lease, parrot = await held_job(database), Parrot()
    async with opened(database, lease, parrot) as book:
        for sample in (0, 1, 1):
            await book.ask(question(1, sample=sample), EXPERT)
    assert parrot.asked == {"q0000001": 2}


async def test_two_books_never_ask_the_same(database: Database) -> None:
    """Two jobs, each with a book of its own, as in two processes."""
    leases = [await held_job(database, f"mj_{n}") for n in range(2)]
    parrot = Parrot(gate=lambda _: asyncio.sleep(0.01))
    async with AsyncExitStack() as stack:
        books = [await stack.enter_async_context(opened(database, each, parrot)) for each in leases]
        got = await asyncio.gather(*(ask_all(book, range(120)) for book in books))
    assert got[0] == got[1] == {n: answer(f"q{n:07d}") for n in range(120)}
    assert set(parrot.asked.values()) == {1}
    spent = [len(await all_calls(database, lease.job_id)) for lease in leases]
    assert sum(spent) == 120


async def test_a_claim_that_lapsed_is_taken_over(database: Database) -> None:
    lease, other = await held_job(database), await held_job(database, "mj_2")
    gone, parrot = Parrot(gate=lambda _: asyncio.Event().wait()), Parrot()
    async with opened(database, other, gone) as stale, opened(database, lease, parrot) as book:
        stuck = asyncio.create_task(stale.ask(question(1), EXPERT))
        await jobs.until(lambda: seen(gone))
        waiting = asyncio.create_task(book.ask(question(1), EXPERT))
        await asyncio.wait([waiting], timeout=0.1)
        assert not parrot.asked
        async with database.write() as session:
            await session.execute(update(StoredAnswer).values(lease_until=epoch() - 1))
        assert await waiting == answer("q0000001")
        stuck.cancel()
    assert parrot.asked == {"q0000001": 1}


async def test_a_claim_is_renewed_while_its_question_is_under_way(database: Database) -> None:
    lease, gate = await held_job(database), asyncio.Event()
    parrot = Parrot(gate=lambda _: gate.wait())

    async def until() -> float:
        (row,) = (await all_answers(database)).values()
        assert row.lease_until is not None
        return row.lease_until

    async with opened(database, lease, parrot, lease_seconds=0.4) as book:
        task = asyncio.create_task(book.ask(question(1), EXPERT))
        await jobs.until(lambda: seen(parrot))
        first = await until()

        async def renewed() -> bool:
            return await until() > first + 0.4

        await jobs.until(renewed)
        gate.set()
        assert await task == answer("q0000001")


@pytest.mark.parametrize("kind", [QuestionRefusedError, TooLongError])
async def test_a_refused_question_is_not_asked_again(
    database: Database, kind: type[QuestionRefusedError]
) -> None:
    lease = await held_job(database)
    parrot = Parrot(fault=lambda _: kind("m", "no", param="messages"))
    for _ in range(2):
        async with opened(database, lease, parrot) as book:
            with pytest.raises(kind, match="m: no"):
                await book.ask(question(1), EXPERT)
            (refusal,) = (await ask_all(book, [1])).values()
            assert type(refusal) is kind
    assert parrot.asked == {"q0000001": 1}
    (call,) = await all_calls(database)
    assert (call.requests, call.input_tokens, call.usd, call.settled) == (1, 0, 0.0, True)


async def test_a_refusal_of_our_own_is_asked_again(database: Database) -> None:
    lease = await held_job(database)
    parrot = Parrot(fault=lambda _: QuestionRefusedError("m", "no", requests=0), attempts=0)
    async with opened(database, lease, parrot) as book:
        with pytest.raises(QuestionRefusedError):
            await book.ask(question(1), EXPERT)
        parrot.fault, parrot.attempts = lambda _: None, 1
        assert await book.ask(question(1), EXPERT) == answer("q0000001")


@pytest.mark.parametrize("charged", [0, 1])
@pytest.mark.parametrize(
    "kind", [CredentialError, HostRefusedError, OverloadedError, ProviderDownError]
)
async def test_other_failures_go_up_and_leave_the_question_free(
    database: Database, kind: type[AskError], charged: int
) -> None:
    lease = await held_job(database)
    parrot = Parrot(fault=lambda _: kind("m", "no", requests=1, charged=charged))
    async with opened(database, lease, parrot) as book:
        with pytest.raises(kind):
            await book.ask(question(1), EXPERT)
        with pytest.raises(kind):
            await ask_all(book, range(3))
        assert book.spending.reserved == NOTHING
    whole = most(question(1), EXPERT)
    failed = (await all_calls(database))[0]
    assert failed.requests == 1
    assert failed.input_tokens == charged * whole.input_tokens
    async with opened(database, lease, Parrot()) as book:
        assert await book.ask(question(1), EXPERT) == answer("q0000001")
    assert all(call.settled for call in await all_calls(database))


@pytest.mark.parametrize("lost", [False, True])
async def test_requests_that_had_to_be_repeated_stay_booked(database: Database, lost: bool) -> None:
    """At their tokens only where they may have been charged."""
    lease, parrot = await held_job(database), Parrot(attempts=3, lost=lost)
    async with opened(database, lease, parrot) as book:
        await book.ask(question(1), EXPERT)
        whole = most(question(1), EXPERT)
        assert book.spending.spent.requests == 3
        assert book.spending.spent.input_tokens == INPUT + 2 * lost * whole.input_tokens
        async with database.read() as session:
            assert await calls.total(session, "mj_1") == book.spending.spent


async def test_the_budget_of_requests_is_kept_to_the_last_one(database: Database) -> None:
    lease, parrot = await held_job(database), Parrot()
    outcomes: list[Outcome] = []

    async def collect(book: AnswerBook) -> None:
        asked = [(question(number), EXPERT) for number in range(30)]
        async for _, outcome in book.ask_all(asked, 4):
            outcomes.append(outcome)

    async with opened(database, lease, parrot, Budget(requests=10)) as book:
        with pytest.raises(BudgetReachedError, match="requests") as reached:
            await collect(book)
    assert (reached.value.budget, reached.value.param) == ("requests", "budget.requests")
    assert parrot.asked.total() == len(outcomes) == 10


@pytest.mark.parametrize("name", ["input_tokens", "output_tokens", "usd"])
async def test_other_budgets_are_never_exceeded(database: Database, name: str) -> None:
    lease, parrot = await held_job(database), Parrot(gate=lambda _: asyncio.sleep(0.001))
    limit = 5.5 * getattr(most(question(1), EXPERT), name)
    budget = Budget.model_validate({name: limit if name == "usd" else int(limit)})
    async with opened(database, lease, parrot, budget) as book:
        with pytest.raises(BudgetReachedError, match=name):
            await ask_all(book, range(30))
    async with database.read() as session:
        spent = getattr(await calls.total(session, "mj_1"), name)
    # It waits for what is under way: settled below what was reserved, it makes room for more.
    assert limit - getattr(most(question(1), EXPERT), name) < spent <= limit
    assert parrot.asked.total() > 5


async def test_a_repeated_request_that_does_not_fit_is_not_sent(database: Database) -> None:
    lease, parrot = await held_job(database), Parrot(attempts=3)
    async with opened(database, lease, parrot, Budget(requests=2)) as book:
        with pytest.raises(BudgetReachedError):
            await book.ask(question(1), EXPERT)
    assert parrot.asked.total() == 2
    (call,) = await all_calls(database)
    assert (call.requests, call.settled) == (2, True)


async def test_refused_requests_take_no_room_for_tokens(database: Database) -> None:
    whole = most(question(1), EXPERT)
    budget = Budget(input_tokens=whole.input_tokens, output_tokens=whole.output_tokens)
    lease, parrot = await held_job(database), Parrot(attempts=5)
    async with opened(database, lease, parrot, budget) as book:
        assert await book.ask(question(1), EXPERT) == answer("q0000001", 5)
        assert book.spending.spent == Cost(5, INPUT, OUTPUT, EXPERT.price.of(INPUT, OUTPUT))


async def test_a_lost_request_that_leaves_no_room_is_not_repeated(database: Database) -> None:
    whole = most(question(1), EXPERT)
    lease, parrot = await held_job(database), Parrot(attempts=5, lost=True)
    async with opened(database, lease, parrot, Budget(input_tokens=2 * whole.input_tokens)) as book:
        with pytest.raises(BudgetReachedError, match="input_tokens"):
            await book.ask(question(1), EXPERT)
    (call,) = await all_calls(database)
    assert (call.requests, call.input_tokens) == (2, 2 * whole.input_tokens)


async def test_reservations_grow_with_what_the_server_was_seen_to_count(
    database: Database,
) -> None:
    """Twice what was foreseen: the second call is reserved at what the first one came to."""
    lease, parrot = await held_job(database), Parrot(input_tokens=2 * INPUT)
    budget = Budget(input_tokens=11 * INPUT)
    async with opened(database, lease, parrot, budget) as book:
        for number in range(5):
            await book.ask(question(number), EXPERT)
        with pytest.raises(BudgetReachedError, match="input_tokens"):
            await book.ask(question(5), EXPERT)
        assert book.spending.spent.input_tokens == 10 * INPUT


async def test_running_time_is_a_budget_too(database: Database) -> None:
    lease, parrot, time = await held_job(database), Parrot(), [0.0]
    async with opened(database, lease, parrot, Budget(seconds=5), seconds=lambda: time[0]) as book:
        await book.ask(question(1), EXPERT)
        time[0] = 5.0
        with pytest.raises(BudgetReachedError, match="seconds"):
            await book.ask(question(2), EXPERT)
        assert await book.ask(question(1), EXPERT) == answer("q0000001")


async def test_known_answers_cost_nothing_when_the_budget_is_spent(database: Database) -> None:
    first, parrot = await held_job(database), Parrot()
    async with opened(database, first, parrot) as book:
        await ask_all(book, range(20))
    second = await held_job(database, "mj_2")
    async with opened(database, second, parrot, Budget(requests=1)) as book:
        assert len(await ask_all(book, range(20))) == 20
        assert await book.ask(question(3), EXPERT) == answer("q0000003")
        assert book.spending.spent == NOTHING
    assert await all_calls(database, "mj_2") == []
    assert parrot.asked.total() == 20


async def test_the_budget_is_kept_across_attempts(database: Database) -> None:
    lease, parrot = await held_job(database), Parrot()
    for _ in range(3):
        async with opened(database, lease, parrot, Budget(requests=10)) as book:
            if not parrot.asked:
                await ask_all(book, range(6))
                continue
            with pytest.raises(BudgetReachedError):
                await ask_all(book, range(30))
    assert parrot.asked.total() == 10


async def test_what_a_crash_left_reserved_counts_as_spent(database: Database) -> None:
    lease = await held_job(database)
    async with database.write() as session:
        await calls.reserve(session, "mj_1", [Booking(1, question(99).key, Cost(requests=4))])
    parrot = Parrot()
    async with opened(database, lease, parrot, Budget(requests=10)) as book:
        with pytest.raises(BudgetReachedError):
            await ask_all(book, range(30))
    assert parrot.asked.total() == 6


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


async def test_usage_is_told_by_model(database: Database) -> None:
    lease, parrot = await held_job(database), Parrot()
    other = replace(ENDPOINT, base_url="https://me:secret@api.example.com/v1", model="gpt")
    async with opened(database, lease, parrot) as book:
        await ask_all(book, range(3))
        await book.ask(question(1, endpoint=other), EXPERT)
        usage = await book.usage()
    assert list(usage) == ["http://127.0.0.1:9/v1 parrot", "https://api.example.com/v1 gpt"]
    assert [cost.requests for cost in usage.values()] == [3, 1]
    assert usage["http://127.0.0.1:9/v1 parrot"].input_tokens == 3 * INPUT


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


async def seen(parrot: Parrot) -> bool:
    return bool(parrot.asked)


async def so(truth: bool) -> bool:
    return truth
