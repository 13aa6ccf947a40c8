"""A secret is planted, servers do their best to give it away, and everything is searched for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import MetaData, select
from tests.app.api.client import Json, created
from tests.support import classroom
from tests.support.provider import Action, Request, Send, provider

from evomerge.app.db.engine import Database
from evomerge.app.main import create_app
from evomerge.app.settings import Settings
from evomerge.app.worker.process import work

CANARY = "sk-canary-7f3a9b1c5d2e8f40"
MODELS = ("north", "south")


def shut(request: Request) -> Action:
    """A server that lets nobody in any more, and says with which key."""
    key = request.headers.get("authorization", "")
    return Send({"error": {"message": f"{key} is not valid", "code": key}}, 401)


def loose_lipped(request: Request) -> Action:
    """The classroom, but for a server that shows everybody the key that it was sent."""
    key = request.headers.get("authorization", "")
    body = request.body
    text = str(body["messages"][-1]["content"]) if "messages" in body else ""
    if "q3:" in text:
        return Send({"error": {"message": f"no access for {key}", "param": key}}, 400)
    if "q4:" in text:
        return Send(f"<html>{key} is over its limit</html>", 413)
    answer = classroom.answer(request)
    if isinstance(answer, Send) and answer.status == 200 and isinstance(answer.body, dict):
        answer.body["system_fingerprint"] = key
        if "q5:" in text:
            answer.body["choices"][0]["message"]["content"] = f"A {key}"
    return answer


@pytest.fixture
async def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        allowed_hosts=["127.0.0.1"],
        allowed_networks=["127.0.0.0/8"],  # type: ignore[list-item]
        credentials={"school": {"hosts": ["127.0.0.1"], "env": "SCHOOL_KEY"}},  # type: ignore[dict-item]
        poll_seconds=0.02,
    )


async def answers(http: httpx.AsyncClient, job: str) -> AsyncIterator[str]:
    """Everything that the API tells."""
    kinds = ("experts", "pools", "datasets", "forests", "merge_jobs", "forest_jobs", "models")
    listed = [f"/v1/{name}" for name in kinds]
    of_job = [f"/v1/merge_jobs/{job}{end}" for end in ("", "/events?limit=100", "/result")]
    of_job += [f"/v1/merge_jobs/{job}/evaluations?limit=100"]
    for path in [*listed, *of_job, "/openapi.json", "/v1/experts/north"]:
        yield (await http.get(path)).text


async def rows(settings: Settings) -> AsyncIterator[str]:
    """Everything that the database holds."""
    database = Database(settings.url)
    try:
        async with database.read() as session:
            connection = await session.connection()
            found = MetaData()
            await connection.run_sync(found.reflect)
            for table in found.tables.values():
                for row in await session.execute(select(table)):
                    yield repr(tuple(row))
    finally:
        await database.dispose()


async def ended(http: httpx.AsyncClient, settings: Settings, spec: Json) -> Json:
    """A job, once a worker has done what can be done for it."""
    job: Json = created(await http.post("/v1/merge_jobs", json=spec))
    stopping = asyncio.Event()
    worker = asyncio.create_task(work(settings, stopping))
    try:
        while job["status"] not in ("succeeded", "failed"):
            await asyncio.sleep(0.02)
            job = (await http.get(f"/v1/merge_jobs/{job['id']}")).json()
    finally:
        stopping.set()
        await worker
    return job


async def test_no_secret_gets_anywhere(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SCHOOL_KEY", CANARY)
    caplog.set_level(logging.DEBUG)
    app = create_app(settings)
    transport = httpx.ASGITransport(app=app)
    async with (
        provider(loose_lipped) as server,
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        for model in MODELS:
            body = classroom.expert(model, server.base_url, credential="school")
            created(await http.post("/v1/experts", json=body))
        for name, count in (("test", 20), ("more", 24)):
            files = {"file": (f"{name}.jsonl", classroom.rows(count))}
            created(await http.post("/v1/datasets", data={"name": name}, files=files))
        spec: Json = {
            "experts": list(MODELS),
            "space": "output",
            "objective": {"datasets": [{"dataset": "test"}]},
            "method": {"name": "cma", "scaling": {"evaluations": 40}},
            "serve_as": "school",
        }
        job = await ended(http, settings, spec)
        assert job["status"] == "succeeded", job["error"]
        asked = {"model": "school", "messages": [{"role": "user", "content": "q5: which colour?"}]}
        served = await http.post("/v1/chat/completions", json=asked)
        asked["messages"][0]["content"] = "q3: which colour?"  # type: ignore[index]
        refused = await http.post("/v1/chat/completions", json=asked)
        told = [served.text, refused.text]
        server.answer = shut
        objective = {"datasets": [{"dataset": "more"}]}
        failed = await ended(http, settings, {**spec, "objective": objective, "serve_as": "shut"})
        assert "not valid" in failed["error"]["message"]
        checked = await http.post("/v1/experts/north/check")
        assert "not valid" in checked.text
        told.append(checked.text)
        for one in (job, failed):
            told += [text async for text in answers(http, one["id"])]
    # It really was used, and the server really said it.
    assert {request.headers.get("authorization") for request in server.requests} == {
        f"Bearer {CANARY}"
    }
    assert served.status_code == 200, served.text
    told += [row async for row in rows(settings)]
    told += [record.getMessage() + str(record.exc_info) for record in caplog.records]
    files_written = [path for path in settings.data_dir.rglob("*") if path.is_file()]
    assert any(path.name == "output_merge.json" for path in files_written)
    for text in told:
        assert CANARY not in text
    for path in files_written:
        assert CANARY.encode() not in path.read_bytes(), path
