"""A service with finished merges over a tiny base, behind a real server in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession
from tests.support.tiny import make_adapter, make_base

from evomerge.app.db.engine import Database, epoch
from evomerge.app.db.models import Expert, Job
from evomerge.app.db.repositories import models
from evomerge.app.main import create_app
from evomerge.app.schemas.inputs import DatasetInput, ExpertInput, JobInputs
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.settings import Settings
from evomerge.app.worker.artifacts import folder_of
from evomerge.evaluation import Example, to_jsonl
from evomerge.merging.lora.adapter import read_adapter

Json = dict[str, Any]
EXAMPLES = [
    Example("Berlin is in", "Germany"),
    Example("a", "b c d"),
    Example("The capital of the largest country of Europe is", "Moscow"),
    Example("2+2=", "4"),
]
SPEC: Json = {
    "experts": ["one", "two"],
    "objective": {"datasets": [{"dataset": "facts"}], "max_new_tokens": 12},
}


@dataclass(frozen=True)
class World:
    """What a service serves.

    Attributes:
        base: folder of the base `tiny`.
        adapters: by job's id or expert's name, folders of adapters.
    """

    settings: Settings
    base: Path
    adapters: Mapping[str, Path]


def make_world(folder: Path, url: str, *, chat_template: str | None = None, **more: Any) -> World:
    """Two experts; merges `merged` (mj_merged), `chatty` of chat rows; a job that is queued."""
    base = make_base(folder / "bases" / "tiny", seed=3, chat_template=chat_template)
    settings = Settings(
        data_dir=folder / "data",
        database_url=url,
        bases={"tiny": base},
        device="cpu",
        threads=1,
        batch_tokens=512,
        **more,
    )
    chats = [Example("User: hi\nAssistant:", "ho", messages=(("user", "hi"),))]
    prompts, turns = _dataset(folder, "facts", EXAMPLES), _dataset(folder, "chats", chats)
    experts = {
        name: make_adapter(folder / name, base, seed=n) for n, name in enumerate(["one", "two"])
    }
    jobs = {"mj_merged": ("merged", prompts), "mj_chatty": ("chatty", turns)}
    merges = {
        job: make_adapter(folder_of(settings.data_dir, job), base, seed=7 + n)
        for n, job in enumerate(jobs)
    }
    asyncio.run(_fill(settings, experts, jobs))
    return World(settings, base, experts | merges)


def _dataset(folder: Path, name: str, rows: Sequence[Example]) -> DatasetInput:
    path = folder / f"{name}.jsonl"
    path.write_bytes(to_jsonl(rows))
    return DatasetInput(
        id=f"ds_{name}", name=name, path=path, content_hash="0" * 64, rows=len(rows)
    )


async def _fill(
    settings: Settings,
    experts: Mapping[str, Path],
    jobs: Mapping[str, tuple[str, DatasetInput]],
) -> None:
    database = Database(settings.url)
    hashes = {name: read_adapter(path).content_hash for name, path in experts.items()}
    members = [
        ExpertInput(id=f"ex_{name}", name=name, path=path, content_hash=hashes[name])
        for name, path in experts.items()
    ]
    spec = MergeJobSpec.model_validate(SPEC).model_dump(mode="json")
    async with database.write() as session:
        for one in members:
            await session.execute(
                insert(Expert).values(
                    id=one.id,
                    name=one.name,
                    kind="lora",
                    base="tiny",
                    path=str(one.path),
                    content_hash=one.content_hash,
                    info={},
                    meta={"chat": "plain"} if one.name == "two" else {},
                    created_at=epoch(),
                )
            )
        for job, (name, data) in {**jobs, "mj_queued": ("", next(iter(jobs.values()))[1])}.items():
            await _add_job(
                session, job, name, spec, JobInputs(base="tiny", experts=members, datasets=[data])
            )
    await database.dispose()


async def _add_job(
    session: AsyncSession, job: str, name: str, spec: Json, inputs: JobInputs
) -> None:
    """A job that has succeeded under a name; queued without one."""
    await session.execute(
        insert(Job).values(
            id=job,
            kind="merge",
            status="succeeded" if name else "queued",
            spec=spec,
            inputs=inputs.model_dump(mode="json"),
            meta={},
            progress={},
            created_at=epoch(),
            finished_at=epoch() if name else None,
        )
    )
    if name:
        await models.name(session, name, job)


def add_merge(
    world: World, job: str, name: str, space: str, write: Callable[[Path], None], **spec: Any
) -> None:
    """One more merge that has succeeded; `write` fills its artifacts' folder."""
    folder = folder_of(world.settings.data_dir, job)
    folder.mkdir(parents=True)
    write(folder)
    asked = MergeJobSpec.model_validate({**SPEC, "space": space, **spec}).model_dump(mode="json")
    inputs = JobInputs(
        experts=[ExpertInput(id="ex_api", name="api", content_hash="0" * 64, kind="api")],
        datasets=[_dataset(world.settings.data_dir, job, EXAMPLES)],
    )

    async def add() -> None:
        database = Database(world.settings.url)
        async with database.write() as session:
            await _add_job(session, job, name, asked, inputs)
        await database.dispose()

    asyncio.run(add())


class _Server(uvicorn.Server):
    """Tells when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    """The address of the service, served by a thread."""
    config = uvicorn.Config(
        create_app(settings), log_level="error", timeout_graceful_shutdown=1, lifespan="on"
    )
    server = _Server(config)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            assert server.up.wait(60)
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
