"""Workers over one queue: stops, takeovers, failures, and a database that goes away."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url
from tests.app.worker.conftest import Shop
from tests.support import jobs
from tests.support.landscape import LandscapeBench, LandscapeEvaluator, LandscapeModel, loss_of

from evomerge.app.db.engine import Database
from evomerge.app.db.repositories import queue
from evomerge.evaluation import Example
from evomerge.optimizers import Candidate


class Gate:
    """Holds a worker in one of its scoring calls until the test lets it go."""

    def __init__(self, call: int) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.evaluator = LandscapeEvaluator(before=self._before)
        self._call = call

    async def _before(self, number: int) -> None:
        if number == self._call:
            self.reached.set()
            await self.open.wait()


async def stop_at(shop: Shop, gate: Gate, request: queue.StopRequest) -> str:
    """Ask for a stop while a worker scores; the status once the worker has obeyed."""
    worker = shop.worker(gate.evaluator)
    task = asyncio.create_task(worker.work())
    await gate.reached.wait()
    async with shop.database.write() as session:
        await queue.request_stop(session, "mj_1", request)
    gate.open.set()

    async def released() -> bool:
        return (await jobs.get_job(shop.database)).lease_owner is None

    await jobs.until(released, task)
    worker.stopping.set()
    await task
    return (await jobs.get_job(shop.database)).status


async def test_a_job_runs_to_its_result(shop: Shop) -> None:
    await shop.add()
    job = await shop.finish()
    assert job.status == "succeeded", job.error
    assert job.result is not None
    winner = job.result["winner"]
    assert winner["search_loss"] == min(row[6] for row in await shop.log() if row[0] != 1000)
    assert winner["alpha"].keys() == {f"expert-{n}" for n in range(4)}
    names = [each["name"] for each in job.result["held_out"][0]["contenders"]]
    assert names == ["winner", "base", "best_expert", "uniform"]
    assert job.progress["stage"] == "done"
    assert job.progress["evaluations"] == job.result["usage"]["search"]["evaluations"] == 40
    assert job.progress["best_loss"] == winner["search_loss"]
    assert job.seconds_used > 0
    listed = {each["name"]: each["bytes"] for each in job.result["artifacts"]}
    assert listed == {name: len(data) for name, data in shop.artifacts().items()}
    metrics = [event for event in await shop.events() if event.type == "metrics"]
    assert len(metrics) == len(job.result["generations"]) == 7
    assert metrics[-1].data["best_loss"] == winner["search_loss"]


@pytest.mark.parametrize("call", [0, 6, 13])
async def test_pause_and_resume_change_nothing(shop: Shop, call: int) -> None:
    await shop.add()
    gate = Gate(call)
    assert await stop_at(shop, gate, "pause") == "paused"
    before = await shop.log()
    async with shop.database.write() as session:
        await queue.resume(session, "mj_1")
    job = await shop.finish()
    assert job.status == "succeeded"
    assert (await shop.log())[: len(before)] == before
    await shop.add("mj_2")
    await shop.run_until(shop.worker(LandscapeEvaluator()), "succeeded", job_id="mj_2")
    assert await shop.log() == await shop.log("mj_2")


async def test_a_cancelled_job_keeps_what_was_paid_for(shop: Shop) -> None:
    await shop.add()
    gate = Gate(3)
    assert await stop_at(shop, gate, "cancel") == "cancelled"
    job = await jobs.get_job(shop.database)
    assert job.finished_at is not None
    assert len(await shop.log()) == sum(gate.evaluator.calls)
    assert not (shop.folder / "artifacts").exists()


async def test_several_workers_run_each_job_once(shop: Shop) -> None:
    for number in range(5):
        await shop.add(f"mj_{number}", budget={"evaluations": 4})
    evaluators = [LandscapeEvaluator() for _ in range(3)]
    workers = [shop.worker(each, f"w{n}") for n, each in enumerate(evaluators)]
    tasks = [asyncio.create_task(worker.work()) for worker in workers]
    await _until_succeeded(shop, [f"mj_{number}" for number in range(5)])
    for worker in workers:
        worker.stopping.set()
    await asyncio.gather(*tasks)
    # 4 candidates of the search, 4 contenders, 5 jobs.
    assert sum(sum(each.calls) for each in evaluators) == 5 * (4 + 4)


async def test_a_worker_taken_for_dead_writes_nothing_more(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    await shop.add()
    gate = Gate(5)
    first = shop.worker(gate.evaluator, "first")
    task = asyncio.create_task(first.work())
    await gate.reached.wait()
    # Its heart stops with it: only the token decides.
    await shop.lapse()
    second = LandscapeEvaluator()
    while await _owner(shop) != "second":
        await shop.lapse()
        claimed = await _claim(shop, "second")
        assert claimed is None or claimed.owner == "second"
    await shop.lapse()
    job = await shop.run_until(shop.worker(second, "third"), "succeeded")
    after = await shop.log()
    gate.open.set()
    first.stopping.set()
    await task
    assert "was lost to another claim" in caplog.text
    assert await shop.log() == after
    assert (await jobs.get_job(shop.database)).result == job.result


async def _owner(shop: Shop) -> str | None:
    return (await jobs.get_job(shop.database)).lease_owner


async def _claim(shop: Shop, owner: str) -> queue.Lease | None:
    async with shop.database.write() as session:
        return await queue.claim(session, owner, 1000.0, 50)


@pytest.mark.parametrize(
    ("budget", "evaluations", "name"),
    [
        ({"evaluations": 13}, 13, "evaluations"),
        ({"evaluations": 3}, 3, "evaluations"),
        # 6 search examples of 7 tokens: 42 tokens a candidate.
        ({"tokens": 42 * 11 + 5}, 11, "tokens"),
        ({"evaluations": 13, "tokens": 42 * 11}, 11, "tokens"),
    ],
)
async def test_a_budget_ends_the_search_with_its_best_so_far(
    shop: Shop, budget: dict[str, int], evaluations: int, name: str
) -> None:
    await shop.add(budget=budget)
    await shop.add("mj_2")
    job = await shop.finish()
    assert job.result is not None
    assert job.result["ended_by"] == name
    assert job.result["usage"]["search"]["evaluations"] == evaluations
    log = [row for row in await shop.log() if row[0] != 1000]
    assert len(log) == evaluations
    assert job.result["winner"]["search_loss"] == min(row[6] for row in log)
    assert any(f"budget of {name}" in event.message for event in await shop.events())
    await shop.run_until(shop.worker(LandscapeEvaluator()), "succeeded", job_id="mj_2")
    whole = [row for row in await shop.log("mj_2") if row[0] != 1000]
    assert log == whole[:evaluations]


async def test_an_expert_alone_wins_only_where_it_competes(shop: Shop) -> None:
    def loss(candidate: Candidate, example: Example) -> float:
        alone = candidate.beta[0].tolist() == [0, 0, 1, 0]
        return 0.0 if alone else 1 + loss_of(candidate, example)

    method = {
        "name": "evo-merging",
        "population": 6,
        "scaling": {"evaluations": 24, "start": "best_expert"},
        "denoising": {"evaluations": 12},
        "probe_competes": False,
    }
    budget = {"evaluations": 9}
    await shop.add("mj_1", method=method, budget=budget)
    await shop.add("mj_2", method={**method, "probe_competes": True}, budget=budget)
    stages, scored = {}, {}
    for job_id in ("mj_1", "mj_2"):
        worker = shop.worker(LandscapeEvaluator(loss=loss))
        job = await shop.run_until(worker, "succeeded", "failed", job_id=job_id)
        assert job.result is not None, job.error
        winner = job.result["winner"]
        stages[job_id] = winner["stage"]
        scored[job_id] = job.result["usage"]["search"]["evaluations"]
        assert job.progress["best_loss"] == winner["search_loss"]
        (best_expert,) = [
            each["expert"]
            for each in job.result["held_out"][0]["contenders"]
            if each["name"] == "best_expert"
        ]
        assert best_expert == "expert-2"
    assert stages == {"mj_1": "scaling", "mj_2": "probe"}
    # Where the four experts alone do not compete, the budget does not count them.
    assert scored == {"mj_1": 4 + 9, "mj_2": 9}
    log = [row for row in await shop.log("mj_1") if row[1] not in ("probe", "held_out")]
    assert len(log) == 9


async def test_a_budget_that_ends_before_anything_may_win_is_named(shop: Shop) -> None:
    # The first cut always goes: four experts alone, 42 tokens each.
    method = {"name": "evo-merging", "preset": "paper"}
    await shop.add(method=method, budget={"tokens": 42 * 4})
    job = await shop.finish()
    assert job.error is not None
    assert job.error["code"] == "budget_too_small"
    assert job.error["param"] == "budget.tokens"


async def test_a_budget_of_no_time_at_all_is_named(shop: Shop) -> None:
    await shop.add(budget={"seconds": 1e-9})
    job = await shop.finish()
    assert job.error is not None
    assert job.error["code"] == "budget_too_small"
    assert job.error["param"] == "budget.seconds"


async def test_a_broken_candidate_is_logged_as_null_and_never_wins(shop: Shop) -> None:
    def loss(candidate: Candidate, example: Example) -> float:
        broken = candidate.beta[0, 0] > 0.3
        return math.nan if broken else loss_of(candidate, example)

    await shop.add()
    job = await shop.finish(LandscapeEvaluator(loss=loss))
    assert job.result is not None, job.error
    losses = [row[6] for row in await shop.log()]
    assert None in losses
    assert job.result["winner"]["beta"]["expert-0"][0] <= 0.3


async def test_a_job_whose_every_loss_is_broken_fails_clearly(shop: Shop) -> None:
    await shop.add()
    job = await shop.finish(LandscapeEvaluator(loss=lambda c, e: math.nan))
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "no_finite_loss"
    assert "40 candidates" in job.error["message"]


@pytest.mark.parametrize("change", ["has changed", "has gone"])
async def test_a_changed_input_is_refused(shop: Shop, change: str) -> None:
    given = jobs.inputs(shop.folder)
    await jobs.add_job(shop.database, given)
    path = given.datasets[0].path
    if change == "has gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b"answer 1", b"answer 7"))
    job = await shop.finish()
    assert job.error is not None
    assert job.error["code"] == "input_changed"
    assert f"dataset 'facts' {change}" in job.error["message"]


class FullDisk(LandscapeBench):
    def merge(self, candidate: Candidate) -> LandscapeModel:
        model = super().merge(candidate)

        def write(folder: Path) -> None:
            (folder / "half").write_bytes(b"x")
            raise OSError(errno.ENOSPC, "No space left on device")

        model.write = write  # type: ignore[method-assign]
        return model


async def test_a_full_disk_costs_no_evaluation(shop: Shop) -> None:
    await shop.add()
    job = await shop.run_until(shop.worker_with(FullDisk()), "failed")
    assert job.error is not None
    assert job.error["code"] == "disk_full"
    assert list((shop.folder / "artifacts").iterdir()) == []
    before = await shop.log()
    async with shop.database.write() as session:
        await queue.resume(session, "mj_1")
    evaluator = LandscapeEvaluator()
    job = await shop.finish(evaluator)
    assert job.status == "succeeded"
    assert evaluator.calls == []
    assert await shop.log() == before
    ended = [event.message for event in await shop.events() if "ended after" in event.message]
    assert len(ended) == 3


async def test_a_fault_of_ours_fails_the_job_and_ends_the_worker(shop: Shop) -> None:
    async def fault(number: int) -> None:
        raise ZeroDivisionError("of ours")

    await shop.add()
    worker = shop.worker(LandscapeEvaluator(before=fault))
    with pytest.raises(ZeroDivisionError):
        await worker.work()
    job = await jobs.get_job(shop.database)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["message"] == "ZeroDivisionError: of ours"


class Absence(logging.Handler):
    """Sets an event once so many warnings of an absent database were logged."""

    def __init__(self, warnings: int) -> None:
        super().__init__()
        self.seen = asyncio.Event()
        self._left = warnings
        self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        self._left -= "database is away" in record.getMessage()
        if self._left <= 0:
            self._loop.call_soon_threadsafe(self.seen.set)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_database_that_goes_away_and_comes_back_costs_nothing(shop: Shop) -> None:
    await shop.add()
    await shop.add("mj_2")
    gate = Gate(5)
    worker = shop.worker(gate.evaluator)
    absence = Absence(3)
    logging.getLogger("evomerge").addHandler(absence)
    task = asyncio.create_task(worker.work())
    await gate.reached.wait()
    try:
        await _shut(shop.database, True)
        gate.open.set()
        await absence.seen.wait()
        await _shut(shop.database, False)
    finally:
        logging.getLogger("evomerge").removeHandler(absence)
    await _until_succeeded(shop, ["mj_1", "mj_2"])
    worker.stopping.set()
    await task
    assert (await jobs.get_job(shop.database)).attempts == 1
    assert await shop.log("mj_1") == await shop.log("mj_2")


async def _until_succeeded(shop: Shop, job_ids: list[str]) -> None:
    async def succeeded() -> bool:
        found = [await jobs.get_job(shop.database, job_id) for job_id in job_ids]
        return all(job.status == "succeeded" for job in found)

    await jobs.until(succeeded)


async def _shut(database: Database, shut: bool) -> None:
    """Let nobody in and throw everybody out, or open again."""
    url = make_url(database.url).set(drivername="postgresql")
    name = url.database
    admin = url.set(database="postgres").render_as_string(hide_password=False)
    async with await psycopg.AsyncConnection.connect(admin, autocommit=True) as connection:
        allowed = "false" if shut else "true"
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}")  # type: ignore[arg-type]
        if shut:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
