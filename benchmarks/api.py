"""What the API costs: a job's creation beside one bare row, and a page out of many jobs.

    python benchmarks/api.py [--requests 200] [--experts 10]

Both services run under a real uvicorn on loopback, each in a process of its own, over the same
kind of database with the same settings; requests alternate between the two, so that whatever else
the machine does falls on both. Prints medians and their ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from safetensors.numpy import save_file
from sqlalchemy import Float, String, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from evomerge import migrations
from evomerge.app.db.engine import Database, epoch
from evomerge.app.db.ids import new_id
from evomerge.app.db.models import Job
from evomerge.app.db.repositories import datasets, experts, pools
from evomerge.app.db.repositories.datasets import NewDataset
from evomerge.app.db.repositories.experts import NewExpert
from evomerge.app.main import create_app
from evomerge.app.settings import Settings
from evomerge.evaluation import Example, to_jsonl

SPEC: dict[str, Any] = {
    "pool": "pool",
    "objective": {"datasets": [{"dataset": "rows"}]},
    "method": {"name": "evo-merging", "preset": "default"},
}
FEW, MANY = 100, 10_000
ROWS = 300


class Base(DeclarativeBase):
    """Of the bare service."""


class Note(Base):
    """One row."""

    __tablename__ = "bare_notes"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    text: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[float] = mapped_column(Float)


def bare_app(settings: Settings) -> FastAPI:
    """A FastAPI endpoint that writes one row, over the same engine."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.database = Database(settings.url)
        async with app.state.database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield
        await app.state.database.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.post("/notes", status_code=201)
    async def create(body: dict[str, Any]) -> dict[str, Any]:
        database: Database = app.state.database
        async with database.write() as session:
            row = {"id": new_id("note"), "text": body["pool"], "created_at": epoch()}
            await session.execute(insert(Note).values(row))
        return {"id": row["id"], "text": row["text"]}

    return app


def run(make: Callable[[Settings], FastAPI], settings: Settings, bound: socket.socket) -> None:
    """Serve in this process until it is ended."""
    config = uvicorn.Config(make(settings), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[bound])


@contextmanager
def served(make: Callable[[Settings], FastAPI], settings: Settings) -> Iterator[str]:
    """The address of a service in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        process = multiprocessing.get_context("fork").Process(
            target=run, args=(make, settings, bound), daemon=True
        )
        process.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            process.terminate()
            process.join()


def write_base(folder: Path) -> Path:
    """All that creation looks at of a base: config, tokenizer and some bytes of weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 2048}))
    words = Tokenizer(WordLevel({"row": 0, "<end>": 1}, unk_token="row"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>").save_pretrained(folder)
    save_file({"weights": np.zeros((8, 8), dtype=np.float32)}, folder / "model.safetensors")
    return folder


def write_rows(folder: Path) -> tuple[Path, str]:
    """A dataset's file, and the hash of its content."""
    data = to_jsonl([Example(f"row {n}", f"row {n}", row=n + 1) for n in range(ROWS)])
    path = folder / "rows.jsonl"
    path.write_bytes(data)
    return path, sha256(data).hexdigest()


async def fill(settings: Settings, count: int) -> None:
    """A pool without its files, and a dataset."""
    path, digest = write_rows(settings.data_dir)
    database = Database(settings.url)
    async with database.write() as session:
        rows = await experts.add(
            session,
            [
                NewExpert(f"e{n}", "tiny", f"/nowhere/{n}", f"{n:064d}", {"rank": 8}, {})
                for n in range(count)
            ],
        )
        await pools.add(
            session, name="pool", base="tiny", expert_ids=[row.id for row in rows], meta={}
        )
        info = {"prompts": ROWS}
        dataset = NewDataset("rows", "completion", digest, ROWS, str(path), info, {})
        await datasets.add(session, dataset)
    await database.dispose()


async def copy_jobs(settings: Settings, template: dict[str, Any], count: int) -> None:
    """More jobs like one that the API made."""
    database = Database(settings.url)
    async with database.write() as session:
        await session.execute(
            insert(Job).values(created_at=epoch()),
            [{**template, "id": new_id("mj")} for _ in range(count)],
        )
    await database.dispose()


async def template_of(settings: Settings, job_id: str) -> dict[str, Any]:
    """The row of a job, to be copied."""
    database = Database(settings.url)
    async with database.read() as session:
        row = await session.get_one(Job, job_id)
        names = [attribute.key for attribute in Job.__mapper__.column_attrs]
        fields = {name: getattr(row, name) for name in names}
    await database.dispose()
    return {name: value for name, value in fields.items() if name not in ("id", "created_at")}


async def alternate(
    actions: dict[str, Callable[[], Awaitable[httpx.Response]]], count: int
) -> dict[str, float]:
    """Median seconds of each action, taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(count + 10):
        for name, act in actions.items():
            begun = time.perf_counter()
            response = await act()
            taken = time.perf_counter() - begun
            response.raise_for_status()
            if number >= 10:  # the first ones warm up
                seconds[name].append(taken)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


async def up(client: httpx.AsyncClient, path: str) -> None:
    """Wait until a service answers."""
    for _ in range(600):
        try:
            await client.get(path)
        except httpx.TransportError:
            await asyncio.sleep(0.1)
        else:
            return
    raise TimeoutError(f"{client.base_url} did not start")


async def creations(api: httpx.AsyncClient, bare: httpx.AsyncClient, count: int) -> str:
    """Time of a creation; the id of a job that was made."""
    times = await alternate(
        {
            "one bare row": lambda: bare.post("/notes", json=SPEC),
            "a merge job": lambda: api.post("/v1/merge_jobs", json=SPEC),
        },
        count,
    )
    report(times, "limit 3")
    job: str = (await api.get("/v1/merge_jobs", params={"limit": 1})).json()["data"][0]["id"]
    return job


async def pages(few: httpx.AsyncClient, many: httpx.AsyncClient, count: int) -> None:
    """Time of a page, the first and a late one."""

    async def late(client: httpx.AsyncClient, share: float) -> str:
        after, left = None, share
        while left > 0:
            params = {"limit": 100} | ({"after": after} if after else {})
            data = (await client.get("/v1/merge_jobs", params=params)).json()["data"]
            after, left = data[-1]["id"], left - 100
        return str(after)

    def page(client: httpx.AsyncClient, **params: Any) -> Callable[[], Awaitable[httpx.Response]]:
        return lambda: client.get("/v1/merge_jobs", params={"limit": 20, **params})

    behind = await late(many, 9_000)
    times = await alternate(
        {
            f"a page of {FEW} jobs": page(few),
            f"a page of {MANY} jobs": page(many),
            f"page 450 of {MANY} jobs": page(many, after=behind),
        },
        count,
    )
    report(times, "as fast")


def report(times: dict[str, float], wanted: str) -> None:
    """Print medians, and their ratios to the first."""
    first = next(iter(times.values()))
    for name, seconds in times.items():
        print(f"  {name:<24} {seconds * 1000:8.2f} ms   x {seconds / first:.2f}")
    print(f"  (wanted: {wanted})")


def settings_of(folder: Path, url: str | None) -> Settings:
    """Settings of a service over an empty, migrated database."""
    folder.mkdir()
    bases = {"tiny": write_base(folder / "base")}
    settings = Settings(data_dir=folder, database_url=url, bases=bases)
    migrations.upgrade(settings.url)
    return settings


async def main(requests: int, count: int, folder: Path) -> None:
    """Measure and print."""
    few, many, bare = (settings_of(folder / name, None) for name in ("few", "many", "bare"))
    for settings in (few, many):
        await fill(settings, count)
    with (
        served(create_app, few) as few_url,
        served(create_app, many) as many_url,
        served(bare_app, bare) as bare_url,
    ):
        async with (
            httpx.AsyncClient(base_url=few_url, timeout=60) as few_api,
            httpx.AsyncClient(base_url=many_url, timeout=60) as many_api,
            httpx.AsyncClient(base_url=bare_url, timeout=60) as bare_api,
        ):
            for client, path in (
                (few_api, "/healthz"),
                (many_api, "/healthz"),
                (bare_api, "/docs"),
            ):
                await up(client, path)
            print(f"creating, {count} experts in the pool, median of {requests}:")
            made = await creations(many_api, bare_api, requests)
            template = await template_of(many, made)
            await copy_jobs(many, template, MANY - requests - 10)
            await copy_jobs(few, template, FEW)
            print(f"listing 20 jobs, median of {requests}:")
            await pages(few_api, many_api, requests)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--experts", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(main(given.requests, given.experts, Path(scratch)))
