"""Names of merges: the last job to succeed has one, and a job from its search to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from openai import OpenAI
from tests.support import jobs
from tests.support.lora_jobs import SPEC, make_tiny_pool
from tests.support.served import running

from evomerge.app.db.engine import Database
from evomerge.app.db.errors import LeaseLostError
from evomerge.app.db.repositories import models, queue
from evomerge.app.worker.artifacts import folder_of
from evomerge.app.worker.ledger import Ledger
from evomerge.app.worker.process import work
from evomerge.connectors.local.base_model import load_base
from evomerge.connectors.local.generation import greedy_answers
from evomerge.merging.lora.adapter import read_adapter
from evomerge.merging.lora.artifact import MergedAdapter


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.dispose()


async def held(database: Database) -> Ledger:
    async with database.write() as session:
        lease = await queue.claim(session, "one", 1000.0, 5)
    assert lease is not None
    return Ledger(database, lease, 0.0)


async def holder(database: Database, name: str) -> str | None:
    async with database.read() as session:
        job = await models.find(session, name)
    return None if job is None else job.id


async def test_the_last_job_to_succeed_has_the_name(database: Database, tmp_path: Path) -> None:
    ledgers = []
    for number in range(3):
        await jobs.add_job(database, jobs.inputs(tmp_path), f"mj_{number}", serve_as="film")
        ledgers.append(await held(database))
    assert await holder(database, "film") is None
    for number in (1, 0):
        await ledgers[number].succeed({}, {}, "done", "film")
        assert await holder(database, "film") == f"mj_{number}"
    async with database.read() as session:
        assert [(model.name, job.id) for model, job in await models.named(session)] == [
            ("film", "mj_0")
        ]
        assert [job.id for job in await models.unnamed(session, 9)] == ["mj_1"]


async def test_jobs_that_succeed_together_do_not_hinder_each_other(
    database: Database, tmp_path: Path
) -> None:
    ledgers = []
    for number in range(4):
        await jobs.add_job(database, jobs.inputs(tmp_path), f"mj_{number}", serve_as="film")
        ledgers.append(await held(database))
    await asyncio.gather(*(each.succeed({}, {}, "done", "film") for each in ledgers))
    assert await holder(database, "film") in {f"mj_{number}" for number in range(4)}


async def test_who_has_lost_the_job_names_nothing(database: Database, tmp_path: Path) -> None:
    await jobs.add_job(database, jobs.inputs(tmp_path), serve_as="film")
    ledger = await held(database)
    async with database.write() as session:
        await queue.release(session, ledger.lease)
    with pytest.raises(LeaseLostError):
        await ledger.succeed({}, {}, "done", "film")
    assert await holder(database, "film") is None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_job_from_its_search_to_its_answer(database: Database, tmp_path: Path) -> None:
    pool = make_tiny_pool(tmp_path)
    method = {"name": "random", "population": 4, "evaluations": 8}
    spec = {**SPEC, "method": method, "serve_as": "colours"}
    await jobs.add_job(database, pool.inputs, "mj_1", **spec)
    settings = pool.settings(database.url.render_as_string(hide_password=False), tmp_path / "data")
    stopping = asyncio.Event()
    task = asyncio.create_task(work(settings, stopping))

    async def ended() -> bool:
        return (await jobs.get_job(database)).finished_at is not None

    await jobs.until(ended, task)
    stopping.set()
    await task

    def ask() -> str | None:
        with running(settings) as url, OpenAI(base_url=f"{url}/v1", api_key="none") as client:
            said = client.chat.completions.create(
                model="colours", messages=[{"role": "user", "content": "3 is"}], temperature=0
            )
        return said.choices[0].message.content

    base = load_base(settings.bases["tiny"], threads=1)
    adapter = MergedAdapter(read_adapter(folder_of(settings.data_dir, "mj_1")).modules)
    prompt = tuple(base.tokenizer("3 is").input_ids)
    [[expected]] = greedy_answers(
        base, adapter.population(), [prompt], max_new_tokens=4, batch_tokens=99
    )
    assert await asyncio.to_thread(ask) == expected.text
