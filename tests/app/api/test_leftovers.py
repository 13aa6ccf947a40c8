"""Stored files go with the last that needs them, and never before."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from tests.app.api.client import Api, Json, created, error, spec
from tests.app.api.conftest import Shelf
from tests.support.jobs import until

from evomerge.app.db.models import Job
from evomerge.app.db.repositories import references
from evomerge.app.main import create_app
from evomerge.app.services import leftovers
from evomerge.app.settings import Settings

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
DAY = 24 * 3600.0


async def upload(api: Api, folder: Path, name: str) -> Json:
    files = {"config": (folder / CONFIG).read_bytes(), "weights": (folder / WEIGHTS).read_bytes()}
    return created(await api.http.post("/v1/experts", files=files, data={"name": name}))


def stored(settings: Settings) -> list[str]:
    """Names of everything that the service keeps."""
    folders = [settings.data_dir / "datasets", settings.data_dir / "experts"]
    return sorted(path.name for folder in folders if folder.is_dir() for path in folder.iterdir())


async def end(app: FastAPI, job_id: str, status: str, space: str | None = None) -> None:
    """Say of a job that a worker has ended it."""
    async with app.state.context.database.write() as session:
        await session.execute(update(Job).where(Job.id == job_id).values(status=status))
        if space:
            row = await session.get_one(Job, job_id)
            row.spec = {**row.spec, "space": space}


async def test_a_file_goes_with_the_last_row(api: Api, shelf: Shelf, settings: Settings) -> None:
    one, other = [await upload(api, shelf.adapters[0], name) for name in ("one", "other")]
    rows = await api.dataset()
    assert stored(settings) == sorted([one["content_hash"], f"{rows['content_hash']}.jsonl"])
    await api.http.delete("/v1/experts/one")
    assert other["content_hash"] in stored(settings)
    await api.http.delete("/v1/experts/other")
    await api.http.delete("/v1/datasets/rows")
    assert stored(settings) == []
    # What was registered where it lies is not the service's to delete.
    assert shelf.dataset.is_file()


async def test_a_registered_folder_stays(api: Api, shelf: Shelf, settings: Settings) -> None:
    body = {"path": str(shelf.adapters[0]), "name": "lying"}
    lying = created(await api.post("/v1/experts", body))
    await upload(api, shelf.adapters[0], "up")
    await api.http.delete("/v1/experts/up")
    assert stored(settings) == [lying["content_hash"]]  # a row has this content still
    await api.http.delete("/v1/experts/lying")
    assert (shelf.adapters[0] / WEIGHTS).is_file()


@pytest.mark.parametrize(
    ("status", "space", "kept"),
    [
        ("queued", None, True),
        ("running", None, True),
        ("paused", None, True),
        ("succeeded", "output", True),
        ("succeeded", None, False),
        ("failed", None, False),
        ("cancelled", None, False),
    ],
)
async def test_a_file_stays_while_a_job_needs_it(
    api: Api,
    app: FastAPI,
    shelf: Shelf,
    settings: Settings,
    status: str,
    space: str | None,
    kept: bool,
) -> None:
    await upload(api, shelf.adapters[0], "up")
    await api.dataset()
    job = created(await api.post("/v1/merge_jobs", spec(pool=None, experts=["up"])))
    await end(app, job["id"], status, space)
    before = stored(settings)
    await api.http.delete("/v1/experts/up")
    await api.http.delete("/v1/datasets/rows")
    assert stored(settings) == (before if kept else [])
    # Young files stay whatever they are; old ones go once the job has ended.
    await end(app, job["id"], "succeeded", "lora")
    await leftovers.sweep(app.state.context, time.time())
    assert stored(settings) == (before if kept else [])
    await leftovers.sweep(app.state.context, time.time() + 2 * DAY)
    assert stored(settings) == []


async def test_a_sweep_keeps_what_is_used_and_what_it_does_not_know(
    api: Api, app: FastAPI, shelf: Shelf, settings: Settings
) -> None:
    expert = await upload(api, shelf.adapters[0], "up")
    folder = settings.data_dir / "experts"
    for name in (".incoming-old", ".trash-old", "f" * 64, "notes"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("x")
    (settings.data_dir / "datasets").mkdir()
    (settings.data_dir / "datasets" / f"{'e' * 64}.jsonl").write_text("x")
    (settings.data_dir / "datasets" / ".trash-file").write_text("x")
    await leftovers.sweep(app.state.context, time.time() + 2 * DAY)
    assert stored(settings) == sorted([expert["content_hash"], "notes"])


async def test_a_start_sweeps_what_a_crash_left(
    settings: Settings, shelf: Shelf, tmp_path: Path
) -> None:
    left = settings.data_dir / "datasets" / f"{'e' * 64}.jsonl"
    left.parent.mkdir(parents=True)
    left.write_text("x")
    os.utime(left, (0, 0))
    app = create_app(settings)

    async def swept() -> bool:
        return not left.exists()

    async with app.router.lifespan_context(app):
        await until(swept)


async def test_the_same_content_again_makes_a_file_young(
    api: Api, app: FastAPI, shelf: Shelf, settings: Settings
) -> None:
    expert = await upload(api, shelf.adapters[0], "one")
    path = settings.data_dir / "experts" / expert["content_hash"]
    os.utime(path, (0, 0))
    await upload(api, shelf.adapters[0], "other")
    assert time.time() - path.stat().st_mtime < DAY / 2


async def test_no_row_is_written_without_its_file(
    api: Api, app: FastAPI, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """The content of an upload is deleted between its being stored and its row."""
    hold = references.hold

    async def late(session: object, *, alone: bool = False) -> None:
        for path in (settings.data_dir / "experts").iterdir():
            path.rename(path.with_name(".trash-test"))
        for path in (settings.data_dir / "datasets").iterdir():
            path.rename(path.with_name(".trash-test"))
        await hold(session, alone=alone)  # type: ignore[arg-type]

    (settings.data_dir / "experts").mkdir(parents=True)
    (settings.data_dir / "datasets").mkdir()
    monkeypatch.setattr(references, "hold", late)
    folder = shelf.adapters[0]
    files = {"config": (folder / CONFIG).read_bytes(), "weights": (folder / WEIGHTS).read_bytes()}
    error(await api.http.post("/v1/experts", files=files, data={"name": "up"}), 409, "deleted")
    rows = {"file": ("rows.jsonl", shelf.dataset.read_bytes())}
    error(await api.http.post("/v1/datasets", files=rows), 409, "deleted")
    assert (await api.get("/v1/experts")).json()["data"] == []
    assert (await api.get("/v1/datasets")).json()["data"] == []


async def test_uploads_and_deletions_at_once_never_lose_a_file(
    api: Api, app: FastAPI, shelf: Shelf, settings: Settings
) -> None:
    """Whatever their order, at the end there is a file exactly where there is a row."""
    folder = shelf.adapters[0]
    files = {"config": (folder / CONFIG).read_bytes(), "weights": (folder / WEIGHTS).read_bytes()}

    async def round_of(number: int) -> None:
        name = f"up{number}"
        made = await api.http.post("/v1/experts", files=files, data={"name": name})
        assert made.status_code in (201, 409), made.text
        if made.status_code == 201:
            path = settings.data_dir / "experts" / made.json()["content_hash"]
            assert path.is_dir()
            if number % 3:
                assert (await api.http.delete(f"/v1/experts/{name}")).status_code == 200

    for _ in range(3):
        await asyncio.gather(*(round_of(number) for number in range(6)))
        rows = (await api.get("/v1/experts")).json()["data"]
        assert bool(rows) == bool(stored(settings))
        for row in rows:
            await api.http.delete(f"/v1/experts/{row['id']}")
        assert stored(settings) == []


async def test_a_database_that_is_away_leaves_files_for_later(
    api: Api,
    app: FastAPI,
    shelf: Shelf,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expert = await upload(api, shelf.adapters[0], "up")

    async def away(session: object, hashes: object) -> set[str]:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    monkeypatch.setattr(references, "used", away)
    with caplog.at_level(logging.WARNING):
        assert (await api.http.delete("/v1/experts/up")).status_code == 200
    assert "stays for now" in caplog.text
    assert stored(settings) == [expert["content_hash"]]
    monkeypatch.undo()
    await leftovers.sweep(app.state.context, time.time() + 2 * DAY)
    assert stored(settings) == []
