"""A running application over both databases, a tiny base, adapters and a dataset on disk."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from evomerge.app.main import create_app
from evomerge.app.settings import Settings
from tests.support.databases import database_url, empty_url
from tests.support.tiny import make_adapter, make_base

__all__ = ["database_url", "empty_url"]

Json = dict[str, Any]


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
def settings(database_url: str, shelf: Shelf, tmp_path: Path) -> Settings:
    """Settings over a migrated database of either kind."""
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        roots=[shelf.root],
        bases={"tiny": shelf.base},
        poll_seconds=0.02,
    )


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application, started."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@dataclass
class Api:
    """Shorthands for what most tests do first."""

    http: httpx.AsyncClient
    shelf: Shelf
    made: dict[str, Json] = field(default_factory=dict)

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return await self.http.post(path, json=body, headers=headers)

    async def pool(self, name: str = "pool") -> Json:
        """A pool of all adapters of the shelf."""
        body = {"name": name, "folders": str(self.shelf.root / "pool" / "*")}
        return _created(await self.post("/v1/pools", body))

    async def dataset(self, name: str = "rows") -> Json:
        """The shelf's dataset."""
        body = {"name": name, "path": str(self.shelf.dataset)}
        return _created(await self.post("/v1/datasets", body))

    async def job(self, **changes: Any) -> Json:
        """A job over both."""
        if not self.made:
            self.made = {"pool": await self.pool(), "dataset": await self.dataset()}
        return _created(await self.post("/v1/merge_jobs", spec(**changes)))


@pytest.fixture
def api(client: httpx.AsyncClient, shelf: Shelf) -> Api:
    return Api(client, shelf)


def spec(**changes: Any) -> Json:
    """A job's body, over what `Api` makes."""
    return {
        "pool": "pool",
        "objective": {"datasets": [{"dataset": "rows"}]},
        "method": {"name": "cma", "population": 4, "scaling": {"evaluations": 12}},
        **changes,
    }


def _created(response: httpx.Response) -> Json:
    assert response.status_code == 201, response.text
    body: Json = response.json()
    return body
