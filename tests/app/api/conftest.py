"""A running application over both databases, a tiny base, adapters and a dataset on disk."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from tests.app.api.client import Api
from tests.support.tiny import make_adapter, make_base

from evomerge.app.main import create_app
from evomerge.app.settings import Settings


@dataclass(frozen=True)
class Shelf:
    """What lies below the service's root."""

    root: Path
    base: Path
    adapters: list[Path]
    dataset: Path


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """A base, three adapters and a dataset; tests read and never write them."""
    root = tmp_path_factory.mktemp("shelf")
    base = make_base(tmp_path_factory.mktemp("bases") / "tiny")
    adapters = [make_adapter(root / "pool" / name, base, n) for n, name in enumerate("abc")]
    rows = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(6)]
    dataset = root / "rows.jsonl"
    dataset.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Shelf(root, base, adapters, dataset)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of the test's own below a root of the service."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def settings(database_url: str, shelf: Shelf, root: Path, tmp_path: Path) -> Settings:
    """Settings over a migrated database of either kind."""
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        roots=[shelf.root, root],
        bases={"tiny": shelf.base},
        poll_seconds=0.01,
        heartbeat_seconds=0.03,
        max_body_bytes=100_000,
        max_upload_bytes=300_000,
        # Experts' APIs of tests are on this machine, and nothing ever goes further.
        allowed_hosts=["127.0.0.1"],
        allowed_networks=["127.0.0.0/8"],
    )


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application, started."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@asynccontextmanager
async def connected(app: FastAPI, shelf: Shelf, **headers: str) -> AsyncIterator[Api]:
    """A client of a started application."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=headers
    ) as client:
        yield Api(client, shelf.root / "pool" / "*", shelf.dataset)


@pytest.fixture
async def api(app: FastAPI, shelf: Shelf) -> AsyncIterator[Api]:
    async with connected(app, shelf) as api:
        yield api
