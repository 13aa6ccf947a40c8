"""Worker processes killed with SIGKILL: what another one finishes is the same to the bit."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.app.worker.conftest import Shop
from tests.app.worker.test_resume import outcome
from tests.support import jobs
from tests.support.checkpoint_jobs import FOREST_SPEC, make_tiny_forest
from tests.support.lora_jobs import SPEC, TinyPool, make_tiny_pool
from tests.support.worker_processes import WorkerProcess, end_all

from evomerge.app.db.engine import Database
from evomerge.app.db.repositories import evaluations
from evomerge.app.worker.process import work

# One candidate a cut, so that there are many places to die in.
PACE = {"batch_tokens": 64, "lease_seconds": 3.0, "beat_seconds": 0.3, "poll_seconds": 0.05}
WORKERS = 3
# Each process imports torch first, on a machine that may be busy.
PATIENCE = 300.0


# As many candidates as the searches have, each drawn from the job's seed.
DELLA = {
    "name": "della",
    "densities": [0.5, 0.6, 0.8, 0.9],
    "scales": [n / 10 for n in range(1, 11)],
}
SPECS: dict[str, dict[str, Any]] = {
    "lora": SPEC,
    "checkpoint": FOREST_SPEC,
    "rule": {**SPEC, "method": DELLA},
}


@dataclass(frozen=True)
class Given:
    """A pool and what is asked of it."""

    pool: TinyPool
    spec: dict[str, Any]


@pytest.fixture(scope="module", params=sorted(SPECS))
def given(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("pool")
    make = make_tiny_forest if request.param == "checkpoint" else make_tiny_pool
    return Given(make(folder), SPECS[request.param])


@pytest.fixture
async def processes() -> AsyncIterator[list[WorkerProcess]]:
    """Worker processes of the test; none outlives it."""
    started: list[WorkerProcess] = []
    yield started
    await end_all(started)


def start(pool: TinyPool, url: str, data_dir: Path) -> WorkerProcess:
    settings = pool.settings(url, data_dir, max_attempts=10, **PACE)
    return WorkerProcess(pool.environment(settings))


async def straight(shop: Shop, given: Given, data_dir: Path) -> None:
    """The same job run without a break by a worker in this process, as mj_straight."""
    pool = given.pool
    await jobs.add_job(shop.database, pool.inputs, "mj_straight", **given.spec)
    url = shop.database.url.render_as_string(hide_password=False)
    stopping = asyncio.Event()
    task = asyncio.create_task(work(pool.settings(url, data_dir, **PACE), stopping))

    async def ended() -> bool:
        return (await jobs.get_job(shop.database, "mj_straight")).finished_at is not None

    await jobs.until(ended, task, PATIENCE)
    stopping.set()
    await task


async def kill_owner_at(database: Database, processes: list[WorkerProcess], rows: int) -> None:
    """Kill the worker that has the job in hand once so many candidates are logged."""

    async def reached() -> bool:
        job = await jobs.get_job(database, "mj_killed")
        assert job.finished_at is None, f"the job ended before it could be killed: {job.error}"
        async with database.read() as session:
            return await evaluations.count(session, "mj_killed") >= rows

    await jobs.until(reached, patience=PATIENCE)
    owner = (await jobs.get_job(database, "mj_killed")).lease_owner
    (victim,) = [each for each in processes if f":{each.pid}:" in (owner or "")]
    victim.kill()
    await victim.wait()


@pytest.mark.parametrize("seed", [1])
async def test_killed_workers_change_nothing(
    shop: Shop, given: Given, processes: list[WorkerProcess], seed: int
) -> None:
    url = shop.database.url.render_as_string(hide_password=False)
    await straight(shop, given, shop.folder)
    await jobs.add_job(shop.database, given.pool.inputs, "mj_killed", **given.spec)
    processes += [start(given.pool, url, shop.folder) for _ in range(WORKERS)]
    moments = random.Random(seed)
    await kill_owner_at(shop.database, processes, moments.randint(1, 20))
    await kill_owner_at(shop.database, processes, moments.randint(25, 44))

    async def ended() -> bool:
        return (await jobs.get_job(shop.database, "mj_killed")).finished_at is not None

    await jobs.until(ended, patience=PATIENCE)
    job = await jobs.get_job(shop.database, "mj_killed")
    expected = await jobs.get_job(shop.database, "mj_straight")
    assert job.attempts >= WORKERS
    assert await shop.log("mj_killed") == await shop.log("mj_straight")
    assert _without_files(outcome(job)) == _without_files(outcome(expected))
    assert _files(shop, "mj_killed") == _files(shop, "mj_straight")
    (survivor,) = [process for process in processes if process.returncode is None]
    survivor.send_signal(signal.SIGTERM)
    assert await survivor.wait() == 0


def _without_files(result: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in result.items() if key != "artifacts"}


def _files(shop: Shop, job_id: str) -> dict[str, bytes]:
    """Every file of the job, with the job's own name taken out."""
    files = shop.artifacts(job_id).items()
    return {name: data.replace(job_id.encode(), b"mj") for name, data in files}
