"""Feature 9: an ELM is added without any training of others, and without a byte of them changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.app.api.client import Json, created
from tests.support.elm_folders import contents
from tests.support.forest_service import Wood, wood

from evomerge.app.db.models import ForestElm, Job

OLD = ("ada", "bob")


@pytest.fixture
async def forests(tmp_path: Path, sqlite_template: Path) -> AsyncIterator[Wood]:
    async with wood(tmp_path, sqlite_template) as found:
        yield found


async def rows(forests: Wood) -> list[Json]:
    """The rows of all ELMs, every column."""
    async with forests.database.read() as session:
        found = await session.scalars(select(ForestElm).order_by(ForestElm.position))
        return [
            {name: value for name, value in vars(row).items() if not name.startswith("_")}
            for row in found
        ]


async def test_the_others_stay_as_they_are_byte_by_byte(forests: Wood) -> None:
    await forests.forest("wood", OLD)
    rows_before = await rows(forests)
    files_before = contents(forests.root)
    added = created(
        await forests.api.post("/v1/forests/wood/elms", {"path": str(forests.root / "cyd")})
    )
    assert contents(forests.root) == files_before
    rows_after = await rows(forests)
    assert rows_after[: len(OLD)] == rows_before
    assert [row["id"] for row in rows_after[len(OLD) :]] == [added["id"]]


async def test_nothing_is_trained(forests: Wood) -> None:
    await forests.forest("wood", OLD)
    created(await forests.api.post("/v1/forests/wood/elms", {"path": str(forests.root / "cyd")}))
    async with forests.database.read() as session:
        assert await session.scalar(select(Job.id)) is None
    data = forests.root.parent / "data"
    assert not any(path.suffix == ".safetensors" for path in data.rglob("*"))


async def test_an_elm_that_is_refused_changes_nothing(forests: Wood) -> None:
    await forests.forest("wood", OLD, prior={"ada": 0.5, "bob": 0.5})
    before = (await forests.api.get("/v1/forests/wood")).json()
    (forests.root / "cyd" / "elm.json").write_text("{}")
    body = {"path": str(forests.root / "cyd")}
    assert (await forests.api.post("/v1/forests/wood/elms", body)).status_code == 422
    assert (await forests.api.get("/v1/forests/wood")).json() == before


async def test_the_prior_makes_room_and_the_others_keep_their_ratios(forests: Wood) -> None:
    await forests.forest("wood", OLD, prior={"ada": 0.6, "bob": 0.4})
    created(await forests.api.post("/v1/forests/wood/elms", {"path": str(forests.root / "cyd")}))
    prior = (await forests.api.get("/v1/forests/wood")).json()["ensemble"]["prior"]
    assert prior == pytest.approx({"ada": 0.4, "bob": 0.4 * 2 / 3, "cyd": 1 / 3})
