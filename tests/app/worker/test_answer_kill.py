"""Processes that ask a real server, killed with SIGKILL: nothing known is paid for again."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import JSONResponse
from tests.support import jobs
from tests.support.answers import add_job, all_answers, all_calls
from tests.support.loopback import serving

from evomerge.app.db.engine import Database
from evomerge.app.db.models import Job, StoredAnswer
from evomerge.app.db.repositories import calls

ROOT = Path(__file__).parents[3]
WORKERS = 3
CONCURRENCY = 8
PATIENCE = 120.0


class Echo:
    """An OpenAI-compatible server that says questions back and counts them."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = json.loads(await Request(scope, receive).body())
        text = body["messages"][-1]["content"]
        self.asked[text] += 1
        await asyncio.sleep(0.01)
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11},
        }
        await JSONResponse(answer)(scope, receive, send)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def base_url(echo: Echo) -> Iterator[str]:
    with serving(echo) as url:
        yield f"{url}/v1"


@pytest.fixture
async def processes(database: Database) -> AsyncIterator[list[Process]]:
    """Workers that ask; none outlives the test."""
    url = database.url.render_as_string(hide_password=False)
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.asker", url, cwd=ROOT, stdin=DEVNULL
        )
        for _ in range(WORKERS)
    ]
    yield started
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(database: Database) -> list[Job] | None:
    """All jobs, once all have ended."""
    async with database.read() as session:
        found = list(await session.scalars(select(Job).order_by(Job.id)))
    return found if all(job.finished_at is not None for job in found) else None


async def kill_at(
    count: int, echo: Echo, database: Database, processes: list[Process]
) -> tuple[set[str], Counter[str]]:
    """Kill a worker that has questions under way once the server has had so many requests.

    Returns:
        The keys of what the victim was asking, and how often the server had been asked what was
        answered by then.
    """

    async def reached() -> bool:
        assert not await ended(database), "the jobs ended before a worker could be killed"
        return echo.asked.total() >= count

    await jobs.until(reached, patience=PATIENCE)
    while True:
        rows = await all_answers(database)
        owners = {row.owner for row in rows.values() if row.owner}
        alive = [one for one in processes if one.returncode is None]
        victims = [one for one in alive if any(f":{one.pid}:" in owner for owner in owners)]
        if victims:
            break
        await asyncio.sleep(0.001)
    known = Counter({text: echo.asked[text] for text in texts(rows.values())})
    assert known, "nothing was answered yet"
    victims[0].kill()
    await victims[0].wait()
    mine = f":{victims[0].pid}:"
    rows = await all_answers(database)
    return {key for key, row in rows.items() if row.owner and mine in row.owner}, known


def texts(rows: Iterable[StoredAnswer]) -> set[str]:
    """What was asked: the server says questions back."""
    return {row.answer["completions"][0]["text"] for row in rows if row.answer is not None}


async def test_killed_workers_pay_again_only_for_what_was_under_way(
    database: Database, echo: Echo, base_url: str, processes: list[Process]
) -> None:
    common = {"base_url": base_url, "concurrency": CONCURRENCY}
    for number, numbers in enumerate([(0, 160), (80, 240), (40, 200)]):
        await add_job(database, f"mj_{number}", numbers=numbers, **common)
    # With repeats: what is asked again after one kill may be under way at the next.
    lost: list[str] = []
    known: list[Counter[str]] = []
    for count in (40, 120):
        under_way, answered = await kill_at(count, echo, database, processes)
        lost += under_way
        known.append(answered)

    async def all_ended() -> bool:
        return await ended(database) is not None

    await jobs.until(all_ended, patience=PATIENCE)
    finished = await ended(database)
    assert finished is not None
    assert [job.result for job in finished] == [{"answers": 160}] * 3
    assert len(echo.asked) == 240
    rows = await all_answers(database)
    twice = {text for text, count in echo.asked.items() if count > 1}
    assert twice <= texts(rows[key] for key in lost)
    for answered in known:
        assert answered == {text: echo.asked[text] for text in answered}
    booked = [call for job in finished for call in await all_calls(database, job.id)]
    assert sum(call.requests for call in booked) >= echo.asked.total()
    assert sum(not call.settled for call in booked) == len(lost)


async def test_the_budget_holds_across_kills(
    database: Database, echo: Echo, base_url: str, processes: list[Process]
) -> None:
    budget = {"requests": 90}
    await add_job(
        database, base_url=base_url, numbers=(0, 200), concurrency=CONCURRENCY, budget=budget
    )
    # With repeats: what is asked again after one kill may be under way at the next.
    lost: list[str] = []
    for count in (15, 45):
        under_way, _ = await kill_at(count, echo, database, processes)
        lost += under_way

    async def all_ended() -> bool:
        return await ended(database) is not None

    await jobs.until(all_ended, patience=PATIENCE)
    job = await jobs.get_job(database)
    assert (job.status, (job.error or {})["code"]) == ("failed", "budget_reached")
    async with database.read() as session:
        assert (await calls.total(session, "mj_1")).requests == 90
    # What was reserved but not sent when a worker was killed is all that is missing.
    assert 90 - len(lost) <= echo.asked.total() <= 90
