"""The envelope, whatever goes wrong."""

from __future__ import annotations

import logging
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url
from tests.app.api.client import Api, error, spec
from tests.app.api.conftest import Shelf, connected
from tests.support.databases import postgres_database

from evomerge import migrations
from evomerge.app.main import create_app
from evomerge.app.services import merge_jobs
from evomerge.app.settings import Settings

CREATING = ["/v1/merge_jobs", "/v1/experts", "/v1/datasets", "/v1/pools"]


async def test_unknown_routes_and_methods(api: Api) -> None:
    assert "/nope" in error(await api.get("/nope"), 404, "unknown_route")
    assert "/v1/nope" in error(await api.get("/v1/nope"), 404, "unknown_route")
    message = error(await api.http.put("/v1/experts"), 405, "method_not_allowed")
    assert "PUT" in message


async def test_bodies_that_are_no_json(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    for path in CREATING:
        for body in (b"{", b"\xff", b"[" * 5000):
            response = await api.http.post(path, content=body, headers=headers)
            error(response, 400, "invalid_json")


async def test_bodies_of_another_shape(api: Api) -> None:
    for path in CREATING:
        for body in ([], "text", 7):
            error(await api.post(path, body), 422, "invalid_value")


async def test_another_media_type(api: Api) -> None:
    for path in ("/v1/experts", "/v1/datasets"):
        response = await api.http.post(path, content=b"x", headers={"Content-Type": "text/csv"})
        assert "text/csv" in error(response, 415, "unsupported_media_type")


async def test_several_faults_are_all_told(api: Api) -> None:
    body = spec(seed=-1, layer_groups=0, sede=3)
    response = await api.post("/v1/merge_jobs", body)
    details = response.json()["error"]["details"]
    assert {detail["param"] for detail in details} == {"seed", "layer_groups", "sede"}
    message = error(response, 422, "invalid_value", details[0]["param"])
    assert all(detail["message"] in message for detail in details)


async def test_long_values_are_cut(api: Api) -> None:
    response = await api.post("/v1/merge_jobs", spec(name="x" * 10_000))
    assert len(error(response, 422, "invalid_value", "name")) < 300


async def test_an_unexpected_error_tells_nothing_but_where_to_look(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the inside of things")

    monkeypatch.setattr(merge_jobs, "creation", broken)
    caplog.set_level(logging.ERROR)
    message = error(await api.post("/v1/merge_jobs", spec()), 500, "internal_error")
    assert "inside" not in message
    number = message.split()[-1]
    record = next(record for record in caplog.records if number in record.getMessage())
    assert record.exc_info is not None


async def test_the_database_goes_away_and_comes_back(
    settings: Settings, shelf: Shelf, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    url = f"sqlite+aiosqlite:///{missing / 'evomerge.db'}"
    app = create_app(settings.model_copy(update={"database_url": url}))
    async with app.router.lifespan_context(app), connected(app, shelf) as api:
        for path in ("/readyz", "/v1/experts", "/v1/merge_jobs/mj_x"):
            response = await api.get(path)
            error(response, 503, "database_unavailable")
            assert int(response.headers["retry-after"]) > 0
        assert (await api.get("/healthz")).status_code == 200
        missing.mkdir()
        assert "evomerge migrate" in error(await api.get("/readyz"), 503, "not_migrated")
        migrations.upgrade(url)
        assert (await api.get("/readyz")).json()["status"] == "ready"
        assert (await api.get("/v1/experts")).status_code == 200


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> object:
    with postgres_database(request.getfixturevalue("postgres_template")) as url:
        yield url


async def test_a_postgres_that_stops_answering_and_comes_back(
    settings: Settings, shelf: Shelf, postgres_url: str
) -> None:
    url = make_url(postgres_url)
    admin = url.set(drivername="postgresql", database="postgres")
    app = create_app(settings.model_copy(update={"database_url": postgres_url}))

    def allow(connections: bool) -> None:
        with psycopg.connect(
            admin.render_as_string(hide_password=False), autocommit=True
        ) as connection:
            connection.execute(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS {connections}")
            if not connections:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    [url.database],
                )

    async with app.router.lifespan_context(app), connected(app, shelf) as api:
        job = await api.job()
        allow(False)
        error(await api.post("/v1/merge_jobs", spec()), 503, "database_unavailable")
        error(await api.get("/readyz"), 503, "database_unavailable")
        allow(True)
        assert (await api.get("/readyz")).status_code == 200
        assert (await api.get("/v1/merge_jobs")).json()["data"] == [job]
