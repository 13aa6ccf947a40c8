"""The database is away for ten seconds, under the API and under a worker that has a job in hand."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy.engine import URL, make_url
from tests.app.worker.conftest import Shop
from tests.app.worker.test_resume import outcome
from tests.app.worker.test_worker import Gate
from tests.support import jobs
from tests.support.gateway import Gateway
from tests.support.landscape import LandscapeEvaluator

from evomerge.app.api.errors import RETRY_SECONDS
from evomerge.app.db.engine import Database
from evomerge.app.main import create_app
from evomerge.app.settings import Settings

# Above Postgres's connect timeout, a lease and several heartbeats, and what the promise is.
OUTAGE_SECONDS = 10.0
ROWS = b'{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n'


@dataclass(frozen=True)
class Outage:
    """A database that can be taken away.

    Attributes:
        url: how worker and API reach it.
        waits: whether writers wait for it, rather than being refused at once.
    """

    url: URL
    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]
    waits: bool


@pytest.fixture
async def outage(database_url: str) -> AsyncIterator[Outage]:
    url = make_url(database_url)
    around = _locked if url.get_backend_name() == "sqlite" else _cut
    async with around(url) as outage:
        yield outage


@asynccontextmanager
async def _cut(url: URL) -> AsyncIterator[Outage]:
    """Postgres behind a way that is cut."""
    gateway = Gateway(url.host or "127.0.0.1", url.port or 5432)
    await gateway.open()
    try:
        through = url.set(host="127.0.0.1", port=gateway.port)
        yield Outage(through, gateway.cut, gateway.open, waits=False)
    finally:
        await gateway.cut()


@asynccontextmanager
async def _locked(url: URL) -> AsyncIterator[Outage]:
    """A SQLite file that another process has locked."""
    assert url.database is not None
    with closing(sqlite3.connect(url.database, isolation_level=None)) as connection:

        async def begin() -> None:
            connection.execute("BEGIN EXCLUSIVE")

        async def end() -> None:
            connection.execute("ROLLBACK")

        yield Outage(url, begin, end, waits=True)


@asynccontextmanager
async def served(url: str, data_dir: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API over the database."""
    app = create_app(Settings(data_dir=data_dir, database_url=url))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


async def upload(client: httpx.AsyncClient) -> httpx.Response:
    """The same request each time."""
    files = {"file": ("rows.jsonl", ROWS)}
    return await client.post("/v1/datasets", files=files, headers={"Idempotency-Key": "once"})


async def test_ten_seconds_away_lose_nothing(outage: Outage, tmp_path: Path) -> None:
    shop = Shop(Database(outage.url), tmp_path)
    for job_id in ("mj_1", "mj_2"):
        await shop.add(job_id)
    gate = Gate(5)
    worker = shop.worker(gate.evaluator)
    running = asyncio.create_task(worker.work())
    url = outage.url.render_as_string(hide_password=False)
    async with served(url, tmp_path / "data") as client:
        await gate.reached.wait()
        before = await shop.log("mj_1")
        await outage.begin()
        # The worker has scored and must write; a client wants to write too.
        gate.open.set()
        first = asyncio.create_task(upload(client))
        await asyncio.sleep(OUTAGE_SECONDS)
        assert first.done() != outage.waits
        assert not running.done()
        assert (await client.get("/healthz")).status_code == 200
        if not outage.waits:
            refused = await client.get("/v1/merge_jobs/mj_1")
            assert (refused.status_code, refused.headers["Retry-After"]) == (
                503,
                str(RETRY_SECONDS),
            )
        await outage.end()

        assert (await first).status_code == (201 if outage.waits else 503)
        again = await upload(client)
        assert again.status_code == 201, again.text
        assert [each["id"] for each in (await client.get("/v1/datasets")).json()["data"]] == [
            again.json()["id"]
        ]

        async def both_ended() -> bool:
            found = [await jobs.get_job(shop.database, name) for name in ("mj_1", "mj_2")]
            return all(job.finished_at is not None for job in found)

        await jobs.until(both_ended, running)
        worker.stopping.set()
        await running
        assert (await client.get("/v1/merge_jobs/mj_1")).json()["status"] == "succeeded"

    one, two = [await jobs.get_job(shop.database, name) for name in ("mj_1", "mj_2")]
    assert (one.status, one.attempts) == ("succeeded", 1)
    log = await shop.log("mj_1")
    assert log[: len(before)] == before
    assert log == await shop.log("mj_2")
    results = [{k: v for k, v in outcome(job).items() if k != "artifacts"} for job in (one, two)]
    assert results[0] == results[1]
    files = [shop.artifacts(name) for name in ("mj_1", "mj_2")]
    assert files[0]["weights.npy"] == files[1]["weights.npy"]
    # Scored once each: the rows in flight were kept, not paid for again.
    straight = LandscapeEvaluator()
    await shop.add("mj_3")
    await shop.run_until(shop.worker(straight, "two"), "succeeded", job_id="mj_3")
    assert sum(gate.evaluator.calls) == 2 * sum(straight.calls)
    await shop.database.dispose()
    for beats in shop.beats:
        beats.dispose()
