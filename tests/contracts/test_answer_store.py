"""What the storage promises of answers, claims and calls, on every database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event, text, update
from tests.support.answers import all_answers, all_calls, answer, held_job

from evomerge.app.db.engine import Database, epoch
from evomerge.app.db.models import StoredAnswer
from evomerge.app.db.repositories import answers, calls
from evomerge.app.db.repositories.answers import Outcome
from evomerge.app.db.repositories.calls import NOTHING, Booking, Cost
from evomerge.connectors.errors import QuestionRefusedError, TooLongError
from evomerge.connectors.question import Answer, Completion, Token

LONG = 1000.0
MODEL = "https://api.example.com/v1 parrot"
K1, K2, K3 = ("1" * 64, "2" * 64, "3" * 64)
COST = Cost(2, 300, 40, 0.25)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, pool_size=10)
    yield database
    await database.dispose()


async def claim(database: Database, *keys: str, owner: str = "one") -> set[str]:
    async with database.write() as session:
        return await answers.claim(session, dict.fromkeys(keys, MODEL), owner, LONG)


async def store(database: Database, outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
    async with database.write() as session:
        return await answers.store(session, {key: (MODEL, o) for key, o in outcomes.items()})


async def find(database: Database, *keys: str) -> dict[str, Outcome]:
    async with database.read() as session:
        return await answers.find(session, keys)


async def release(database: Database, *keys: str, owner: str = "one") -> None:
    async with database.write() as session:
        await answers.release(session, keys, owner)


async def lapse(database: Database, *keys: str) -> None:
    async with database.write() as session:
        await session.execute(
            update(StoredAnswer)
            .where(StoredAnswer.key.in_(keys))
            .values(lease_until=epoch() - 1)
            .execution_options(synchronize_session=False)
        )


async def reserve(database: Database, *bookings: Booking, job_id: str = "mj_1") -> None:
    async with database.write() as session:
        await calls.reserve(session, job_id, bookings)


async def revise(database: Database, *bookings: Booking) -> None:
    async with database.write() as session:
        await calls.revise(session, bookings)


async def total(database: Database, job_id: str = "mj_1") -> Cost:
    async with database.read() as session:
        return await calls.total(session, job_id)


async def test_an_answer_is_found_as_it_was_stored(database: Database) -> None:
    tokens = (Token("é", -0.25, (("é", -0.25), ("\n", -1e-300))), Token("<s>", None))
    whole = Answer((Completion("é\U0001f99c", "length", tokens, tokens[1:]),), 7, 1, 3)
    assert await store(database, {K1: whole}) == {K1: whole}
    assert await find(database, K1, K2) == {K1: whole}


async def test_what_a_database_cannot_hold_is_stored_in_its_place(database: Database) -> None:
    # Postgres has no text with a NUL, nor with half a surrogate pair.
    odd = Answer((Completion("a\0b\ud83e", "stop", (Token("\0", -1.0, (("\0", -1.0),)),)),), 1, 1)
    stored = (await store(database, {K1: odd}))[K1]
    assert isinstance(stored, Answer)
    assert stored.completions[0].text == "a�b�"
    assert stored.completions[0].tokens[0].alternatives == (("�", -1.0),)
    assert await find(database, K1) == {K1: stored}


@pytest.mark.parametrize("kind", [QuestionRefusedError, TooLongError])
async def test_a_refusal_is_found_again_and_then_costs_nothing(
    database: Database, kind: type[QuestionRefusedError]
) -> None:
    await store(database, {K1: kind("m", "too\0 rude", param="messages", charged=1)})
    found = (await find(database, K1))[K1]
    assert type(found) is kind
    assert (found.model, found.reason, found.param) == ("m", "too� rude", "messages")
    assert (found.requests, found.charged) == (0, 0)


async def test_a_question_is_claimed_by_one(database: Database) -> None:
    assert await claim(database, K1, K2) == {K1, K2}
    assert await claim(database, K3, K2, owner="two") == {K3}
    assert await find(database, K1, K2, K3) == {}


async def test_of_many_claims_at_once_each_question_goes_to_one(database: Database) -> None:
    keys = [f"{n:064d}" for n in range(100)]
    owners = [f"w{n}" for n in range(6)]
    got = await asyncio.gather(*(claim(database, *keys, owner=owner) for owner in owners))
    assert sorted(key for claimed in got for key in claimed) == keys
    rows = await all_answers(database)
    assert all(rows[key].owner == o for o, mine in zip(owners, got, strict=True) for key in mine)


async def test_a_claim_repeated_by_its_owner_is_given_again(database: Database) -> None:
    assert await claim(database, K1) == {K1}
    assert await claim(database, K1) == {K1}


async def test_a_lapsed_claim_is_taken_over_by_one(database: Database) -> None:
    await claim(database, K1, K2)
    await lapse(database, K1)
    got = await asyncio.gather(*(claim(database, K1, K2, owner=f"w{n}") for n in range(5)))
    assert sorted(map(len, got)) == [0, 0, 0, 0, 1]
    assert set().union(*got) == {K1}


async def test_a_renewed_claim_lasts(database: Database) -> None:
    await claim(database, K1, K2)
    await lapse(database, K1, K2)
    async with database.write() as session:
        await answers.renew(session, [K1], "one", LONG)
        await answers.renew(session, [K2], "two", LONG)
    assert await claim(database, K1, K2, owner="two") == {K2}


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_renewing_waits_for_nobody(database: Database) -> None:
    """On Postgres alone: SQLite has one writer at a time."""
    await claim(database, K1, K2)
    await lapse(database, K1, K2)
    async with database.write() as other, database.write() as session:
        await answers.store(other, {K1: (MODEL, answer("a"))})
        await answers.renew(session, [K1, K2], "one", LONG)
    assert await claim(database, K2, owner="two") == set()
    assert await find(database, K1) == {K1: answer("a")}


async def test_a_claim_given_back_is_free(database: Database) -> None:
    await claim(database, K1, K2)
    await release(database, K1)
    await release(database, K2, owner="two")
    assert await claim(database, K1, K2, owner="three") == {K1}
    assert {row.model for row in (await all_answers(database)).values()} == {MODEL}


async def test_what_is_answered_cannot_be_claimed_nor_changed(database: Database) -> None:
    await claim(database, K1, K2)
    await store(database, {K1: answer("first"), K2: QuestionRefusedError("m", "no")})
    assert await claim(database, K1, K2, owner="one") == set()
    await release(database, K1, K2)
    again = await store(database, {K1: answer("second"), K2: answer("second"), K3: answer("x")})
    assert again[K1] == answer("first")
    assert isinstance(again[K2], QuestionRefusedError)
    assert again[K3] == answer("x")
    rows = (await all_answers(database)).values()
    assert all((row.owner, row.lease_until) == (None, None) for row in rows)


async def test_an_answer_that_comes_after_its_claim_lapsed_is_kept(database: Database) -> None:
    await claim(database, K1)
    await lapse(database, K1)
    await claim(database, K1, owner="two")
    assert await store(database, {K1: answer("late")}) == {K1: answer("late")}
    assert await store(database, {K1: answer("later")}) == {K1: answer("late")}


async def test_reservations_count_until_they_are_settled(database: Database) -> None:
    await held_job(database)
    assert await total(database) == NOTHING
    await reserve(database, Booking(1, K1, COST), Booking(2**62 - 1, K2, COST))
    assert await total(database) == 2 * COST
    await revise(database, Booking(1, K1, Cost(1, 10, 4, 0.125), settled=True))
    assert await total(database) == COST + Cost(1, 10, 4, 0.125)
    assert {call.id: call.settled for call in await all_calls(database)} == {
        1: True,
        2**62 - 1: False,
    }


async def test_a_reservation_repeated_counts_once(database: Database) -> None:
    await held_job(database)
    await reserve(database, Booking(1, K1, COST))
    await reserve(database, Booking(1, K1, COST))
    assert await total(database) == COST


async def test_revising_what_is_not_booked_changes_nothing(database: Database) -> None:
    await held_job(database)
    await revise(database, Booking(1, K1, COST))
    assert await all_calls(database) == []


async def test_jobs_and_models_are_told_apart(database: Database) -> None:
    await held_job(database, "mj_1")
    await held_job(database, "mj_2")
    await claim(database, K1, K2)
    async with database.write() as session:
        await answers.claim(session, {K3: "other"}, "one", LONG)
    await reserve(database, Booking(1, K1, COST), Booking(2, K2, COST), Booking(3, K3, COST))
    await reserve(database, Booking(4, K1, replace(COST, usd=9.0)), job_id="mj_2")
    async with database.read() as session:
        assert await calls.by_model(session, "mj_1") == {MODEL: 2 * COST, "other": COST}
        assert await calls.by_model(session, "mj_2") == {MODEL: replace(COST, usd=9.0)}
    assert await total(database, "mj_2") == replace(COST, usd=9.0)


async def test_large_sums_do_not_overflow(database: Database) -> None:
    await held_job(database)
    await reserve(database, *(Booking(n, K1, Cost(1, 2**40, 2**40)) for n in range(3)))
    assert await total(database) == Cost(3, 3 * 2**40, 3 * 2**40)


async def test_an_open_claim_is_null_and_no_json(database: Database) -> None:
    await claim(database, K1)
    async with database.read() as session:
        query = text("SELECT answer IS NULL AND failure IS NULL FROM answers")
        assert await session.scalar(query)


async def test_many_rows_take_as_many_statements_as_one(database: Database) -> None:
    await held_job(database)

    async def statements(count: int) -> int:
        keys = [f"{count}{n:060d}" for n in range(count)]
        sent: list[str] = []

        def note(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
            sent.append(statement)

        event.listen(database.engine.sync_engine, "before_cursor_execute", note)
        assert await claim(database, *keys) == set(keys)
        await store(database, {key: answer("a") for key in keys})
        bookings = [Booking(1000 * count + n, key, COST) for n, key in enumerate(keys)]
        await reserve(database, *bookings)
        await revise(database, *(replace(booking, settled=True) for booking in bookings))
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)
        return len(sent)

    assert await statements(90) == await statements(1)
