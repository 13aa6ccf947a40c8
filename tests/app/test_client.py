"""The client against the API itself: what it calls is what the API offers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.app.cli.server import RESULT, Server, job, page

from evomerge import migrations
from evomerge.app.client import EvoMergeClient
from evomerge.app.main import create_app
from evomerge.app.settings import Settings
from evomerge.connectors.http import StatusError, UnreachableError

SPEC = {"experts": ["none"], "objective": {"datasets": [{"dataset": "film"}]}}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[EvoMergeClient]:
    """A client of the whole service, without a network between."""
    settings = Settings(data_dir=tmp_path / "data", roots=[tmp_path])
    migrations.upgrade(settings.url)
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        EvoMergeClient("http://service", transport=transport) as client,
    ):
        yield client


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "film.jsonl"
    lines = [{"prompt": f"film {number}", "completion": str(number)} for number in range(4)]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


async def test_the_service_is_ready(client: EvoMergeClient) -> None:
    assert await client.ready()


async def test_a_dataset_is_uploaded_listed_and_forgotten(
    client: EvoMergeClient, rows: Path
) -> None:
    made = await client.upload_dataset(rows, name="film")
    assert (made["name"], made["rows"]) == ("film", 4)
    assert [found["id"] async for found in client.list("datasets")] == [made["id"]]
    assert (await client.get("datasets", "film"))["id"] == made["id"]
    await client.delete("datasets", "film")
    assert [found async for found in client.list("datasets")] == []


async def test_a_dataset_is_registered_where_it_lies(client: EvoMergeClient, rows: Path) -> None:
    assert (await client.register_dataset(rows))["name"] == "film"


async def test_lists_go_on_over_pages(client: EvoMergeClient, rows: Path) -> None:
    names = [f"film-{number}" for number in range(5)]
    for name in names:
        await client.register_dataset(rows, name=name)
    found = [dataset["name"] async for dataset in client.list("datasets", page=2)]
    assert found == names[::-1]


@pytest.mark.parametrize("call", ["submit", "estimate"])
async def test_a_job_of_unknown_parts_is_refused_by_name(client: EvoMergeClient, call: str) -> None:
    with pytest.raises(StatusError, match="none") as caught:
        await getattr(client, call)(SPEC)
    assert caught.value.status in (404, 422)


@pytest.mark.parametrize("call", [lambda c: c.command("mj_x", "pause"), lambda c: c.result("mj_x")])
async def test_an_unknown_job_is_refused_by_id(client: EvoMergeClient, call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StatusError, match="mj_x") as caught:
        await call(client)
    assert caught.value.status == 404


async def test_artifacts_and_events_of_an_unknown_job_are_refused(client: EvoMergeClient) -> None:
    with pytest.raises(StatusError, match="mj_x"):
        await client.artifacts("mj_x")
    with pytest.raises(StatusError, match="mj_x"):
        [event async for event in client.events("mj_x")]
    with pytest.raises(StatusError, match="mj_x"):
        [event async for event in client.event_stream("mj_x")]


def watching(server: Server, transport: httpx.AsyncBaseTransport) -> EvoMergeClient:
    async def at_once(seconds: float) -> None: ...

    return EvoMergeClient("http://service", transport=transport, sleep=at_once)


async def test_a_job_is_watched_through_a_restart_of_the_server() -> None:
    path = "GET /v1/merge_jobs/mj_1"
    server = Server({path: [httpx.Response(200, json=job("running"))]})
    states = iter([job("running"), None, None, job("running"), job("succeeded")])

    def answer(request: httpx.Request) -> httpx.Response:
        state = next(states)
        if state is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json=state)

    async with watching(server, httpx.MockTransport(answer)) as client:
        seen = [now["status"] async for now in client.watch("mj_1")]
    # The same state again is not shown again.
    assert seen == ["running", "succeeded"]


async def test_watching_gives_up_when_the_server_stays_away() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async with watching(Server({}), httpx.MockTransport(refuse)) as client:
        with pytest.raises(UnreachableError):
            [now async for now in client.watch("mj_1", patience=2)]


async def test_watching_ends_at_a_paused_job() -> None:
    server = Server({"GET /v1/merge_jobs/mj_1": httpx.Response(200, json=job("paused"))})
    async with watching(server, server.transport()) as client:
        assert [now["status"] async for now in client.watch("mj_1")] == ["paused"]


async def test_a_stream_that_breaks_off_goes_on_behind_the_last_event() -> None:
    def stream(*ids: int) -> httpx.Response:
        text = "".join(f'id: {number}\ndata: {{"id": "{number}"}}\n\n' for number in ids)
        headers = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=headers, text=text)

    server = Server(
        {
            "GET /v1/merge_jobs/mj_1/events": [stream(1, 2), stream(3)],
            "GET /v1/merge_jobs/mj_1": [
                httpx.Response(200, json=job("running")),
                httpx.Response(200, json=job("succeeded")),
            ],
        }
    )
    async with watching(server, server.transport()) as client:
        seen = [event["id"] async for event in client.event_stream("mj_1")]
    assert seen == ["1", "2", "3"]
    asked = [request for request in server.seen if request.url.path.endswith("events")]
    assert [request.headers.get("last-event-id") for request in asked] == [None, "2"]


async def test_a_result_comes_as_it_is() -> None:
    server = Server({"GET /v1/merge_jobs/mj_1/result": httpx.Response(200, json=RESULT)})
    async with watching(server, server.transport()) as client:
        assert await client.result("mj_1") == RESULT


async def test_names_cannot_leave_their_collection() -> None:
    server = Server({"GET /v1/experts": page()})
    async with watching(server, server.transport()) as client:
        with pytest.raises(StatusError):
            await client.get("experts", "../merge_jobs/mj_1")
    assert server.seen[0].url.raw_path == b"/v1/experts/..%2Fmerge_jobs%2Fmj_1"
