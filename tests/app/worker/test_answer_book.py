"""Paid calls: once for each question, within the budget, whoever is killed or cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from tests.support.answers import (
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

from evomerge.app.db.engine import Database
from evomerge.app.db.repositories.answers import Outcome
from evomerge.app.worker.answer_book import AnswerBook


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
