"""What it costs to pay for every question once: calls through the answer book, beside none.

    python benchmarks/answer_book.py [--calls 2000] [--concurrency 64] [--latency 0.05]

The model is a coroutine that answers after a fixed latency, so that all the processor time is
ours. It is asked in turns with no book, through the book, and through a book that commits one
transaction a write, as it would be without group commit; then the book is asked again for what it
knows. SQLite on a real file, synced at every commit; Postgres too, where EVOMERGE_TEST_POSTGRES
names one to make a database on. `tokens` is the log-probabilities that an answer carries.

Ratios of one run are comparable, its seconds are not. Target: well under 1 ms a call.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from sqlalchemy import insert
from sqlalchemy.engine import make_url

from evomerge import migrations
from evomerge.app import event_loop
from evomerge.app.db.engine import Database, epoch
from evomerge.app.db.models import Job
from evomerge.app.db.repositories import queue
from evomerge.app.schemas.spec import Budget
from evomerge.app.worker import group_commit
from evomerge.app.worker.answer_book import AnswerBook
from evomerge.connectors.client import Call, Hook
from evomerge.connectors.expert import ApiExpert, Capabilities
from evomerge.connectors.question import Answer, Completion, Endpoint, Message, Question, Token

POSTGRES = "EVOMERGE_TEST_POSTGRES"
ENDPOINT = Endpoint("openai", "http://127.0.0.1/v1", "clock")
EXPERT = ApiExpert("clock", ENDPOINT, capabilities=Capabilities(samples=True, batches=True))
UNPROBED = Capabilities()
TURNS = 3


@dataclass(frozen=True)
class Clock:
    """Answers after a fixed latency."""

    latency: float
    tokens: int

    async def ask(
        self,
        question: Question,
        capabilities: Capabilities = UNPROBED,
        on_attempt: Hook | None = None,
    ) -> Answer:
        """The same answer to everything."""
        if on_attempt is not None:
            await on_attempt(Call(question.endpoint))
        await asyncio.sleep(self.latency)
        tokens = tuple(Token(f"t{n}", -0.5, (("a", -0.5),)) for n in range(self.tokens))
        return Answer((Completion("It is late.", "stop", tokens),), 20, 4)


@dataclass(frozen=True)
class Turn:
    """Seconds and processor milliseconds of one turn, by call."""

    seconds: float
    cpu: float


@asynccontextmanager
async def timed(turns: list[Turn], calls: int) -> AsyncIterator[None]:
    """Time what happens in the block."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    turns.append(Turn(wall / calls, 1000 * cpu / calls))


def questions(count: int) -> list[tuple[Question, ApiExpert]]:
    """Questions that nobody has asked before."""
    salt = secrets.token_hex(8)
    return [
        (Question(ENDPOINT, messages=(Message("user", f"{salt}: {n} o'clock?"),)), EXPERT)
        for n in range(count)
    ]


async def with_no_book(clock: Clock, calls: int, concurrency: int) -> None:
    """Ask with bounded concurrency, and keep nothing."""
    places = iter(questions(calls))

    async def work() -> None:
        for question, expert in places:
            await clock.ask(question, expert.capabilities)

    await asyncio.gather(*(work() for _ in range(concurrency)))


@asynccontextmanager
async def opened(database: Database, clock: Clock) -> AsyncIterator[AnswerBook]:
    """A book for a job of its own, with a budget to watch."""
    async with database.write() as session:
        values = {"id": f"mj_{secrets.token_hex(8)}", "kind": "merge", "status": "queued"}
        empty: dict[str, object] = {"spec": {}, "inputs": {}, "meta": {}, "progress": {}}
        await session.execute(insert(Job).values(**values, **empty, created_at=epoch()))
        lease = await queue.claim(session, "benchmark", 3600.0, 1)
    if lease is None:
        raise RuntimeError("the job that was queued cannot be claimed")
    budget = Budget(requests=10**9, input_tokens=10**12, usd=1e6)
    async with AnswerBook(database, lease, clock, budget, lambda: 0.0, owner="benchmark") as book:
        yield book


async def through(
    book: AnswerBook, asked: list[tuple[Question, ApiExpert]], concurrency: int
) -> None:
    """Ask all through the book."""
    async for _ in book.ask_all(asked, concurrency):
        pass


async def measure(url: str, clock: Clock, calls: int, concurrency: int) -> dict[str, list[Turn]]:
    """Turns by the way of asking, interleaved."""
    found: dict[str, list[Turn]] = {"no book": [], "book": [], "one commit a write": []}
    found["book, all known"] = []
    database, together = Database(url), group_commit.LARGEST
    fewer = max(concurrency, calls // 10)
    for _ in range(TURNS):
        async with timed(found["no book"], calls):
            await with_no_book(clock, calls, concurrency)
        async with opened(database, clock) as book:
            asked = questions(calls)
            async with timed(found["book"], calls):
                await through(book, asked, concurrency)
            async with timed(found["book, all known"], calls):
                await through(book, asked, concurrency)
        group_commit.LARGEST = 1
        async with opened(database, clock) as book, timed(found["one commit a write"], fewer):
            await through(book, questions(fewer), concurrency)
        group_commit.LARGEST = together
    await database.dispose()
    return found


def show(name: str, found: dict[str, list[Turn]], arguments: argparse.Namespace) -> None:
    """One line a way."""
    ideal = arguments.latency / arguments.concurrency
    bare = statistics.median(turn.cpu for turn in found["no book"])
    print(f"{name}: {arguments.calls} calls, {arguments.concurrency} at once")
    for way, turns in found.items():
        seconds = statistics.median(turn.seconds for turn in turns)
        cpu = statistics.median(turn.cpu for turn in turns)
        rate = "" if way.endswith("known") else f"{ideal / seconds:7.1%} of the ideal throughput,"
        print(f"  {way:20} {rate:34} {cpu:6.3f} ms of processor a call ({cpu - bare:+.3f})")


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """URLs of fresh databases, by kind."""
    with tempfile.TemporaryDirectory() as folder:
        urls = {"sqlite": f"sqlite+aiosqlite:///{Path(folder) / 'evomerge.db'}"}
        server = os.environ.get(POSTGRES)
        if not server:
            yield urls
            return
        url, name = make_url(server), f"evomerge_{secrets.token_hex(6)}"
        admin = url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
            urls["postgres"] = url.set(database=name).render_as_string(hide_password=False)
            try:
                yield urls
            finally:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--tokens", type=int, nargs="*", default=[0, 100])
    arguments = parser.parse_args()

    event_loop.spare_the_collector()  # as a worker does
    with databases() as urls:
        for name, url in urls.items():
            migrations.upgrade(url)
            for tokens in arguments.tokens:
                clock = Clock(arguments.latency, tokens)
                found = event_loop.run(measure(url, clock, arguments.calls, arguments.concurrency))
                show(f"{name}, {tokens} tokens", found, arguments)


if __name__ == "__main__":
    main()
