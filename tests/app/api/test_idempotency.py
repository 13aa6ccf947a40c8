from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import func, select
from tests.app.api.client import Api, Json, created, error, spec
from tests.app.api.conftest import Shelf, connected

from evomerge.app.db.models import Job
from evomerge.app.main import create_app
from evomerge.app.settings import Settings

HEADER = "Idempotency-Key"


async def test_the_same_key_and_body_is_the_same_job(api: Api) -> None:
    await api.inputs()
    first = await api.post("/v1/merge_jobs", spec(), idempotency_key="k1")
    await api.post(f"/v1/merge_jobs/{first.json()['id']}/cancel")
    # Another order of the fields is no other body.
    body = dict(reversed(spec().items()))
    again = await api.post("/v1/merge_jobs", body, idempotency_key="k1")
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    other = await api.post("/v1/merge_jobs", spec(), idempotency_key="k2")
    assert created(other)["id"] != first.json()["id"]
    assert len((await api.get("/v1/merge_jobs")).json()["data"]) == 2


async def test_the_same_key_with_another_body(api: Api) -> None:
    await api.inputs()
    created(await api.post("/v1/merge_jobs", spec(), idempotency_key="k"))
    response = await api.post("/v1/merge_jobs", spec(seed=8), idempotency_key="k")
    assert "'k'" in error(response, 409, "idempotency_key_reused", HEADER)


async def test_a_refused_request_does_not_use_its_key_up(api: Api) -> None:
    error(await api.post("/v1/merge_jobs", spec(), idempotency_key="k"), 422, "not_found", "pool")
    await api.inputs()
    created(await api.post("/v1/merge_jobs", spec(), idempotency_key="k"))


async def test_many_at_once_make_one(api: Api, app: FastAPI) -> None:
    await api.inputs()
    answers = await asyncio.gather(
        *(api.post("/v1/merge_jobs", spec(), idempotency_key="k") for _ in range(8))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert all(answer.json() == answers[0].json() for answer in answers)
    async with app.state.context.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(Job)) == 1


async def test_many_at_once_without_a_key_make_one_of_a_name(api: Api) -> None:
    body = {"name": "pool", "folders": str(api.folders)}
    answers = await asyncio.gather(*(api.post("/v1/pools", body) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert all(answer.json() == answers[0].json() for answer in answers)


async def test_every_post_that_creates(api: Api, shelf: Shelf, root: Path) -> None:
    folder = shutil.copytree(shelf.adapters[0], root / "mine")
    rows = Path(shutil.copy(shelf.dataset, root / "mine.jsonl"))
    for path, body, other in (
        ("/v1/experts", {"path": str(folder)}, {"path": str(shelf.adapters[0])}),
        ("/v1/datasets", {"path": str(rows)}, {"path": str(shelf.dataset)}),
        ("/v1/pools", {"name": "p", "folders": str(folder)}, {"name": "p", "experts": ["mine"]}),
    ):
        first = await api.post(path, body, idempotency_key="k")
        created(first)
        assert (await api.post(path, body, idempotency_key="k")).json() == first.json()
        error(
            await api.post(path, other, idempotency_key="k"), 409, "idempotency_key_reused", HEADER
        )
    # What was answered stays so, whatever has become of the files since.
    shutil.rmtree(folder)
    body = {"path": str(folder)}
    assert (await api.post("/v1/experts", body, idempotency_key="k")).status_code == 201


async def test_uploads(api: Api) -> None:
    rows = [{"prompt": f"p{n}", "completion": "c"} for n in range(3)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()

    async def upload(content: bytes) -> tuple[int, Json]:
        response = await api.http.post(
            "/v1/datasets", files={"file": ("x.jsonl", content)}, headers={HEADER: "k"}
        )
        return response.status_code, response.json()

    first = await upload(content)
    assert first[0] == 201
    assert await upload(content) == first
    assert (await upload(content[: len(content) // 3]))[0] == 409


async def test_keys_of_other_callers_are_other_keys(settings: Settings, shelf: Shelf) -> None:
    keys = [SecretStr("one"), SecretStr("two")]
    app = create_app(settings.model_copy(update={"api_keys": keys}))
    async with app.router.lifespan_context(app):
        ids = set()
        for key in ("one", "two", "one"):
            async with connected(app, shelf, Authorization=f"Bearer {key}") as api:
                if not ids:
                    await api.inputs()
                ids.add(
                    created(await api.post("/v1/merge_jobs", spec(), idempotency_key="k"))["id"]
                )
    assert len(ids) == 2
