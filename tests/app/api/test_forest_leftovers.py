"""Files of seeds and ELMs that the service stored go with the last that needs them."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from sqlalchemy import insert, update
from tests.app.api.client import Api, Json, created
from tests.app.api.conftest import Shelf
from tests.support.elm_folders import make_elm

from evomerge.app.db.engine import epoch
from evomerge.app.db.models import Forest, Job
from evomerge.app.db.repositories import forests
from evomerge.app.db.repositories.forests import NewElm
from evomerge.app.services import leftovers
from evomerge.app.settings import Settings
from evomerge.connectors.local.forest.cache import LogProbCache
from evomerge.connectors.local.headers import content_hash

DAY = 24 * 3600.0


def keep(settings: Settings, folder: Path) -> tuple[str, Path]:
    """Move a checkpoint to where jobs leave those that they made; its hash and its place."""
    digest = content_hash(folder)
    home = settings.data_dir / "elms"
    home.mkdir(parents=True, exist_ok=True)
    return digest, Path(shutil.move(folder, home / digest)).absolute()


def stored(settings: Settings) -> set[str]:
    folder = settings.data_dir / "elms"
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


async def join(app: FastAPI, forest_id: str, name: str, digest: str, path: Path) -> None:
    """Put a stored ELM into a forest, as a job does that trained it."""
    async with app.state.context.database.write() as session:
        row = await forests.lock(session, forest_id)
        assert row is not None
        lineage = {"seed_hash": row.seed_hash, "parents": [], "domain": name, "tokens": 1}
        lineage |= {"own_tokens": 1, "corpus_hash": None, "optimizer": "reset"}
        new = NewElm(name, name, str(path), digest, lineage, 1, 1, "fj_1")
        await forests.add_elm(session, row, new)


async def add_job(app: FastAPI, kind: str, status: str, **fields: Any) -> None:
    async with app.state.context.database.write() as session:
        values = {"inputs": {}, "spec": {}, "meta": {}, "progress": {}, **fields}
        await session.execute(
            insert(Job).values(id="fj_1", kind=kind, status=status, created_at=epoch(), **values)
        )


@pytest.fixture
def seed(shelf: Shelf, root: Path) -> Path:
    return shutil.copytree(shelf.base, root / "seed")


@pytest.fixture
async def kept(
    api: Api, app: FastAPI, settings: Settings, seed: Path, root: Path
) -> dict[str, str]:
    """A forest of two ELMs whose files, and the seed's, are the service's; the hashes by name."""
    made = created(await api.post("/v1/forests", {"name": "wood", "seed": {"path": str(seed)}}))
    hashes = {}
    for number, name in enumerate(("ada", "bob"), 1):
        digest, path = keep(settings, make_elm(root / name, seed, number))
        await join(app, made["id"], name, digest, path)
        hashes[name] = digest
    hashes["seed"], path = keep(settings, seed)
    async with app.state.context.database.write() as session:
        await session.execute(update(Forest).values(seed_path=str(path)))
    assert stored(settings) == set(hashes.values())
    return hashes


async def forest(api: Api, name: str = "wood") -> Json:
    found: Json = (await api.get(f"/v1/forests/{name}")).json()
    return found


async def test_they_go_with_an_elm_and_with_its_forest(
    api: Api, settings: Settings, kept: dict[str, str]
) -> None:
    elm = (await api.get("/v1/forests/wood/elms/bob")).json()
    assert elm["job_id"] == "fj_1"
    assert (await api.http.delete("/v1/forests/wood/elms/bob")).status_code == 200
    assert stored(settings) == {kept["ada"], kept["seed"]}
    assert (await api.http.delete("/v1/forests/wood")).status_code == 200
    assert stored(settings) == set()


async def test_another_forest_keeps_its_own(
    api: Api, app: FastAPI, settings: Settings, kept: dict[str, str], root: Path
) -> None:
    seed = settings.data_dir / "elms" / kept["seed"]
    shutil.copytree(seed, root / "again")
    body = {"name": "other", "seed": {"path": str(root / "again")}}
    other = created(await api.post("/v1/forests", body))
    await join(app, other["id"], "ada", kept["ada"], settings.data_dir / "elms" / kept["ada"])
    assert (await api.http.delete("/v1/forests/wood")).status_code == 200
    # The seed of the other has the same content, if at another place.
    assert stored(settings) == {kept["ada"], kept["seed"]}
    assert (await api.http.delete("/v1/forests/other")).status_code == 200
    assert kept["ada"] not in stored(settings)


async def test_a_job_keeps_what_it_reads_until_it_ends(
    api: Api, app: FastAPI, settings: Settings, kept: dict[str, str]
) -> None:
    elms = [{"name": name, "content_hash": kept[name]} for name in ("ada", "bob")]
    await add_job(app, "branch_train", "paused", inputs={"forest": {"elms": elms}})
    assert (await api.http.delete("/v1/forests/wood/elms/bob")).status_code == 200
    assert kept["bob"] in stored(settings)
    async with app.state.context.database.write() as session:
        await session.execute(update(Job).values(status="cancelled"))
    await leftovers.sweep(app.state.context, time.time() + 2 * DAY)
    assert kept["bob"] not in stored(settings)


@pytest.mark.parametrize(
    ("kind", "stays"), [("train_seed", True), ("average", True), ("branch_train", False)]
)
async def test_what_a_job_made_for_itself_stays(
    api: Api, app: FastAPI, settings: Settings, kept: dict[str, str], kind: str, stays: bool
) -> None:
    # Parents of what it made are not kept by it.
    lineage = {"parents": [{"content_hash": kept["ada"], "weight": 1.0}]}
    result = {"checkpoint": {"content_hash": kept["seed"], "lineage": lineage}}
    await add_job(app, kind, "succeeded", result=result)
    assert (await api.http.delete("/v1/forests/wood")).status_code == 200
    assert stored(settings) == ({kept["seed"]} if stays else set())


async def test_what_a_crash_left_is_swept_when_it_is_old(
    app: FastAPI, settings: Settings, kept: dict[str, str], shelf: Shelf, root: Path
) -> None:
    digest, path = keep(settings, make_elm(root / "cyd", shelf.base, 3))
    half = settings.data_dir / "elms" / ".incoming-x"
    half.mkdir()
    await leftovers.sweep(app.state.context, time.time())
    assert {digest, half.name} < stored(settings)
    for one in (path, half):
        os.utime(one, (time.time() - 2 * DAY,) * 2)
    await leftovers.sweep(app.state.context, time.time())
    assert stored(settings) == set(kept.values())


async def test_what_an_elm_gave_to_tokens_goes_with_its_last_user(
    api: Api, app: FastAPI, settings: Settings, kept: dict[str, str]
) -> None:
    known = settings.data_dir / "log_probs"
    cache, strange = LogProbCache(known), "0" * 64
    owners = [f"{digest}-float32" for digest in (kept["ada"], kept["bob"], strange)]
    for owner in owners:
        cache.put(owner, {"row": np.zeros(3)})
    (known / f"{owners[2]}.sqlite-journal").touch()
    assert (await api.http.delete("/v1/forests/wood/elms/ada")).status_code == 200
    assert not cache.get(owners[0], ["row"])
    await leftovers.sweep(app.state.context, time.time())
    assert cache.get(owners[2], ["row"])  # Young enough to be of an ELM that is about to join.
    for one in known.iterdir():
        os.utime(one, (time.time() - 2 * DAY,) * 2)
    await leftovers.sweep(app.state.context, time.time())
    assert [one.name for one in known.iterdir()] == [f"{owners[1]}.sqlite"]
