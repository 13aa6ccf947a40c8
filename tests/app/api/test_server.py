"""What only a real server on a real socket shows: streams, and clients that are cut off."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from tests.app.api.client import Api
from tests.app.api.conftest import Shelf
from tests.support.databases import sqlite_url

from evomerge.app.client import EvoMergeClient
from evomerge.app.db.engine import Database
from evomerge.app.db.repositories import events, queue
from evomerge.app.main import create_app
from evomerge.app.schemas.merge_jobs import MergeJobEvent
from evomerge.app.services import job_log
from evomerge.app.settings import Settings


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    shutil.copy(sqlite_template, tmp_path)
    return sqlite_url(tmp_path)


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """The address of the application behind a real server."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[bound]))
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@pytest.fixture
async def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
async def url(app: FastAPI) -> AsyncIterator[str]:
    async with serving(app) as url:
        yield url


@pytest.fixture
async def api(url: str, shelf: Shelf) -> AsyncIterator[Api]:
    async with httpx.AsyncClient(base_url=url) as http:
        yield Api(http, shelf.root / "pool" / "*", shelf.dataset)


async def happen(app: FastAPI, job_id: str, message: str) -> None:
    """Let the job write an event."""
    database: Database = app.state.context.database
    async with database.write() as session:
        await events.append(session, job_id, message)


async def test_events_come_as_they_happen_until_the_job_ends(
    api: Api, app: FastAPI, url: str
) -> None:
    job = await api.job()
    await happen(app, job["id"], "number 0")
    seen: list[str] = []
    async with EvoMergeClient(url) as client:
        async for event in client.event_stream(job["id"]):
            seen.append(event["message"])
            if len(seen) < 4:
                # Only what has been seen brings the next one about: nothing is held back.
                await happen(app, job["id"], f"number {len(seen)}")
            else:
                async with app.state.context.database.write() as session:
                    await queue.request_stop(session, job["id"], "cancel")
    assert seen[:4] == [f"number {n}" for n in range(4)]
    assert "cancel" in seen[4]
    assert len(seen) == 5


async def test_silence_is_filled_and_a_stream_goes_on_where_it_was_cut(
    api: Api, app: FastAPI
) -> None:
    job = await api.job()
    for number in range(3):
        await happen(app, job["id"], f"number {number}")
    path = f"/v1/merge_jobs/{job['id']}/events"
    ids: list[str] = []
    async with api.http.stream("GET", path, params={"stream": True}) as response:
        assert response.headers["cache-control"] == "no-store"
        async for line in response.aiter_lines():
            if line.startswith("id: "):
                ids.append(line.removeprefix("id: "))
            if line == ": still there":
                break
    assert len(ids) == 3
    async with app.state.context.database.write() as session:
        await queue.request_stop(session, job["id"], "cancel")
    response = await api.http.get(path, params={"stream": True}, headers={"Last-Event-ID": ids[1]})
    lines = [line for line in response.text.splitlines() if line.startswith("data: ")]
    messages = [json.loads(line.removeprefix("data: "))["message"] for line in lines]
    assert messages[0] == "number 2"
    assert len(messages) == 2


async def test_a_client_that_leaves_ends_its_stream(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, ended = job_log.event_stream, asyncio.Event()

    async def watched(*args: Any) -> AsyncIterator[MergeJobEvent | None]:
        try:
            async for event in original(*args):
                yield event
        finally:
            ended.set()

    monkeypatch.setattr(job_log, "event_stream", watched)
    job = await api.job()
    path = f"/v1/merge_jobs/{job['id']}/events?stream=true"
    async with api.http.stream("GET", path) as response:
        await anext(response.aiter_lines())
        assert not ended.is_set()
    await asyncio.wait_for(ended.wait(), 30)


async def test_two_announced_gigabytes_are_answered_at_once(url: str) -> None:
    port = httpx.URL(url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Length: 2147483648\r\n"
        b"Content-Type: multipart/form-data; boundary=zz\r\n\r\n--zz\r\n"
    )
    await writer.drain()
    answer = await reader.read()  # to the end of the connection, which the server closes
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer
    writer.close()


async def test_an_upload_that_is_cut_off_leaves_nothing(url: str, settings: Settings) -> None:
    port = httpx.URL(url).port
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    part = b'--zz\r\nContent-Disposition: form-data; name="file"; filename="x.jsonl"\r\n\r\n{'
    writer.write(
        b"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n"
        b"Content-Type: multipart/form-data; boundary=zz\r\n\r\n" + part
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with httpx.AsyncClient(base_url=url) as http:
        assert (await http.get("/v1/datasets")).json()["data"] == []
    assert not [path for path in settings.data_dir.rglob("*") if path.is_file()]


async def test_a_slow_upload_in_pieces(url: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'--zz\r\nContent-Disposition: form-data; name="file"; filename="x.jsonl"\r\n\r\n'
        for number in range(5):
            await asyncio.sleep(0)
            yield b'{"prompt": "%d", "completion": "c"}\n' % number
        yield b"\r\n--zz--\r\n"

    async with httpx.AsyncClient(base_url=url) as http:
        headers = {"Content-Type": "multipart/form-data; boundary=zz"}
        response = await http.post("/v1/datasets", content=pieces(), headers=headers)
    assert (response.status_code, response.json()["rows"]) == (201, 5)
