"""What paid calls may cost, and what is booked of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.support.answers import (
    ENDPOINT,
    EXPERT,
    INPUT,
    OUTPUT,
    Parrot,
    all_calls,
    answer,
    ask_all,
    held_job,
    opened,
    question,
)

from evomerge.app.db.engine import Database
from evomerge.app.db.repositories import calls
from evomerge.app.db.repositories.answers import Outcome
from evomerge.app.db.repositories.calls import NOTHING, Booking, Cost
from evomerge.app.schemas.spec import Budget
from evomerge.app.worker.answer_book import AnswerBook
from evomerge.app.worker.paid_call import most
from evomerge.app.worker.spending import BudgetReachedError
from evomerge.connectors.question import Answer


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


async def test_what_waited_for_its_turn_until_time_was_up_is_not_sent(database: Database) -> None:
    time = [0.0]

    class Queued(Parrot):
        async def ask(self, *asked: Any) -> Answer:
            time[0] = 5.0
            return await super().ask(*asked)

    lease, parrot = await held_job(database), Queued()
    async with opened(database, lease, parrot, Budget(seconds=5), seconds=lambda: time[0]) as book:
        with pytest.raises(BudgetReachedError, match="seconds"):
            await book.ask(question(1), EXPERT)
        assert (book.spending.spent, book.spending.under_way) == (NOTHING, 0)
    assert not parrot.asked


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
