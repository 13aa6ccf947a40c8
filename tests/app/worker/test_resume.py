"""However a run is interrupted, it ends as the uninterrupted one does, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
from tests.app.worker.conftest import Crash, Shop
from tests.support.landscape import LandscapeEvaluator

from evomerge.app.db.engine import Database
from evomerge.app.db.models import Job

VOLATILE = {"usage", "seconds"}


def outcome(job: Job) -> dict[str, Any]:
    """A result without what time does to it."""
    assert job.result is not None, job.error
    return {key: value for key, value in job.result.items() if key not in VOLATILE}


def crash_at(call: int) -> LandscapeEvaluator:
    async def before(number: int) -> None:
        if number == call:
            raise Crash

    return LandscapeEvaluator(before=before)


async def crash(shop: Shop, call: int) -> int:
    """Run a worker that dies in scoring call number `call` of its own; candidates scored."""
    evaluator = crash_at(call)
    with pytest.raises(Crash):
        await shop.worker(evaluator).work()
    await shop.lapse()
    return sum(evaluator.calls)


async def test_a_crash_in_every_cut_changes_nothing(shop: Shop) -> None:
    await shop.add()
    straight = LandscapeEvaluator()
    whole = await shop.finish(straight)
    expected = outcome(whole), await shop.log(), shop.artifacts()
    messages = [event.message for event in await shop.events()]

    await shop.add("mj_2")
    scored = 0
    for _ in straight.calls[:-1]:
        scored += await crash(shop, 1)
    rest = LandscapeEvaluator()
    worker = shop.worker(rest)
    job = await shop.run_until(worker, "succeeded", "failed", job_id="mj_2")
    scored += sum(rest.calls)

    assert scored == sum(straight.calls)
    assert job.attempts == len(straight.calls)
    found = shop.artifacts("mj_2")
    manifest, other = (files["manifest.json"].decode() for files in (found, expected[2]))
    assert manifest.replace("mj_2", "mj_1") == other
    assert found["weights.npy"] == expected[2]["weights.npy"]
    assert found["README.md"] == expected[2]["README.md"]
    assert await shop.log("mj_2") == expected[1]
    assert {k: v for k, v in outcome(job).items() if k != "artifacts"} == {
        k: v for k, v in expected[0].items() if k != "artifacts"
    }
    told = [event.message for event in await shop.events("mj_2")]
    assert [line for line in told if not line.startswith("Attempt")] == messages[1:]


@pytest.mark.parametrize("call", [0, 1, 5, 13, 14])
async def test_a_graceful_end_gives_the_job_back_and_burns_no_attempt(
    shop: Shop, call: int
) -> None:
    await shop.add()
    await shop.add("mj_2")
    await shop.finish()
    evaluator = LandscapeEvaluator()
    worker = shop.worker(evaluator)

    async def stop(number: int) -> None:
        if number == call:
            worker.stopping.set()

    evaluator.before = stop
    await worker.work()
    async with shop.database.read() as session:
        job = await session.get(Job, "mj_2")
    assert job is not None
    assert (job.status, job.attempts, job.lease_owner) == ("queued", 0, None)
    assert job.seconds_used > 0
    job = await shop.run_until(shop.worker(LandscapeEvaluator()), "succeeded", job_id="mj_2")
    assert await shop.log("mj_2") == await shop.log("mj_1")


async def test_another_width_of_cut_on_resume_goes_on_where_the_log_ends(shop: Shop) -> None:
    await shop.add()
    await shop.finish()
    await shop.add("mj_2")
    await crash(shop, 2)
    rest = LandscapeEvaluator(cut=3)
    await shop.run_until(shop.worker(rest), "succeeded", job_id="mj_2")
    assert rest.calls[:3] == [2, 3, 3]
    assert await shop.log("mj_2") == await shop.log("mj_1")


async def test_a_log_of_another_search_is_refused(shop: Shop, database_url: str) -> None:
    await shop.add()
    await crash(shop, 4)
    database = Database(database_url)
    async with database.write() as session:
        job = await session.get(Job, "mj_1")
        assert job is not None
        job.spec = {**job.spec, "seed": 8}
    await database.dispose()
    job = await shop.finish()
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "search_failed"
