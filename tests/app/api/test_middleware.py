"""Keys and limits, which need no particular database."""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.types import Message, Scope
from tests.app.api.client import Api, created, error, spec
from tests.app.api.conftest import Shelf, connected
from tests.support.databases import sqlite_url

from evomerge.app.main import create_app
from evomerge.app.settings import Settings

KEY = "sk-correct-horse"


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    shutil.copy(sqlite_template, tmp_path)
    return sqlite_url(tmp_path)


@pytest.fixture
async def locked(settings: Settings) -> AsyncIterator[FastAPI]:
    """An application that asks for a key."""
    keys = [SecretStr("another"), SecretStr(KEY)]
    app = create_app(settings.model_copy(update={"api_keys": keys}))
    async with app.router.lifespan_context(app):
        yield app


@pytest.mark.parametrize(
    "header", ["", KEY, f"Basic {KEY}", "Bearer", "Bearer wrong", f"Bearer {KEY}x", "Bearer \xff"]
)
async def test_without_a_valid_key(locked: FastAPI, shelf: Shelf, header: str) -> None:
    async with connected(locked, shelf) as api:
        raw = [(b"authorization", header.encode("latin-1"))] if header else []
        for path in ("/v1/experts", "/v1/merge_jobs/mj_x", "/v1/nothing", "/v1"):
            response = await api.http.get(path, headers=raw)
            error(response, 401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
        response = await api.http.post("/tokenize", json={"model": "m", "prompt": "a"}, headers=raw)
        error(response, 401, "invalid_api_key")
        for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json"):
            assert (await api.http.get(path, headers=raw)).status_code == 200


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer  {KEY} ", "Bearer another"])
async def test_with_a_valid_key(locked: FastAPI, shelf: Shelf, header: str) -> None:
    async with connected(locked, shelf, Authorization=header) as api:
        assert (await api.get("/v1/experts")).status_code == 200


async def test_keys_are_never_told(
    locked: FastAPI, shelf: Shelf, caplog: pytest.LogCaptureFixture, settings: Settings
) -> None:
    caplog.set_level(logging.DEBUG)
    async with connected(locked, shelf, Authorization=f"Bearer {KEY}") as api:
        await api.inputs()
        job = created(await api.post("/v1/merge_jobs", spec(), idempotency_key="k"))
        texts = [str(job), (await api.get("/openapi.json")).text]
    data = b"".join(path.read_bytes() for path in settings.data_dir.parent.glob("evomerge.db*"))
    assert KEY not in caplog.text + "".join(texts)
    assert KEY.encode() not in data


class Body:
    """A body that never ends, and counts what was taken of it."""

    def __init__(self, start: bytes = b"") -> None:
        self.start = start
        self.taken = 0

    async def receive(self) -> Message:
        chunk = self.start if self.taken == 0 and self.start else b"x" * 65536
        self.taken += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": True}


async def send(app: FastAPI, path: str, body: Body, **headers: str) -> tuple[int, bytes, Message]:
    """POST straight into the application."""
    sent: list[Message] = []

    async def collect(message: Message) -> None:
        sent.append(message)

    pairs = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": pairs,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await app(scope, body.receive, collect)
    content = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], content, sent[0]


FORM = "multipart/form-data; boundary=zz"
PART = b'--zz\r\nContent-Disposition: form-data; name="file"; filename="x.jsonl"\r\n\r\n'


async def test_two_announced_gigabytes_are_refused_unread(app: FastAPI) -> None:
    body = Body()
    status, content, start = await send(
        app, "/v1/datasets", body, content_type=FORM, content_length=str(2 * 2**30)
    )
    assert status == 413
    assert b"2147483648 bytes" in content
    assert (b"connection", b"close") in start["headers"]
    assert body.taken == 0


@pytest.mark.parametrize("announced", [{}, {"content_length": "100"}])
@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/experts"])
async def test_an_endless_form_is_cut_off(
    app: FastAPI, settings: Settings, announced: dict[str, str], path: str
) -> None:
    body = Body(PART)
    status, content, _ = await send(app, path, body, content_type=FORM, **announced)
    assert status == 413
    assert b'"body_too_large"' in content
    assert body.taken < settings.max_upload_bytes + 4 * 65536
    assert not [path for path in settings.data_dir.rglob("*") if path.is_file()]


@pytest.mark.parametrize("path", ["/v1/merge_jobs", "/v1/pools", "/v1/experts"])
async def test_an_endless_json_body_is_cut_off(app: FastAPI, settings: Settings, path: str) -> None:
    body = Body()
    status, content, _ = await send(app, path, body, content_type="application/json")
    assert status == 413
    assert b'"body_too_large"' in content
    assert body.taken < settings.max_body_bytes + 4 * 65536


async def test_a_key_is_asked_for_before_the_body_is_read(locked: FastAPI) -> None:
    body = Body(PART)
    status, _, _ = await send(locked, "/v1/datasets", body, content_type=FORM)
    assert (status, body.taken) == (401, 0)


async def test_an_upload_just_within_the_limit(api: Api, settings: Settings) -> None:
    row = b'{"prompt": "p", "completion": "c"}\n'
    content = row * (settings.max_upload_bytes // len(row))
    created(await api.http.post("/v1/datasets", files={"file": ("x.jsonl", content)}))
