from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.support import jobs

from evomerge.app.db.engine import Database, SyncDatabase
from evomerge.app.worker.loop import Rhythm, Worker
from evomerge.app.worker.run import BenchMaker

MakeWorker = Callable[..., Worker]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.dispose()


@pytest.fixture
def make_worker(database: Database, tmp_path: Path) -> AsyncIterator[MakeWorker]:
    """Makes workers over the database; each ends when its queue is empty."""
    beats: list[SyncDatabase] = []

    def make(bench: BenchMaker, owner: str = "one", rhythm: Rhythm | None = None) -> Worker:
        stopping = asyncio.Event()
        beats.append(SyncDatabase(database.url))
        return Worker(
            database=database,
            heartbeats=beats[-1],
            runner=jobs.runner(bench, tmp_path, stopping),
            rhythm=rhythm or Rhythm(poll=0.01),
            stopping=stopping,
            owner=owner,
        )

    yield make
    for beat in beats:
        beat.dispose()
