from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from tests.app.api.client import Api, Json, created, error, spec
from tests.app.api.conftest import Shelf, connected

from evomerge.app.db.engine import Database
from evomerge.app.db.models import Job
from evomerge.app.main import create_app
from evomerge.app.schemas.inputs import DatasetInput, JobInputs
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.services import bases, fitting
from evomerge.app.services.inspection import Inspection
from evomerge.app.settings import Settings
from evomerge.app.worker.inputs import examples_of
from evomerge.connectors.local.headers import content_hash
from evomerge.evaluation import Example, split


async def row(app: FastAPI, job_id: str) -> Job:
    database: Database = app.state.context.database
    async with database.read() as session:
        found = await session.get(Job, job_id)
    assert found is not None
    return found


async def test_a_job_is_queued_with_everything_fixed(api: Api, app: FastAPI, shelf: Shelf) -> None:
    job = await api.job(name="film", metadata={"team": "a"}, seed=0)
    assert job["id"].startswith("mj_")
    assert (job["status"], job["name"], job["attempts"]) == ("queued", "film", 0)
    assert job["metadata"] == {"team": "a"}
    assert job["spec"]["seed"] == 0
    assert job["spec"]["objective"]["held_out"] == 0.5
    assert (await api.get(f"/v1/merge_jobs/{job['id']}")).json() == job

    stored = await row(app, job["id"])
    inputs = JobInputs.model_validate(stored.inputs)
    pool, dataset = api.made["pool"], api.made["dataset"]
    assert inputs.base == "tiny"
    assert inputs.base_hash == job["inputs"]["base_hash"] == content_hash(shelf.base)
    assert inputs.pool_id == pool["id"]
    assert [expert.id for expert in inputs.experts] == [one["id"] for one in pool["experts"]]
    assert all((expert.path / "adapter_config.json").is_file() for expert in inputs.experts)
    assert inputs.datasets[0].content_hash == dataset["content_hash"]
    assert inputs.datasets[0].path.is_file()
    # Written out, the spec means the same again.
    again = MergeJobSpec.model_validate(stored.spec)
    assert again.model_dump(mode="json") == stored.spec == job["spec"]
    assert str(api.rows.parent) not in json.dumps(job)


async def test_a_base_is_hashed_once_until_its_files_change(
    api: Api, settings: Settings, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    shutil.copytree(shelf.base, base)
    hashed: list[Path] = []

    def counted(folder: Path) -> str:
        hashed.append(folder)
        return content_hash(folder)

    monkeypatch.setattr(bases, "content_hash", counted)
    app = create_app(settings.model_copy(update={"bases": {"tiny": base}}))
    async with app.router.lifespan_context(app), connected(app, shelf) as own:
        first = [(await own.job())["inputs"]["base_hash"] for _ in range(2)]
        assert first == [content_hash(shelf.base)] * 2
        assert hashed == [base]
        config = base / "config.json"
        config.write_text(config.read_text() + "\n")
        last = (await own.job())["inputs"]["base_hash"]
        assert last == content_hash(base) != first[0]
        assert hashed == [base, base]
        config.unlink()
        error(await own.post("/v1/merge_jobs", spec()), 503, "base_unavailable", "base")


async def long_row(api: Api) -> None:
    """A dataset whose fourth row does not fit into the context of 256 tokens."""
    await api.inputs()
    rows = [{"prompt": f"{n}" * (400 if n == 3 else 1), "completion": "x"} for n in range(6)]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    created(await api.http.post("/v1/datasets", files={"file": ("long.jsonl", content)}))


def over(name: str, **more: Any) -> Json:
    """A body over another dataset."""
    return spec(objective={"datasets": [{"dataset": name}], **more})


async def test_a_row_above_the_context_is_refused(
    api: Api, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    await long_row(api)
    for more in ({}, {"metric": "chrf"}, {"search_examples": 3, "held_out_examples": 3}):
        response = await api.post("/v1/merge_jobs", over("long", **more))
        message = error(response, 422, "row_refused", "objective.datasets")
        assert "dataset 'long': row 4: " in message
        assert "the context holds 256" in message
    async with app.state.context.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(Job)) == 0
    # Every prompt fits, but not with room for so long an answer.
    body = over("rows", metric="chrf", max_new_tokens=256)
    assert "row" in error(
        await api.post("/v1/merge_jobs", body), 422, "row_refused", "objective.datasets"
    )
    created(await api.post("/v1/merge_jobs", over("long", context_tokens=200)))
    # Without the library for it nobody knows; the worker refuses it.
    monkeypatch.setitem(sys.modules, "transformers", None)
    context = app.state.context
    app.state.context = replace(context, inspection=Inspection(context.bases))
    created(await api.post("/v1/merge_jobs", over("long")))


async def test_a_row_that_the_job_leaves_out_may_be_too_long(api: Api) -> None:
    await long_row(api)
    few = {"search_examples": 1, "held_out_examples": 1}
    rows = [Example(f"{n}" * (400 if n == 3 else 1), "x", row=n + 1) for n in range(6)]
    for seed in range(12):
        parts = split(rows, 0.5, seed, 1, 1)
        used = {example.row for example in (*parts.search, *parts.held_out)}
        for _ in range(2):
            response = await api.post("/v1/merge_jobs", {**over("long", **few), "seed": seed})
            if 4 in used:
                assert "row 4" in error(response, 422, "row_refused", "objective.datasets")
            else:
                created(response)


async def test_rows_are_looked_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(dataset: DatasetInput) -> list[Example]:
        read.append(dataset.name)
        return examples_of(dataset)

    monkeypatch.setattr(fitting, "examples_of", counted)
    for seed in range(3):
        await api.job(seed=seed)
    assert read == ["rows"]
    await api.job(objective={"datasets": [{"dataset": "rows"}], "end_of_text": False})
    assert read == ["rows", "rows"]


async def test_experts_by_id_or_name_instead_of_a_pool(api: Api) -> None:
    await api.inputs()
    first = api.made["pool"]["experts"][0]["id"]
    job = created(await api.post("/v1/merge_jobs", spec(pool=None, experts=["c", first])))
    assert [expert["name"] for expert in job["inputs"]["experts"]] == ["c", "a"]
    assert job["inputs"]["pool_id"] is None


async def test_what_is_deleted_later_changes_no_job(api: Api) -> None:
    job = await api.job()
    await api.http.delete("/v1/pools/pool")
    await api.http.delete("/v1/datasets/rows")
    assert (await api.get(f"/v1/merge_jobs/{job['id']}")).json() == job


STAGE = {"evaluations": 40}
BAD_SPECS: list[tuple[dict[str, Any], str, str | None, str]] = [
    ({"pool": "nobody"}, "not_found", "pool", "'nobody'"),
    (
        {"objective": {"datasets": [{"dataset": "none"}]}},
        "not_found",
        "objective.datasets.0.dataset",
        "'none'",
    ),
    ({"objective": {"datasets": []}}, "invalid_value", "objective.datasets", "at least 1"),
    ({"pool": None}, "invalid_value", None, "either pool or experts"),
    ({"pool": None, "experts": ["a", "zz"]}, "not_found", "experts.1", "'zz'"),
    (
        {"method": {"name": "cma", "population": 1}},
        "invalid_value",
        "method.population",
        "greater than or equal to 2, got 1",
    ),
    ({"budget": {"evaluations": 0}}, "invalid_value", "budget.evaluations", "got 0"),
    ({"budget": {"seconds": 0}}, "invalid_value", "budget.seconds", "got 0"),
    ({"seed": -1}, "invalid_value", "seed", "got -1"),
    (
        {"method": {"name": "evo-merging", "denoising": {"bounds": {"low": 1, "high": 0}}}},
        "invalid_value",
        "method.denoising.bounds",
        "low=1.0 must be below high=0.0",
    ),
    (
        {"method": {"name": "random", "bounds": {"low": 1.5, "high": -1.5}}},
        "invalid_value",
        "method.bounds",
        "low=1.5 must be below high=-1.5",
    ),
    ({"method": {"name": "sgd"}}, "invalid_value", "method.name", "one of 'evo-merging', 'cma'"),
    ({"method": {"preset": "paper"}}, "invalid_value", "method.name", "is missing"),
    (
        {"method": {"name": "cma", "population": 20, "scaling": {"evaluations": 4}}},
        "invalid_value",
        "method.scaling.evaluations",
        "evaluations=4: is less than one population of 20",
    ),
    (
        {"method": {"name": "ties", "top_k": 100}},
        "invalid_value",
        "method.top_k",
        "method.top_k=100: the pool has",
    ),
    (
        {"method": {"name": "emr", "order": ["nobody"]}},
        "invalid_value",
        "method.order",
        "method.order='nobody': is no expert of the pool",
    ),
    (
        {"method": {"name": "ties", "densities": [0.5, 0.5]}},
        "invalid_value",
        "method",
        "densities: 0.5 stands more than once",
    ),
    (
        {"method": {"name": "ties"}, "composition": "factor"},
        "invalid_value",
        None,
        "composition='factor': method 'ties' is one of its own",
    ),
    ({"sede": 7}, "invalid_value", "sede", "not a known field"),
    ({"space": "checkpoint"}, "invalid_value", "space", "works with experts of kind 'elm'"),
    (
        {"space": "output", "layer_groups": 2},
        "invalid_value",
        None,
        "only space: lora and space: checkpoint have layers",
    ),
    ({"metadata": {"k": "a\x00b"}}, "invalid_value", "metadata.k", "NUL"),
    (
        {"objective": {"datasets": [{"dataset": "rows"}, {"dataset": "rows"}]}},
        "invalid_value",
        "objective",
        "'rows' stands more than once",
    ),
    (
        {"objective": {"datasets": [{"dataset": "rows"}], "metric": "choice_accuracy"}},
        "invalid_value",
        "objective.metric",
        "no choices",
    ),
]


async def test_bad_specs(api: Api, app: FastAPI) -> None:
    await api.inputs()
    for change, code, param, word in BAD_SPECS:
        assert word in error(await api.post("/v1/merge_jobs", spec(**change)), 422, code, param)
    async with app.state.context.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(Job)) == 0


async def test_the_same_dataset_by_id_and_by_name_is_twice(api: Api) -> None:
    await api.inputs()
    both = [{"dataset": "rows"}, {"dataset": api.made["dataset"]["id"]}]
    response = await api.post("/v1/merge_jobs", spec(objective={"datasets": both}))
    error(response, 422, "invalid_value", "objective.datasets.1.dataset")


@pytest.mark.parametrize("rows", [1, 3])
async def test_datasets_that_cannot_be_split(api: Api, rows: int) -> None:
    await api.inputs()
    content = b'{"prompt": "the same", "completion": "x"}\n' * rows
    await api.http.post("/v1/datasets", files={"file": ("few.jsonl", content)})
    body = spec(objective={"datasets": [{"dataset": "few"}]})
    message = error(
        await api.post("/v1/merge_jobs", body),
        422,
        "dataset_too_small",
        "objective.datasets.0.dataset",
    )
    assert f"{rows} rows with 1 different prompts" in message


async def test_pools_of_1_and_of_300(api: Api, settings: Settings, root: Path) -> None:
    source = api.folders.parent / "a"
    for number in range(300):
        shutil.copytree(source, root / f"e{number:03d}")
    body = {"name": "many", "folders": str(root / "*")}
    created(await api.post("/v1/pools", body))
    await api.inputs()
    assert len((await api.job(pool="many"))["inputs"]["experts"]) == 300
    assert len((await api.job(pool=None, experts=["a"]))["inputs"]["experts"]) == 1


async def test_lists_pages_and_filters(api: Api) -> None:
    made = [
        await api.job(name=f"job{n % 2}", metadata={"n": str(n), "half": str(n // 2)})
        for n in range(4)
    ]
    newest = made[::-1]

    async def found(**params: Any) -> list[dict[str, Any]]:
        data: list[dict[str, Any]] = (await api.get("/v1/merge_jobs", **params)).json()["data"]
        return data

    assert await found() == newest
    first = (await api.get("/v1/merge_jobs", limit=3)).json()
    assert (first["data"], first["has_more"]) == (newest[:3], True)
    rest = (await api.get("/v1/merge_jobs", limit=3, after=newest[2]["id"])).json()
    assert (rest["data"], rest["has_more"]) == (newest[3:], False)
    await api.post(f"/v1/merge_jobs/{made[0]['id']}/cancel")
    assert [job["id"] for job in await found(status="cancelled")] == [made[0]["id"]]
    assert await found(status="queued") == newest[:3]
    assert await found(name="job1") == [made[3], made[1]]
    assert await found(**{"metadata[half]": "1"}) == newest[:2]
    assert await found(**{"metadata[half]": "1", "metadata[n]": "2"}) == [made[2]]
    assert await found(**{"metadata[zzz]": "1"}) == []


async def test_bad_lists(api: Api) -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"status": "odd"}, "status"),
        ({"after": "a\x00"}, "after"),
        ({"after": "mj_none"}, "after"),
        ({'metadata[a"b]': "x"}, "metadata"),
        ({"metadata[a]": "x\x00"}, "metadata"),
    ]
    for params, param in bad:
        error(await api.get("/v1/merge_jobs", **params), 422, "invalid_value", param)


async def test_pause_resume_cancel(api: Api) -> None:
    job = await api.job()
    path = f"/v1/merge_jobs/{job['id']}"
    for verb, status in (
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "queued"),
        ("cancel", "cancelled"),
        ("cancel", "cancelled"),
    ):
        response = await api.post(f"{path}/{verb}")
        assert (response.status_code, response.json()["status"]) == (200, status)
    assert (await api.get(path)).json()["finished_at"] is not None
    for verb in ("pause", "resume"):
        assert "cancelled" in error(await api.post(f"{path}/{verb}"), 409, "job_state")


async def test_unknown_jobs(api: Api) -> None:
    verbs = [("POST", verb) for verb in ("cancel", "pause", "resume")]
    parts = ["", "events", "events?stream=true", "evaluations", "result", "artifacts"]
    parts += ["artifacts.zip", "artifacts/manifest.json"]
    for method, part in [*verbs, *(("GET", part) for part in parts)]:
        path = f"/{part}" if part else ""
        response = await api.http.request(method, f"/v1/merge_jobs/mj_none{path}")
        assert "'mj_none'" in error(response, 404, "not_found")
        response = await api.http.request(method, f"/v1/merge_jobs/a%00b{path}")
        assert "NUL" in error(response, 422, "invalid_value", "job_id")
