"""Workers killed with SIGKILL while they train: what another finishes is the same to the bit."""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from tests.app.api.client import Json
from tests.support import jobs
from tests.support.forest_jobs import BATCH, Plantation, plantation, recipe
from tests.support.worker_processes import WorkerProcess, end_all

from evomerge.app.db.models import Job

STEPS = 90
LONG = recipe(tokens=STEPS * BATCH, checkpoint_steps=7)
WORKERS = 3


@pytest.fixture
async def farm(database_url: str, tmp_path: Path) -> AsyncIterator[Plantation]:
    async with plantation(tmp_path, database_url) as farm:
        yield farm


@pytest.fixture
async def processes() -> AsyncIterator[list[WorkerProcess]]:
    """Worker processes of the test; none outlives it."""
    started: list[WorkerProcess] = []
    yield started
    await end_all(started)


async def kill_owner_at(
    farm: Plantation, processes: Sequence[WorkerProcess], job_id: str, step: int
) -> None:
    """Kill the worker that has the job in hand once it has done so many steps."""

    def there(row: Job) -> bool:
        assert row.finished_at is None, f"the job ended before it could be killed: {row.error}"
        return bool(row.progress.get("step", 0) >= step)

    await farm.until(job_id, there)
    owner = (await jobs.get_job(farm.database, job_id)).lease_owner
    (victim,) = [each for each in processes if f":{each.pid}:" in (owner or "")]
    victim.kill()
    await victim.wait()


async def twins(farm: Plantation, spec: Json, **other: object) -> tuple[str, str]:
    """The same job twice: one that has run without a break, and one that waits."""
    straight = await farm.create(spec)
    killed = await farm.create({**spec, **other})
    await farm.api.post(f"/v1/forest_jobs/{killed}/pause")
    await farm.finish(straight)
    return straight, killed


@pytest.mark.parametrize("seed", [1])
async def test_killed_workers_change_nothing(
    farm: Plantation, processes: list[WorkerProcess], seed: int
) -> None:
    moments = random.Random(seed)
    seeds = await twins(farm, farm.seed_spec("north", "south", recipe=LONG), forest=None)
    await farm.run(farm.branch_spec("north"))
    everything = {"seed": True, "domain": "everything"}
    assert (await farm.api.post("/v1/forests/grove/elms", everything)).status_code == 201
    branch = farm.branch_spec("east", recipe=LONG, start="average", elm="one")
    branches = await twins(farm, branch, elm="two")
    forest = await farm.forest()

    processes += [farm.process() for _ in range(WORKERS)]
    for straight, killed in (seeds, branches):
        await farm.api.post(f"/v1/forest_jobs/{killed}/resume")
        await kill_owner_at(farm, processes, killed, moments.randint(1, STEPS // 2))
        await farm.until(killed, lambda row: row.finished_at is not None)
        expected, found = await farm.result(straight), await farm.result(killed)
        assert found["checkpoint"] == expected["checkpoint"]
        assert found["training"] == expected["training"]
        assert (await farm.job(killed))["attempts"] == 2
    # Joined once, by the worker that finished.
    now = await farm.forest()
    assert [elm["name"] for elm in now["elms"]] == [*(e["name"] for e in forest["elms"]), "two"]
    (survivor,) = [process for process in processes if process.returncode is None]
    survivor.send_signal(signal.SIGTERM)
    assert await survivor.wait() == 0
    assert farm.scratch() == []
