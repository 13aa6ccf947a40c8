"""Jobs put straight into the database, and workers over them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from evomerge.app.db.engine import Database, epoch
from evomerge.app.db.models import Job
from evomerge.app.schemas.inputs import DatasetInput, ExpertInput, JobInputs
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.worker.ledger import Ledger
from evomerge.app.worker.run import MergeRun
from evomerge.app.worker.workbench import Prepare
from evomerge.evaluation import Example, to_jsonl

SPEC: dict[str, Any] = {
    "pool": "relatives",
    "objective": {"datasets": [{"dataset": "facts"}]},
    "method": {
        "name": "evo-merging",
        "population": 6,
        "scaling": {"evaluations": 24, "start": "best_expert"},
        "denoising": {"evaluations": 12},
    },
}


def examples(count: int = 12) -> list[Example]:
    """Rows that all differ."""
    return [Example(prompt=f"question {n}", completion=f"answer {n}") for n in range(count)]


def write_dataset(
    folder: Path, rows: Sequence[Example] | None = None, name: str = "facts"
) -> DatasetInput:
    """A dataset file in normal form, as the API leaves it."""
    data = to_jsonl(examples() if rows is None else rows)
    digest = sha256(data).hexdigest()
    path = folder / f"{digest}.jsonl"
    path.write_bytes(data)
    return DatasetInput(
        id=f"ds_{name}", name=name, path=path, content_hash=digest, rows=data.count(b"\n")
    )


def inputs(folder: Path, experts: int = 4) -> JobInputs:
    """Inputs of a job over the landscape; its experts have no files."""
    members = [
        ExpertInput(id=f"ex_{n}", name=f"expert-{n}", path=folder, content_hash=f"{n:064d}")
        for n in range(experts)
    ]
    return JobInputs(base="none", experts=members, datasets=[write_dataset(folder)])


async def add_job(
    database: Database, given: JobInputs, job_id: str = "mj_1", **spec: Any
) -> MergeJobSpec:
    """Queue a job; keywords replace fields of `SPEC`."""
    asked = MergeJobSpec.model_validate({**SPEC, **spec})
    async with database.write() as session:
        await session.execute(
            insert(Job).values(
                id=job_id,
                kind="merge",
                name=asked.name,
                status="queued",
                spec=asked.model_dump(mode="json"),
                inputs=given.model_dump(mode="json"),
                meta={},
                progress={},
                created_at=epoch(),
            )
        )
    return asked


async def get_job(database: Database, job_id: str = "mj_1") -> Job:
    """The job's row as it is now."""
    async with database.read() as session:
        job = await session.get(Job, job_id)
    assert job is not None
    return job


async def until(
    condition: Callable[[], Awaitable[bool]],
    task: asyncio.Task[None] | None = None,
    patience: float = 60.0,
) -> None:
    """Look at the database again and again until something is so there.

    Raises what `task` raised if it ended first, and TimeoutError after `patience` seconds.
    """
    async with asyncio.timeout(patience):
        while not await condition():
            if task is not None and task.done():
                task.result()
            # Other processes write this database: it tells nobody when it changes.
            await asyncio.sleep(0.01)


def runner(prepare: Prepare, data_dir: Path, stopping: asyncio.Event) -> Callable[[Ledger], Any]:
    """What a worker does with a claimed job."""

    async def run(ledger: Ledger) -> None:
        await MergeRun(ledger, prepare, data_dir, {"evomerge": "test"}, stopping).run()

    return run
