"""Questions to APIs: asked once each, by whomever, and not again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import insert, update
from tests.support import jobs
from tests.support.answers import (
    EXPERT,
    INPUT,
    OUTPUT,
    Parrot,
    all_answers,
    all_calls,
    answer,
    ask_all,
    held_job,
    opened,
    question,
    seen,
)

from evomerge.app.db.engine import Database, epoch
from evomerge.app.db.models import StoredAnswer
from evomerge.app.db.repositories.calls import NOTHING
from evomerge.app.worker.paid_call import most
from evomerge.connectors.errors import (
    AskError,
    CredentialError,
    HostRefusedError,
    OverloadedError,
    ProviderDownError,
    QuestionRefusedError,
    TooLongError,
)


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


async def test_an_answer_in_another_form_is_asked_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an earlier version stored it: tokens by name, one by one."""
    lease, parrot = await held_job(database), Parrot()
    tokens = [{"text": "q", "logprob": -0.5, "alternatives": []}]
    completion = {"text": "q", "finish": "stop", "tokens": tokens, "prompt_tokens": []}
    with monkeypatch.context() as earlier:
        earlier.setattr("evomerge.connectors.question.ANSWER_FORM", 1)
        key = question(1).key
    async with database.write() as session:
        stored = {"completions": [completion], "input_tokens": 8}
        await session.execute(
            insert(StoredAnswer).values(key=key, model="m", answer=stored, created_at=0.0)
        )
    async with opened(database, lease, parrot) as book:
        assert await book.ask(question(1), EXPERT) == answer("q0000001")
        assert await ask_all(book, [1]) == {0: answer("q0000001")}
    assert parrot.asked == {"q0000001": 1}


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
