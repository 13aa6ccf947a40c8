"""Jobs that a worker has run over a landscape, seen through the API."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import zipfile
from typing import Any

import pytest
from fastapi import FastAPI
from tests.app.api.client import Api, Json, created, error, spec
from tests.support import jobs
from tests.support.landscape import LandscapeBench, LandscapeEvaluator

from evomerge.app.db.engine import Database, SyncDatabase
from evomerge.app.settings import Settings
from evomerge.app.worker.loop import Rhythm, Worker

RHYTHM = Rhythm(lease=1000.0, beat=0.05, poll=0.01, max_attempts=5, patience=60.0)


async def run(app: FastAPI, settings: Settings, job: Json) -> None:
    """Let a worker run the job to its end."""
    database: Database = app.state.context.database
    beats = SyncDatabase(settings.url)
    stopping = asyncio.Event()
    bench = LandscapeBench(LandscapeEvaluator())
    worker = Worker(
        database, beats, jobs.runner(bench, settings.data_dir, stopping), RHYTHM, stopping, "one"
    )
    task = asyncio.create_task(worker.work())
    try:
        job_id, ended = job["id"], ("succeeded", "failed")
        while (await jobs.get_job(database, job_id)).status not in ended:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    finally:
        stopping.set()
        await task
        beats.dispose()


@pytest.fixture
async def done(api: Api, app: FastAPI, settings: Settings) -> Json:
    """A job that has succeeded."""
    job = await api.job()
    await run(app, settings, job)
    now: Json = (await api.get(f"/v1/merge_jobs/{job['id']}")).json()
    assert now["status"] == "succeeded", now
    return now


async def pages(api: Api, path: str, limit: int, **params: Any) -> list[Json]:
    """All of a list, page after page."""
    found: list[Json] = []
    while True:
        page = (await api.get(path, limit=limit, **params)).json()
        found += page["data"]
        assert len(page["data"]) <= limit
        if not page["has_more"]:
            return found
        params["after"] = page["data"][-1]["id"]


async def test_a_finished_job(api: Api, done: Json) -> None:
    path = f"/v1/merge_jobs/{done['id']}"
    assert done["progress"]["evaluations"] > 0
    assert done["finished_at"] >= done["started_at"] >= done["created_at"]

    result = (await api.get(f"{path}/result")).json()
    assert (result["object"], result["merge_job_id"]) == ("merge_job.result", done["id"])
    assert set(result["winner"]["beta"]) == {"a", "b", "c"}
    names = [contender["name"] for contender in result["held_out"][0]["contenders"]]
    assert names == ["winner", "base", "best_expert", "uniform"]


async def test_evaluations_by_page_and_stage(api: Api, done: Json) -> None:
    path = f"/v1/merge_jobs/{done['id']}/evaluations"
    everything = await pages(api, path, limit=100)
    assert await pages(api, path, limit=3) == everything
    assert len({one["id"] for one in everything}) == len(everything)
    held_out = [one for one in everything if one["stage"] == "held_out"]
    assert everything[-len(held_out) :] == held_out
    assert await pages(api, path, limit=2, stage="held_out") == held_out
    assert await pages(api, path, limit=2, stage="nothing") == []
    for one in everything:
        assert len(one["beta"]) == len(one["alpha"]) == 1
        assert len(one["beta"][0]) == 3
    for after in ("x", "1-2", "1-2-x", "1-2-99999999999"):
        response = await api.get(path, after=after)
        assert after in error(response, 422, "invalid_value", "after")


async def test_events_by_page_and_as_a_stream(api: Api, done: Json) -> None:
    path = f"/v1/merge_jobs/{done['id']}/events"
    everything = await pages(api, path, limit=100)
    assert await pages(api, path, limit=2) == everything
    assert {one["type"] for one in everything} == {"message", "metrics"}
    assert everything[-1]["data"]["status"] == "succeeded"

    response = await api.get(path, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert _events(response.text) == everything
    third = everything[2]["id"]
    response = await api.http.get(f"{path}?stream=true", headers={"Last-Event-ID": third})
    assert _events(response.text) == everything[3:]
    response = await api.http.get(f"{path}?stream=true", headers={"Last-Event-ID": "x"})
    error(response, 422, "invalid_value", "last-event-id")


async def test_artifacts(api: Api, done: Json, settings: Settings) -> None:
    path = f"/v1/merge_jobs/{done['id']}/artifacts"
    listed = (await api.get(path)).json()["data"]
    names = [artifact["name"] for artifact in listed]
    assert "manifest.json" in names
    folder = settings.data_dir / "artifacts" / done["id"]
    for artifact in listed:
        response = await api.get(f"{path}/{artifact['name']}")
        assert response.content == (folder / artifact["name"]).read_bytes()
        assert len(response.content) == artifact["bytes"]
    part = await api.http.get(f"{path}/manifest.json", headers={"Range": "bytes=0-4"})
    assert (part.status_code, len(part.content)) == (206, 5)
    response = await api.get(f"{path}.zip")
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == names
        for name in names:
            assert archive.read(name) == (folder / name).read_bytes()


async def test_artifacts_that_are_none(api: Api, done: Json, settings: Settings) -> None:
    path = f"/v1/merge_jobs/{done['id']}/artifacts"
    (settings.data_dir / "artifacts" / "secret").write_text("x")
    for name in ("nothing", "..%2Fsecret", "%2Fetc%2Fpasswd"):
        error(await api.http.get(f"{path}/{name}"), 404, "not_found")
    (settings.data_dir / "artifacts" / done["id"] / "manifest.json").unlink()
    for gone in (f"{path}/manifest.json", f"{path}.zip"):
        assert "manifest.json" in error(await api.get(gone), 404, "not_found")


async def test_no_result_yet(api: Api) -> None:
    job = await api.job()
    for path in ("result", "artifacts", "artifacts.zip", "artifacts/manifest.json"):
        response = await api.get(f"/v1/merge_jobs/{job['id']}/{path}")
        assert "queued" in error(response, 409, "no_result")


async def test_an_estimate_creates_nothing(api: Api) -> None:
    await api.inputs()
    body = spec(budget={"evaluations": 9})
    estimate = (await api.post("/v1/merge_jobs/estimate", body)).json()
    assert estimate["evaluations"] == 9
    assert (estimate["experts"], estimate["search_examples"]) == (3, 3)
    assert estimate["tokens_by"] == "tokenizer"
    # "question n" + " answer n" + end-of-text, a token a byte: 20; three rows on either side.
    assert estimate["tokens"] == 9 * 3 * 20 + 4 * 3 * 20
    assert estimate["seconds"] is None
    assert "'tiny'" in estimate["seconds_reason"]
    assert (await api.get("/v1/merge_jobs")).json()["data"] == []


async def test_an_estimate_without_a_tokenizer(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.inputs()
    monkeypatch.setitem(sys.modules, "transformers", None)
    estimate = (await api.post("/v1/merge_jobs/estimate", spec())).json()
    assert estimate["tokens_by"] == "bytes"
    # "question n" + "answer n", 18 bytes: four tokens and the end-of-text.
    planned = estimate["evaluations"]
    assert estimate["tokens"] == planned * 3 * 5 + 4 * 3 * 5


async def test_an_estimate_counts_the_baselines_beside_the_budget(api: Api) -> None:
    await api.inputs()
    for competes, evaluations in ((True, 5), (False, 5 + 3)):
        method = {"name": "evo-merging", "preset": "paper", "probe_competes": competes}
        body = spec(method=method, budget={"evaluations": 5})
        estimate = (await api.post("/v1/merge_jobs/estimate", body)).json()
        assert estimate["evaluations"] == evaluations


async def test_an_estimate_by_what_has_run(api: Api, done: Json) -> None:
    estimate = (await api.post("/v1/merge_jobs/estimate", spec())).json()
    assert estimate["seconds"] > 0
    assert estimate["seconds_reason"] is None
    bounded = spec(budget={"seconds": 1e-9})
    assert (await api.post("/v1/merge_jobs/estimate", bounded)).json()["seconds"] == 1e-9


async def test_an_estimate_names_a_row_above_the_context(api: Api) -> None:
    await api.inputs()
    rows = [{"prompt": f"{n}" * (400 if n == 3 else 1), "completion": "x"} for n in range(6)]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    created(await api.http.post("/v1/datasets", files={"file": ("long.jsonl", content)}))
    body = spec(objective={"datasets": [{"dataset": "long"}]})
    response = await api.post("/v1/merge_jobs/estimate", body)
    assert "row 4" in error(response, 422, "row_refused", "objective.datasets")


async def test_an_estimate_notices_rows_that_changed(api: Api, settings: Settings) -> None:
    await api.inputs()
    for path in (settings.data_dir / "datasets").iterdir():
        path.write_text("")
    response = await api.post("/v1/merge_jobs/estimate", spec())
    error(response, 409, "input_changed", "objective.datasets")


def _events(text: str) -> list[Json]:
    blocks = [block.split("\n") for block in text.split("\n\n") if not block.startswith(":")]
    found = []
    for block in filter(any, blocks):
        fields = dict(line.split(": ", 1) for line in block)
        event = json.loads(fields["data"])
        assert (fields["id"], fields["event"]) == (event["id"], event["type"])
        found.append(event)
    return found
