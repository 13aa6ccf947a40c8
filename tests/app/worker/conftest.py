from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from tests.support import jobs
from tests.support.landscape import LandscapeBench, LandscapeEvaluator

from evomerge.app.db.engine import Database, SyncDatabase, epoch
from evomerge.app.db.models import Evaluation, Event, Job
from evomerge.app.worker.loop import Rhythm, Worker

# Leases end when a test says so, not by the clock of a busy machine.
RHYTHM = Rhythm(lease=1000.0, beat=0.05, poll=0.01, max_attempts=50, patience=60.0)


LOGGED = ("stage_number", "stage", "generation", "index", "alpha", "beta", "loss")
LOGGED += ("losses", "weights", "tokens")


class Crash(BaseException):
    """Ends a worker as a kill would: nothing is released, nothing is written."""


@dataclass
class Shop:
    """A database, a data folder, and workers over the landscape."""

    database: Database
    folder: Path
    beats: list[SyncDatabase] = field(default_factory=list)

    async def add(self, job_id: str = "mj_1", **spec: Any) -> None:
        """Queue a job over the landscape."""
        await jobs.add_job(self.database, jobs.inputs(self.folder), job_id, **spec)

    def worker(self, evaluator: LandscapeEvaluator, owner: str = "one") -> Worker:
        return self.worker_with(LandscapeBench(evaluator), owner)

    def worker_with(self, bench: LandscapeBench, owner: str = "one") -> Worker:
        stopping = asyncio.Event()
        self.beats.append(SyncDatabase(self.database.url))
        run = jobs.runner(bench, self.folder, stopping)
        return Worker(self.database, self.beats[-1], run, RHYTHM, stopping, owner)

    async def run_until(self, worker: Worker, *statuses: str, job_id: str = "mj_1") -> Job:
        """Let a worker work until the job is in one of the states."""
        task = asyncio.create_task(worker.work())

        async def there() -> bool:
            return (await jobs.get_job(self.database, job_id)).status in statuses

        try:
            await jobs.until(there, task)
        finally:
            worker.stopping.set()
            await task
        return await jobs.get_job(self.database, job_id)

    async def finish(self, evaluator: LandscapeEvaluator | None = None) -> Job:
        worker = self.worker(evaluator or LandscapeEvaluator())
        return await self.run_until(worker, "succeeded", "failed", "cancelled")

    async def lapse(self) -> None:
        """Let every lease run out."""
        async with self.database.write() as session:
            await session.execute(
                update(Job).where(Job.lease_until.is_not(None)).values(lease_until=epoch() - 1)
            )

    async def log(self, job_id: str = "mj_1") -> list[tuple[object, ...]]:
        """All that is logged of the evaluations, but for times."""
        query = (
            select(Evaluation)
            .where(Evaluation.job_id == job_id)
            .order_by(Evaluation.stage_number, Evaluation.generation, Evaluation.index)
        )
        async with self.database.read() as session:
            return [
                tuple(getattr(row, name) for name in LOGGED) for row in await session.scalars(query)
            ]

    async def events(self, job_id: str = "mj_1") -> list[Event]:
        query = select(Event).where(Event.job_id == job_id).order_by(Event.id)
        async with self.database.read() as session:
            return list(await session.scalars(query))

    def artifacts(self, job_id: str = "mj_1") -> dict[str, bytes]:
        """Every file of the job, by name."""
        folder = self.folder / "artifacts" / job_id
        return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.dispose()


@pytest.fixture
async def shop(database_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(Database(database_url), tmp_path)
    yield shop
    await shop.database.dispose()
    for beats in shop.beats:
        beats.dispose()
