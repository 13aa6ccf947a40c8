"""A started service whose root holds a tiny seed and ELMs of it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.app.api.client import Api, Json, created
from tests.support.databases import sqlite_url
from tests.support.elm_folders import make_elm
from tests.support.tiny import make_base

from evomerge.app.db.engine import Database
from evomerge.app.main import create_app
from evomerge.app.settings import Settings

NAMES = ("ada", "bob", "cyd")


@dataclass(frozen=True)
class Wood:
    """The service, and what lies below its root: a folder for the seed and for each of `NAMES`."""

    api: Api
    root: Path
    database: Database

    async def forest(self, name: str, elms: Sequence[str] = NAMES, **ensemble: Any) -> Json:
        """A forest of some of the ELMs."""
        body = {
            "name": name,
            "seed": {"path": str(self.root / "seed")},
            "elms": [{"path": str(self.root / elm)} for elm in elms],
            "ensemble": ensemble,
        }
        return created(await self.api.post("/v1/forests", body))


@asynccontextmanager
async def wood(folder: Path, template: Path) -> AsyncIterator[Wood]:
    """Start a service in an empty folder, over a copy of a migrated SQLite file."""
    shutil.copy(template, folder)
    root = folder / "root"
    seed = make_base(root / "seed")
    for number, name in enumerate(NAMES, 1):
        make_elm(root / name, seed, number)
    settings = Settings(data_dir=folder / "data", database_url=sqlite_url(folder), roots=[root])
    app = create_app(settings)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        yield Wood(Api(http, root, root), root, app.state.context.database)
