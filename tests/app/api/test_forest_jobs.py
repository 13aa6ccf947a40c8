"""Jobs over forests through the API, before any worker has them."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update
from tests.app.api.client import Json, error
from tests.support import jobs
from tests.support.corpora import make_corpus
from tests.support.elm_folders import make_elm
from tests.support.forest_jobs import Plantation, plantation, recipe
from tests.support.tiny import make_base

from evomerge.app.db.models import Job
from evomerge.app.schemas.forest_inputs import ForestJobInputs
from evomerge.app.schemas.forest_specs import ForestJobSpec
from evomerge.app.services import leftovers
from evomerge.evaluation.corpus import read_content
from evomerge.merging.checkpoint.files import read_checkpoint


@pytest.fixture
async def farm(database_url: str, tmp_path: Path) -> AsyncIterator[Plantation]:
    """A service with a forest of two ELMs."""
    async with plantation(tmp_path, database_url) as farm:
        seed = make_base(farm.root / "seed", context=32)
        elms = [make_elm(farm.root / name, seed, n) for n, name in enumerate(("ada", "bob"))]
        body = {
            "name": "grove",
            "seed": {"path": str(seed)},
            "elms": [{"path": str(elm), "domain": elm.name} for elm in elms],
        }
        response = await farm.api.post("/v1/forests", body)
        assert response.status_code == 201, response.text
        yield farm


async def test_a_job_is_queued_with_everything_fixed(farm: Plantation) -> None:
    body = farm.branch_spec("north", name="n", metadata={"team": "a"})
    job = (await farm.api.post("/v1/forest_jobs", body)).json()
    assert (job["object"], job["type"], job["status"]) == ("forest_job", "branch_train", "queued")
    assert job["spec"]["recipe"]["schedule"] == "cosine"
    assert [elm["name"] for elm in job["inputs"]["elms"]] == ["ada", "bob"]
    content = read_content(make_corpus(farm.root, "north"))
    assert job["inputs"]["corpora"] == [
        {"domain": "north", "content_hash": content.content_hash, "bytes": content.bytes}
    ]
    assert await farm.job(job["id"]) == job
    row = await jobs.get_job(farm.database, job["id"])
    inputs = ForestJobInputs.model_validate(row.inputs)
    assert inputs.elm == "north"
    assert inputs.forest is not None
    assert inputs.forest.seed_hash == job["inputs"]["seed_hash"]
    assert ForestJobSpec.model_validate(row.spec).model_dump(mode="json") == row.spec
    assert str(farm.settings.data_dir) not in json.dumps(job)


async def test_each_collection_has_its_own_jobs(farm: Plantation) -> None:
    ids = [
        await farm.create(body)
        for body in (farm.seed_spec("a", forest="other"), farm.branch_spec("b"))
    ]
    listed = (await farm.api.get("/v1/forest_jobs")).json()["data"]
    assert [one["id"] for one in listed] == ids[::-1]
    only = (await farm.api.get("/v1/forest_jobs", type="train_seed")).json()["data"]
    assert [one["id"] for one in only] == ids[:1]
    assert (await farm.api.get("/v1/merge_jobs")).json()["data"] == []
    for path in ("", "/events", "/result", "/artifacts"):
        error(await farm.api.get(f"/v1/merge_jobs/{ids[0]}{path}"), 404, "not_found")
    for verb in ("pause", "cancel", "resume"):
        error(await farm.api.post(f"/v1/merge_jobs/{ids[0]}/{verb}"), 404, "not_found")
        error(await farm.api.post(f"/v1/forest_jobs/mj_1/{verb}"), 404, "not_found")
    assert (await farm.job(ids[0]))["status"] == "queued"


async def test_a_key_queues_one_job_once(farm: Plantation) -> None:
    body = farm.branch_spec("north")
    answers = [await farm.api.post("/v1/forest_jobs", body, Idempotency_Key="k") for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    other = {**body, "start": "seed"}
    response = await farm.api.post("/v1/forest_jobs", other, Idempotency_Key="k")
    error(response, 409, "idempotency_key_reused", "Idempotency-Key")
    assert len((await farm.api.get("/v1/forest_jobs")).json()["data"]) == 1


async def test_stops_before_a_worker_has_it(farm: Plantation) -> None:
    job_id = await farm.create(farm.branch_spec("north"))
    path = f"/v1/forest_jobs/{job_id}"
    assert (await farm.api.post(f"{path}/pause")).json()["status"] == "paused"
    assert (await farm.api.post(f"{path}/resume")).json()["status"] == "queued"
    assert (await farm.api.post(f"{path}/cancel")).json()["status"] == "cancelled"
    error(await farm.api.post(f"{path}/resume"), 409, "job_state")
    error(await farm.api.get(f"{path}/result"), 409, "no_result")
    assert "cancelled" in (await farm.events(job_id))[-1]["message"]


WRONG: list[tuple[Json, int, str, str | None]] = [
    ({"forest": "none"}, 422, "not_found", "forest"),
    ({"start": "carl"}, 422, "not_found", "start"),
    ({"elm": "ada"}, 409, "name_taken", "elm"),
    ({"elm": "nearest"}, 422, "invalid_value", "elm"),
    ({"optimizer": "continue", "start": "average"}, 422, "invalid_value", None),
    ({"recipe": recipe(tokens=10)}, 422, "invalid_value", "recipe.tokens"),
    ({"recipe": recipe(dev_share=0.6, test_share=0.5)}, 422, "invalid_value", "recipe.dev_share"),
    ({"recipe": recipe(dev_share=0.0)}, 422, "invalid_value", "recipe.dev_share"),
    ({"recipe": recipe(learning_rat=1)}, 422, "invalid_value", "recipe.learning_rat"),
    ({"processes": 0}, 422, "invalid_value", "processes"),
    ({"processes": 5}, 422, "invalid_value", "processes"),
    ({"budget": {"tokens": 3}}, 422, "invalid_value", "budget.tokens"),
    ({"corpus": {"domain": "x", "path": "/etc"}}, 422, "path_outside_roots", "corpus.path"),
    ({"type": "prune"}, 422, "invalid_value", "type"),
]


@pytest.mark.parametrize(("change", "status", "code", "param"), WRONG)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_a_branch_cannot_be(
    farm: Plantation, change: Json, status: int, code: str, param: str | None
) -> None:
    body = farm.branch_spec("north", **change)
    error(await farm.api.post("/v1/forest_jobs", body), status, code, param)
    error(await farm.api.post("/v1/forest_jobs/estimate", body), status, code, param)
    assert (await farm.api.get("/v1/forest_jobs")).json()["data"] == []


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"weights": {"ada": 0.5, "bob": 0.4}}, "invalid_value", "weights"),
        ({"weights": {"ada": 0.5, "carl": 0.5}}, "not_found", "weights.carl"),
        ({"weights": {"ada": 1.5, "bob": -0.5}}, "invalid_value", "weights"),
        ({"weights": "posterior"}, "missing", "corpus"),
        ({"weights": "median"}, "invalid_value", "weights"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_weights_that_are_no_average(
    farm: Plantation, change: Json, code: str, param: str
) -> None:
    body = {"type": "average", "forest": "grove", **change}
    response = await farm.api.post("/v1/forest_jobs", body)
    assert response.status_code == 422, response.text
    refused = response.json()["error"]
    assert refused["code"] == code
    assert refused["param"].startswith(param)
    assert await nothing_came_of_it(farm)


async def nothing_came_of_it(farm: Plantation) -> bool:
    """No job, and no file beside the database."""
    listed = (await farm.api.get("/v1/forest_jobs")).json()["data"]
    files = [path for path in farm.settings.data_dir.rglob("*") if path.is_file()]
    return not listed and all(path.name.startswith("evomerge.db") for path in files)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": "fine"}\n{"text": "\xff"}\n', "line 2"),
        (b'{"body": "x"}\n', "fields seen: 'body'"),
        (b"", "holds no document"),
        (b'{"text": "' + b"x" * (17 * 2**20) + b'"}\n', "longer than"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_documents_that_cannot_be_read(farm: Plantation, content: bytes, said: str) -> None:
    spec = farm.branch_spec("north")
    (farm.root / "north.jsonl").write_bytes(content)
    response = await farm.api.post("/v1/forest_jobs", spec)
    message = error(response, 422, "invalid_corpus", "corpus.path")
    assert said in message
    assert "north.jsonl" in message or "'north'" in message
    assert await nothing_came_of_it(farm)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_line_of_200_megabytes(farm: Plantation) -> None:
    spec = farm.branch_spec("north")
    with (farm.root / "north.jsonl").open("wb") as file:
        file.write(b'{"text": "')
        file.truncate(200 * 2**20)  # All of its zeros are UTF-8.
    message = error(
        await farm.api.post("/v1/forest_jobs", spec), 422, "invalid_corpus", "corpus.path"
    )
    assert "north.jsonl, line 1: the line is longer than" in message
    assert await nothing_came_of_it(farm)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_names_that_are_taken(farm: Plantation) -> None:
    refused = await farm.api.post("/v1/forest_jobs", farm.seed_spec("a"))
    error(refused, 409, "name_taken", "forest")
    await farm.create(farm.branch_spec("north"))
    refused = await farm.api.post("/v1/forest_jobs", farm.branch_spec("north"))
    assert "is training" in error(refused, 409, "in_use", "elm")
    twice = farm.seed_spec("a", forest=None)
    twice["corpora"] *= 2
    assert "'a'" in error(await farm.api.post("/v1/forest_jobs", twice), 422, "invalid_value")
    gone = await farm.api.http.delete("/v1/forests/grove")
    error(gone, 409, "in_use")


async def test_an_empty_forest_is_branched_and_not_averaged(farm: Plantation) -> None:
    body = {"name": "bare", "seed": {"path": str(farm.root / "seed")}}
    await farm.api.post("/v1/forests", body)
    refused = await farm.api.post(
        "/v1/forest_jobs", {"type": "average", "forest": "bare", "weights": "uniform"}
    )
    error(refused, 422, "empty_forest", "forest")
    await farm.create(farm.branch_spec("north", forest="bare"))


async def estimated(farm: Plantation, spec: Json) -> Json:
    response = await farm.api.post("/v1/forest_jobs/estimate", spec)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def test_an_estimate_creates_nothing(farm: Plantation) -> None:
    seed = (
        await farm.api.post("/v1/forest_jobs/estimate", farm.seed_spec("a", forest=None))
    ).json()
    # 280 x 16 embeddings; two layers of 16 x 16 (q, o), 16 x 8 (k, v), 3 x 16 x 24 and two norms.
    layer = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24 + 2 * 16
    parameters = 280 * 16 + 2 * layer + 16
    assert seed["parameters"] == parameters
    assert (seed["steps"], seed["tokens"], seed["disk_bytes"]) == (12, 768, 4 * parameters)
    assert seed["seconds"] is None
    assert str(parameters) in seed["seconds_reason"]
    cut = farm.branch_spec("a", budget={"tokens": 200})
    branch = await estimated(farm, cut)
    assert (branch["steps"], branch["tokens"]) == (3, 192)
    for body in (
        farm.evaluate_spec("a", "b"),
        {"type": "average", "forest": "grove", "weights": "uniform"},
    ):
        found = await estimated(farm, body)
        assert (found["type"], found["steps"]) == (body["type"], 0)
    assert (await farm.api.get("/v1/forest_jobs")).json()["data"] == []


async def test_the_estimate_knows_what_ran_here(farm: Plantation) -> None:
    made = await farm.run(farm.seed_spec("a", forest=None))
    found = (
        await farm.api.post("/v1/forest_jobs/estimate", farm.seed_spec("a", forest="x"))
    ).json()
    assert found["seconds"] > 0
    checkpoint = read_checkpoint(farm.elm_folder(made))
    assert found["parameters"] == sum(entry.size for entry in checkpoint.tensors.values())


async def test_what_jobs_kept_goes_once_nobody_can_resume_them(farm: Plantation) -> None:
    kept, cancelled = [await farm.create(farm.branch_spec(name)) for name in ("a", "b")]
    for job_id in (kept, cancelled, "fj_gone"):
        (farm.settings.data_dir / "scratch" / f"{job_id}.1").mkdir(parents=True)
        await farm.api.post(f"/v1/forest_jobs/{job_id}/pause")
    await farm.api.post(f"/v1/forest_jobs/{cancelled}/cancel")
    await leftovers.sweep(farm.context, time.time())
    assert farm.scratch() == [f"{kept}.1"]
    # Who fails may be resumed, for a while.
    async with farm.database.write() as session:
        await session.execute(update(Job).where(Job.id == kept).values(status="failed"))
    await leftovers.sweep(farm.context, time.time())
    assert farm.scratch() == [f"{kept}.1"]
    await leftovers.sweep(farm.context, time.time() + 2 * leftovers.GRACE_SECONDS)
    assert farm.scratch() == []
