"""Workers killed while ELMs read and while they are mixed: what another finishes is the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.app.worker.conftest import Shop
from tests.app.worker.test_resume import outcome
from tests.support import jobs
from tests.support.checkpoint_jobs import make_tiny_forest
from tests.support.jobs import write_dataset
from tests.support.lora_jobs import TinyPool
from tests.support.worker_processes import WorkerProcess, end_all

from evomerge.app.db.models import Job
from evomerge.app.db.repositories import evaluations
from evomerge.app.mixtures import FOREST_MIXTURE
from evomerge.app.worker.process import work
from evomerge.evaluation import Example

# A few rows a forward, and each place told of, so that there are many places to die in.
PACE = {"batch_tokens": 64, "lease_seconds": 2.0, "beat_seconds": 0.01, "poll_seconds": 0.05}
SPEC: dict[str, Any] = {
    "pool": "grove",
    "space": "output",
    "objective": {"datasets": [{"dataset": "facts"}]},
    "method": {
        "name": "evo-merging",
        "population": 4,
        "scaling": {"evaluations": 500},
        "denoising": {"evaluations": 500},
    },
}
ROWS = 200
# Each process imports torch first, on a machine that may be busy.
PATIENCE = 300.0


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> TinyPool:
    """Three ELMs, and texts enough to read for a while."""
    folder = tmp_path_factory.mktemp("forest")
    made = make_tiny_forest(folder, elms=3)
    texts = [Example("", f"{n} is {'abcdefgh'[n % 8] * (n % 9 + 3)}") for n in range(ROWS)]
    inputs = made.inputs.model_copy(update={"datasets": [write_dataset(folder, texts)]})
    return TinyPool(folder, inputs)


@pytest.fixture
async def processes() -> AsyncIterator[list[WorkerProcess]]:
    """Worker processes of the test; none outlives it."""
    started: list[WorkerProcess] = []
    yield started
    await end_all(started)


async def straight(shop: Shop, forest: TinyPool, data_dir: Path) -> Job:
    """The same job run without a break by a worker in this process, over a folder of its own."""
    await jobs.add_job(shop.database, forest.inputs, "mj_straight", **SPEC)
    url = shop.database.url.render_as_string(hide_password=False)
    stopping = asyncio.Event()
    task = asyncio.create_task(work(forest.settings(url, data_dir, **PACE), stopping))

    async def ended() -> bool:
        return (await jobs.get_job(shop.database, "mj_straight")).finished_at is not None

    await jobs.until(ended, task, PATIENCE)
    stopping.set()
    await task
    return await jobs.get_job(shop.database, "mj_straight")


async def kill_owner(
    shop: Shop, processes: list[WorkerProcess], there: Callable[[Job, int], bool]
) -> None:
    """Kill the worker that has the job in hand once the job is so far."""

    async def reached() -> bool:
        job = await jobs.get_job(shop.database, "mj_killed")
        assert job.finished_at is None, f"the job ended before it could be killed: {job.error}"
        async with shop.database.read() as session:
            return there(job, await evaluations.count(session, "mj_killed"))

    await jobs.until(reached, patience=PATIENCE)
    owner = (await jobs.get_job(shop.database, "mj_killed")).lease_owner
    (victim,) = [each for each in processes if f":{each.pid}:" in (owner or "")]
    victim.kill()
    await victim.wait()


def has_read(job: Job) -> bool:
    """Whether something is read, and something is not."""
    return job.progress.get("stage") == "reading" and bool(job.progress["tokens"])


async def test_killed_workers_change_nothing(
    shop: Shop, forest: TinyPool, processes: list[WorkerProcess], tmp_path: Path
) -> None:
    expected = await straight(shop, forest, tmp_path / "other")
    assert tokens_read(expected) > 0
    await jobs.add_job(shop.database, forest.inputs, "mj_killed", **SPEC)
    url = shop.database.url.render_as_string(hide_password=False)
    settings = forest.settings(url, shop.folder, max_attempts=10, **PACE)
    processes += [WorkerProcess(forest.environment(settings)) for _ in range(3)]
    await kill_owner(shop, processes, lambda job, rows: has_read(job))
    await kill_owner(shop, processes, lambda job, rows: rows >= 100)

    async def ended() -> bool:
        return (await jobs.get_job(shop.database, "mj_killed")).finished_at is not None

    await jobs.until(ended, patience=PATIENCE)
    job = await jobs.get_job(shop.database, "mj_killed")
    assert job.attempts == 3
    assert tokens_read(job) == 0
    assert await shop.log("mj_killed") == await shop.log("mj_straight")
    assert without_files(outcome(job)) == without_files(outcome(expected))
    mixture = Path("artifacts", "mj_straight", FOREST_MIXTURE)
    written = shop.artifacts("mj_killed")[FOREST_MIXTURE]
    assert written == (tmp_path / "other" / mixture).read_bytes()


def tokens_read(job: Job) -> int:
    """By the last attempt."""
    assert job.result is not None, job.error
    return int(job.result["usage"]["reading"]["tokens"])


def without_files(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "artifacts"}
