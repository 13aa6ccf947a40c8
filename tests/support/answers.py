"""API experts, questions to them, and connectors that count what they are asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import insert, select

from evomerge.app.db.engine import Database, epoch
from evomerge.app.db.models import Call, Job, StoredAnswer
from evomerge.app.db.repositories import queue
from evomerge.app.db.repositories.answers import Outcome
from evomerge.app.db.repositories.queue import Lease
from evomerge.app.schemas.spec import Budget
from evomerge.app.worker.answer_book import AnswerBook
from evomerge.connectors.client import Call as Sent
from evomerge.connectors.client import Hook
from evomerge.connectors.expert import ApiExpert, Capabilities, Price
from evomerge.connectors.question import Answer, Completion, Endpoint, Message, Question, Sampling

ENDPOINT = Endpoint("openai", "http://127.0.0.1:9/v1", "parrot")
EXPERT = ApiExpert(
    "parrot",
    ENDPOINT,
    price=Price(input=1.0, output=2.0),
    capabilities=Capabilities(bytes_per_token=1.0, zero_tokens=True, batches=True, samples=True),
)
INPUT, OUTPUT = 8, 3  # tokens of every question and answer, as the parrot counts them


def question(number: int, *, endpoint: Endpoint = ENDPOINT, **fields: Any) -> Question:
    """Questions that all differ, of 8 bytes."""
    return Question(
        endpoint,
        messages=(Message("user", f"q{number:07d}"),),
        sampling=Sampling(max_tokens=4),
        **fields,
    )


def answer(text: str, requests: int = 1, lost: int = 0, input_tokens: int = INPUT) -> Answer:
    return Answer((Completion(text, "stop"),), input_tokens, OUTPUT, requests, lost)


@dataclass
class Parrot:
    """Says a question back, and counts how often each was put.

    Attributes:
        gate: awaited before each answer; free by default.
        fault: raised in place of an answer, if it gives one.
        attempts: requests that one answer takes.
        lost: whether those before the last are lost, and may have been charged; else refused.
        input_tokens: that it counts for each.
        most: questions that were under way at once.
    """

    gate: Callable[[Question], Awaitable[object]] | None = None
    fault: Callable[[Question], Exception | None] = lambda question: None
    attempts: int = 1
    lost: bool = False
    input_tokens: int = INPUT
    asked: Counter[str] = field(default_factory=Counter)
    most: int = 0
    _under_way: int = 0

    async def ask(
        self,
        question: Question,
        capabilities: Capabilities = Capabilities(),  # noqa: B008 - frozen
        on_attempt: Hook | None = None,
    ) -> Answer:
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            call = Sent(question.endpoint)
            for _ in range(self.attempts):
                call.charged = call.requests if self.lost else 0
                if on_attempt is not None:
                    await on_attempt(call)
                call.requests += 1
                call.charged += 1
                self.asked[question.messages[0].content] += 1
            await (self.gate(question) if self.gate else asyncio.sleep(0))
            if (error := self.fault(question)) is not None:
                raise error
            text, lost = question.messages[0].content, max(0, call.charged - 1)
            return answer(text, self.attempts, lost, self.input_tokens)
        finally:
            self._under_way -= 1


async def add_job(database: Database, job_id: str = "mj_1", **spec: Any) -> None:
    """Queue a job that asks; its spec is whatever its asker reads."""
    async with database.write() as session:
        await session.execute(
            insert(Job).values(
                id=job_id,
                kind="merge",
                status="queued",
                spec=spec,
                inputs={},
                meta={},
                progress={},
                created_at=epoch(),
            )
        )


async def held_job(database: Database, job_id: str = "mj_1", owner: str = "one") -> Lease:
    """A job in hand, of a lease that does not end by itself."""
    await add_job(database, job_id)
    return await claim_job(database, owner)


async def claim_job(database: Database, owner: str = "one") -> Lease:
    async with database.write() as session:
        lease = await queue.claim(session, owner, 1000.0, 100)
    assert lease is not None
    return lease


@asynccontextmanager
async def opened(
    database: Database,
    lease: Lease,
    connector: Any,
    budget: Budget | None = None,
    **options: Any,
) -> AsyncIterator[AnswerBook]:
    """A book for a job; its time stands still."""
    options = {"owner": lease.owner, "lease_seconds": 1000.0, "seconds": lambda: 0.0, **options}
    async with AnswerBook(database, lease, connector, budget or Budget(), **options) as book:
        yield book


async def all_calls(database: Database, job_id: str = "mj_1") -> list[Call]:
    async with database.read() as session:
        return list(await session.scalars(select(Call).where(Call.job_id == job_id)))


async def all_answers(database: Database) -> dict[str, StoredAnswer]:
    async with database.read() as session:
        return {row.key: row for row in await session.scalars(select(StoredAnswer))}


async def ask_all(
    book: AnswerBook, numbers: Sequence[int], concurrency: int = 8
) -> dict[int, Outcome]:
    asked = [(question(number), EXPERT) for number in numbers]
    return {place: outcome async for place, outcome in book.ask_all(asked, concurrency)}


async def seen(parrot: Parrot) -> bool:
    return bool(parrot.asked)


async def so(truth: bool) -> bool:
    return truth
