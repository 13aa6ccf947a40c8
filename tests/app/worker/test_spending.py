"""Budgets hold whatever the order in which calls begin, fail, are repeated and end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.answers import ENDPOINT, EXPERT, INPUT, OUTPUT, answer, question

from evomerge.app.db.repositories.calls import NOTHING, Cost
from evomerge.app.schemas.spec import Budget
from evomerge.app.worker.paid_call import PaidCall, most
from evomerge.app.worker.spending import BudgetReachedError, Spending
from evomerge.connectors.client import Call as Sent
from evomerge.connectors.errors import OverloadedError, ProviderDownError
from evomerge.connectors.expert import Capabilities
from evomerge.connectors.question import Question, Sampling

NAMES = ("requests", "input_tokens", "output_tokens", "usd")
ROOM = 1 + 1e-9

costs = st.builds(
    Cost,
    requests=st.integers(1, 3),
    input_tokens=st.integers(0, 40),
    output_tokens=st.integers(0, 40),
    usd=st.floats(0, 0.5),
)
limits = st.builds(
    Budget,
    requests=st.none() | st.integers(1, 12),
    input_tokens=st.none() | st.integers(1, 200),
    output_tokens=st.none() | st.integers(1, 200),
    usd=st.none() | st.floats(0.01, 2.0),
)


def spending(budget: Budget, spent: Cost = NOTHING) -> Spending:
    return Spending(budget, spent, lambda: 0.0)


def holds(books: Spending, budget: Budget) -> bool:
    whole = books.spent + books.reserved
    return all(
        getattr(whole, name) <= limit * ROOM
        for name in NAMES
        if (limit := getattr(budget, name)) is not None
    )


def part(cost: Cost, share: float) -> Cost:
    """At most `cost`."""
    return Cost(*(int(share * n) for n in (cost.requests, cost.input_tokens)), 0, share * cost.usd)


@given(data=st.data(), budget=limits, wanted=st.lists(costs, max_size=25))
async def test_spent_and_reserved_never_pass_the_budget(
    data: st.DataObject, budget: Budget, wanted: list[Cost]
) -> None:
    """Any interleaving of calls that wait, begin, are repeated, fail and end."""
    books = spending(budget)
    waiting = [asyncio.create_task(books.reserve(cost)) for cost in wanted]
    under_way: dict[int, Cost] = {}
    seen: set[int] = set()
    while True:
        for _ in range(3):
            await asyncio.sleep(0)
        assert holds(books, budget)
        for number, task in enumerate(waiting):
            if task.done() and number not in seen:
                seen.add(number)
                if task.exception() is None:
                    under_way[number] = wanted[number]
        if not under_way:
            break
        number = data.draw(st.sampled_from(sorted(under_way)))
        booked = under_way[number]
        match data.draw(st.sampled_from(["end", "fail", "free", "repeat"])):
            case "end":
                books.settle(booked, part(booked, data.draw(st.floats(0, 1))))
                del under_way[number]
            case "fail":
                books.settle(booked, booked)
                del under_way[number]
            case "free":
                books.settle(booked, NOTHING)
                del under_way[number]
            case "repeat":
                more = data.draw(costs)
                try:
                    books.take(more)
                except BudgetReachedError:
                    books.settle(booked, booked)
                    del under_way[number]
                else:
                    under_way[number] = booked + more
    # Nobody waits for ever: with nothing under way, everyone was let in or turned away.
    assert all(task.done() for task in waiting)
    assert books.reserved == NOTHING
    errors = [task.exception() for task in waiting]
    assert all(error is None or isinstance(error, BudgetReachedError) for error in errors)


@given(budget=limits, spent=costs, wanted=costs)
async def test_only_what_cannot_fit_is_turned_away(
    budget: Budget, spent: Cost, wanted: Cost
) -> None:
    books = spending(budget, spent)
    fits = all(
        getattr(budget, name) is None
        or getattr(spent + wanted, name) <= getattr(budget, name) * ROOM
        for name in NAMES
    )
    if fits:
        await books.reserve(wanted)
        assert books.reserved == wanted
        return
    with pytest.raises(BudgetReachedError) as turned_away:
        await books.reserve(wanted)
    name = turned_away.value.budget
    assert getattr(spent + wanted, name) > getattr(budget, name)


async def test_a_sum_of_prices_may_equal_its_limit() -> None:
    books = spending(Budget(usd=0.3))
    for _ in range(3):
        await books.reserve(Cost(usd=0.1))
    with pytest.raises(BudgetReachedError, match="usd"):
        books.take(Cost(usd=0.001))


async def test_who_cannot_fit_does_not_wait() -> None:
    books = spending(Budget(requests=3))
    await books.reserve(Cost(requests=2))
    with pytest.raises(BudgetReachedError):
        await books.reserve(Cost(requests=4))


@pytest.mark.parametrize(
    ("prompts", "samples", "batches", "many", "requests", "draws"),
    [
        (1, 1, False, False, 1, 1),
        (4, 1, False, False, 4, 1),
        (4, 1, True, False, 1, 1),
        (1, 3, False, False, 3, 3),
        (1, 3, False, True, 1, 1),
        (4, 3, True, False, 12, 3),
        (4, 3, True, True, 1, 1),
        (4, 3, False, True, 4, 1),
    ],
)
def test_what_a_question_can_cost(
    prompts: int, samples: int, batches: bool, many: bool, requests: int, draws: int
) -> None:
    known = Capabilities(
        bytes_per_token=2.0, overhead_tokens=3, batches=batches, samples=many, zero_tokens=True
    )
    expert = replace(EXPERT, capabilities=known)
    asked = Question(
        ENDPOINT, prompts=("12345678",) * prompts, sampling=Sampling(max_tokens=5), samples=samples
    )
    cost = most(asked, expert)
    estimated = prompts * (8 / 2 + 3)
    assert cost.requests == requests
    assert draws * estimated <= cost.input_tokens <= draws * (1.25 * estimated + 1)
    assert cost.output_tokens == 5 * samples * prompts
    assert cost.usd == pytest.approx((cost.input_tokens + 2 * cost.output_tokens) / 1e6)


def test_where_nothing_may_be_written_a_token_is_reserved_for_a_server_that_writes_one() -> None:
    asked = Question(ENDPOINT, prompts=("a", "b"), sampling=Sampling(max_tokens=0), echo=True)
    assert most(asked, EXPERT).output_tokens == 0
    assert most(asked, replace(EXPERT, capabilities=Capabilities())).output_tokens == 2


def test_a_failure_costs_what_its_requests_may_have_cost() -> None:
    call = PaidCall.of(question(1), EXPERT)
    whole = call.foreseen
    assert call.failed(OverloadedError("m", "busy", requests=3)) == Cost(requests=3)
    lost = ProviderDownError("m", "silent", requests=3, charged=2)
    assert call.failed(lost) == 2 * whole + Cost(requests=1)
    assert call.failed(OverloadedError("m", "busy", requests=0)) == NOTHING


def test_an_answer_costs_the_requests_that_were_lost_before_it_too() -> None:
    call = PaidCall.of(question(1), EXPERT)
    once, busy, lost = (call.answered(answer("a", *sent)) for sent in ((1, 0), (3, 0), (3, 2)))
    assert once == Cost(1, INPUT, OUTPUT, EXPERT.price.of(INPUT, OUTPUT))
    assert busy == once + Cost(requests=2)
    assert lost == once + 2 * call.foreseen


@given(outcomes=st.lists(st.sampled_from(["refused", "lost", "answered"]), max_size=12))
def test_what_is_booked_before_a_request_covers_all_that_can_come_of_it(
    outcomes: list[str],
) -> None:
    """Of a question that takes four requests, some of them to be repeated."""
    prompts = ("12345678",) * 4
    asked = Question(ENDPOINT, prompts=prompts, sampling=Sampling(max_tokens=5))
    expert = replace(EXPERT, capabilities=replace(EXPERT.capabilities, batches=False))
    call, sent = PaidCall.of(asked, expert), Sent(ENDPOINT)
    for outcome in outcomes:
        if sent.answered == len(prompts):
            break
        booked = call.most(sent)
        sent.requests += 1
        sent.charged += outcome != "refused"
        sent.answered += outcome == "answered"
        failed = ProviderDownError("m", "no", requests=sent.requests, charged=sent.charged)
        call.sent = sent
        for cost in (call.failed(failed), call.left()):
            assert all(getattr(cost, name) <= ROOM * getattr(booked, name) for name in NAMES)
