"""Jobs whose candidates travel, in workers killed with SIGKILL: the next one ends them the same."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.app.worker.conftest import Shop
from tests.app.worker.test_kill import kill_owner_at
from tests.app.worker.test_resume import outcome
from tests.support import jobs
from tests.support.fake_llama_cpp import FakeLlamaCpp
from tests.support.fake_lorax import FakeLorax
from tests.support.fake_vllm import FakeVllm, Json
from tests.support.loopback import serving
from tests.support.lora_jobs import TinyPool, make_tiny_pool
from tests.support.tiny import END_OF_TEXT
from tests.support.tiny_model import TinyModel, read_factors
from tests.support.worker_processes import WorkerProcess, end_all

from evomerge.app.db.models import Call
from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.services.remote import their_experts
from evomerge.app.worker.process import work
from evomerge.evaluation import Example

PACE = {"lease_seconds": 3.0, "beat_seconds": 0.3, "poll_seconds": 0.05}
METHOD: Json = {"name": "cma", "population": 4, "scaling": {"evaluations": 24}}
KILLS = 2
# What differs between two jobs: files name theirs, and the killed one has paid more.
OWN = {"calls": None, "artifacts": None}
PATIENCE = 300.0
LABELS = "abcd"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> TinyPool:
    return make_tiny_pool(tmp_path_factory.mktemp("pool"), experts=2)


@pytest.fixture(scope="module")
def model(pool: TinyPool) -> TinyModel:
    return TinyModel(pool.folder / "base")


def slowly(body: Json) -> None:
    """Long enough for a kill to find requests under way."""
    time.sleep(0.005)


Job = tuple[JobInputs, Json]


def theirs(pool: TinyPool, remote: Json, **spec: Any) -> Job:
    """A job over a server's own adapters."""
    fields = {"space": "remote", "remote": remote, "method": METHOD, **spec}
    read = MergeJobSpec.model_validate(fields)
    assert read.remote is not None
    changes = {"base": None, "experts": their_experts(read.remote)}
    return pool.inputs.model_copy(update=changes), {"pool": None, **fields}


@contextmanager
def at_vllm(pool: TinyPool, model: TinyModel, folder: Path) -> Iterator[Job]:
    fake = FakeVllm(model)
    fake.fault = slowly
    with serving(fake.app()) as url:
        remote = {
            "provider": "vllm",
            "base_urls": [url],
            "model": "tiny",
            "adapter_dir": str(folder / "shelf"),
        }
        objective = {"datasets": [{"dataset": "facts"}]}
        yield (
            pool.inputs,
            {
                "space": "remote",
                "remote": remote,
                "method": METHOD,
                "objective": objective,
                "output": {"dtype": "float32"},
            },
        )
        assert not fake.adapters, "a candidate of a killed worker is still loaded"


@contextmanager
def at_lorax(pool: TinyPool, model: TinyModel, folder: Path) -> Iterator[Job]:
    fake = FakeLorax(model, {path.name: read_factors(path) for path in pool.inputs.folders})
    fake.fault = slowly
    with serving(fake.app()) as url:
        remote = {
            "provider": "lorax",
            "base_urls": [url],
            "adapters": list(fake.adapters),
            "end_of_text": END_OF_TEXT,
        }
        objective = {"datasets": [{"dataset": "facts"}]}
        yield theirs(pool, remote, objective=objective, composition="factor")


@contextmanager
def at_llama_cpp(pool: TinyPool, model: TinyModel, folder: Path) -> Iterator[Job]:
    fake = FakeLlamaCpp(model, [read_factors(path) for path in pool.inputs.folders])
    rows = [
        Example(f"question {n}: ", LABELS[n % 4], choices=tuple(LABELS), row=n + 1)
        for n in range(8)
    ]
    dataset = jobs.write_dataset(folder, rows, "labels")
    with serving(fake.app()) as url:
        remote = {"provider": "llama_cpp", "base_urls": [url], "adapters": 2}
        objective = {
            "datasets": [{"dataset": "labels"}],
            "end_of_text": False,
            "answer_prefix": "",
        }
        inputs, spec = theirs(pool, remote, objective=objective)
        yield inputs.model_copy(update={"datasets": [dataset]}), spec


@pytest.fixture
async def start(shop: Shop, pool: TinyPool) -> AsyncIterator[Callable[[], WorkerProcess]]:
    """Starts a worker process; none outlives the test."""
    started: list[WorkerProcess] = []
    url = shop.database.url.render_as_string(hide_password=False)
    settings = pool.settings(url, shop.folder, max_attempts=10, **PACE)
    own = {
        "EVOMERGE_ALLOWED_HOSTS": json.dumps(["127.0.0.1"]),
        "EVOMERGE_ALLOWED_NETWORKS": json.dumps(["127.0.0.0/8"]),
        "EVOMERGE_ADAPTER_DIRS": json.dumps([str(shop.folder / "shelf")]),
    }
    environment = pool.environment(settings) | own

    def one() -> WorkerProcess:
        started.append(WorkerProcess(environment))
        return started[-1]

    yield one
    await end_all(started)


async def straight(shop: Shop, pool: TinyPool) -> None:
    """The job without a break, by a worker in this process."""
    url = shop.database.url.render_as_string(hide_password=False)
    settings = pool.settings(
        url,
        shop.folder,
        allowed_hosts=["127.0.0.1"],
        allowed_networks=["127.0.0.0/8"],
        adapter_dirs=[shop.folder / "shelf"],
        **PACE,
    )
    stopping = asyncio.Event()
    task = asyncio.create_task(work(settings, stopping))
    await jobs.until(lambda: ended(shop, "mj_straight"), task, PATIENCE)
    stopping.set()
    await task


async def ended(shop: Shop, job_id: str) -> bool:
    return (await jobs.get_job(shop.database, job_id)).finished_at is not None


@pytest.mark.parametrize("place", [at_vllm, at_lorax, at_llama_cpp])
async def test_a_killed_job_ends_as_one_that_was_not(
    shop: Shop, pool: TinyPool, model: TinyModel, place: Any, start: Callable[[], WorkerProcess]
) -> None:
    (shop.folder / "shelf").mkdir()
    moments = random.Random(place.__name__)
    with place(pool, model, shop.folder) as (inputs, spec):
        await jobs.add_job(shop.database, inputs, "mj_straight", **spec)
        await straight(shop, pool)
        await jobs.add_job(shop.database, inputs, "mj_killed", **spec)
        workers = [start() for _ in range(KILLS + 1)]
        await kill_owner_at(shop.database, workers, moments.randint(1, 8))
        await kill_owner_at(shop.database, workers, moments.randint(10, 20))
        await jobs.until(lambda: ended(shop, "mj_killed"), patience=PATIENCE)
    job = await jobs.get_job(shop.database, "mj_killed")
    expected = await jobs.get_job(shop.database, "mj_straight")
    assert job.attempts == KILLS + 1
    assert await shop.log("mj_killed") == await shop.log("mj_straight")
    killed, whole = outcome(job), outcome(expected)
    assert {**killed, **OWN} == {**whole, **OWN}
    (calls,) = killed["calls"].values()
    async with shop.database.read() as session:
        mine = Call.job_id == "mj_killed"
        requests = await session.scalar(select(func.sum(Call.requests)).where(mine))
        unsettled = await session.scalar(select(func.count()).where(mine, ~Call.settled))
    # What was under way at a kill stays booked, for it may have been charged; nothing else is.
    assert calls["requests"] == requests
    assert unsettled is not None
    assert unsettled <= KILLS
