from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import insert, update
from tests.app.api.client import Api, Json, created, error
from tests.app.api.conftest import Shelf
from tests.support.elm_folders import make_elm
from tests.support.tiny import make_base

from evomerge.app.db.engine import epoch
from evomerge.app.db.models import Job
from evomerge.app.settings import Settings
from evomerge.connectors.local.headers import content_hash


@pytest.fixture
def seed(shelf: Shelf, root: Path) -> Path:
    """A seed of the test's own, with ELMs beside it."""
    folder = shutil.copytree(shelf.base, root / "seed")
    for number, name in enumerate(("python", "perl"), 1):
        make_elm(root / name, folder, number)
    return folder


def grown(root: Path, **more: object) -> Json:
    """The body of a forest with both ELMs."""
    elms = [{"path": str(root / name)} for name in ("python", "perl")]
    return {"name": "manuals", "seed": {"path": str(root / "seed")}, "elms": elms, **more}


async def add_job(app: FastAPI, forest_id: str, **fields: object) -> None:
    async with app.state.context.database.write() as session:
        values = {"id": "fj_1", "kind": "branch_train", "status": "queued", **fields}
        inputs = {"forest_id": forest_id}
        await session.execute(
            insert(Job).values(
                spec={}, inputs=inputs, meta={}, progress={}, created_at=epoch(), **values
            )
        )


async def test_over_a_seed_in_a_folder(api: Api, seed: Path) -> None:
    body = {"name": "manuals", "seed": {"path": str(seed)}, "metadata": {"team": "docs"}}
    forest = created(await api.post("/v1/forests", body))
    assert forest["id"].startswith("forest_")
    assert forest["seed"]["content_hash"] == content_hash(seed)
    assert forest["seed"]["lineage"]["seed_hash"] is None
    assert forest["architecture"]["model_type"] == "llama"
    assert forest["architecture"]["vocab_size"] == 257
    assert forest["elms"] == []
    assert forest["metadata"] == {"team": "docs"}
    assert forest["ensemble"] == {
        "mode": "cached",
        "prior": None,
        "history": "full",
        "top_k": None,
        "top_k_kind": "token",
        "weighting": "posterior",
    }
    assert forest["router"] is None
    for key in ("manuals", forest["id"]):
        assert (await api.get(f"/v1/forests/{key}")).json() == forest
    assert (await api.get("/v1/forests")).json()["data"] == [forest]


async def test_over_a_base_of_the_settings(api: Api, shelf: Shelf) -> None:
    forest = created(await api.post("/v1/forests", {"name": "f", "seed": {"base": "tiny"}}))
    assert forest["seed"]["content_hash"] == content_hash(shelf.base)
    response = await api.post("/v1/forests", {"name": "g", "seed": {"base": "huge"}})
    assert "'huge'" in error(response, 422, "not_found", "seed.base")


async def test_over_what_a_job_trained(api: Api, app: FastAPI, seed: Path) -> None:
    body = {"name": "f", "seed": {"job": "fj_1"}}
    error(await api.post("/v1/forests", body), 422, "not_found", "seed.job")
    await add_job(app, "", kind="train_seed")
    response = await api.post("/v1/forests", body)
    assert "queued" in error(response, 409, "no_result", "seed.job")
    result = {"checkpoint": {"path": str(seed), "content_hash": content_hash(seed)}}
    async with app.state.context.database.write() as session:
        await session.execute(update(Job).values(status="succeeded", result=result))
    forest = created(await api.post("/v1/forests", body))
    assert forest["seed"]["content_hash"] == content_hash(seed)


async def test_with_elms_that_are_there_already(api: Api, seed: Path, root: Path) -> None:
    body = grown(root, ensemble={"prior": {"python": 0.75, "perl": 0.25}, "top_k": 1})
    body["elms"].append({"seed": True, "domain": "everything"})
    forest = created(await api.post("/v1/forests", body))
    assert [elm["name"] for elm in forest["elms"]] == ["python", "perl", "everything"]
    assert forest["ensemble"]["prior"] == {"python": 0.75, "perl": 0.25}
    assert forest["ensemble"]["top_k"] == 1
    elms = (await api.get("/v1/forests/manuals/elms")).json()["data"]
    assert [elm["own_tokens"] for elm in elms] == [1, 2, 0]
    assert {elm["lineage"]["seed_hash"] for elm in elms} == {content_hash(seed)}
    assert elms[0]["lineage"]["parents"] == [{"content_hash": content_hash(seed), "weight": 1.0}]


async def test_the_very_same_is_the_same_forest(api: Api, seed: Path, root: Path) -> None:
    body = grown(root, ensemble={"prior": {"python": 1 / 3, "perl": 2 / 3}})
    forest = created(await api.post("/v1/forests", body))
    again = await api.post("/v1/forests", body)
    assert (again.status_code, again.json()) == (200, forest)
    for other in (
        grown(root),
        {**body, "elms": body["elms"][:1], "ensemble": {}},
        {**body, "seed": {"base": "tiny"}, "elms": [], "ensemble": {}},
    ):
        assert "'manuals'" in error(await api.post("/v1/forests", other), 409, "name_taken", "name")


async def test_many_at_once_make_one(api: Api, seed: Path, root: Path) -> None:
    answers = await asyncio.gather(*(api.post("/v1/forests", grown(root)) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert all(answer.json() == answers[0].json() for answer in answers)


async def test_pools_and_forests_share_their_names(api: Api, seed: Path) -> None:
    await api.pool("taken")
    response = await api.post("/v1/forests", {"name": "taken", "seed": {"path": str(seed)}})
    assert "pools and forests" in error(response, 409, "name_taken", "name")
    created(await api.post("/v1/forests", {"name": "wood", "seed": {"path": str(seed)}}))
    response = await api.post("/v1/pools", {"name": "wood", "folders": str(api.folders)})
    assert "pools and forests" in error(response, 409, "name_taken", "name")
    # Nothing was registered on the way.
    assert len((await api.get("/v1/experts")).json()["data"]) == 3


async def test_one_of_both_wins_a_race_for_a_name(api: Api, seed: Path) -> None:
    await api.pool("first")
    answers = await asyncio.gather(
        api.post("/v1/forests", {"name": "both", "seed": {"path": str(seed)}}),
        *(api.post("/v1/pools", {"name": "both", "experts": ["a"]}) for _ in range(3)),
    )
    there = [(await api.get(f"/v1/{kind}/both")).status_code for kind in ("forests", "pools")]
    assert sorted(there) == [200, 404]
    assert {answer.status_code for answer in answers} <= {200, 201, 409}


async def test_what_a_forest_may_not_be(api: Api, seed: Path, root: Path, tmp_path: Path) -> None:
    make_elm(root / "elsewhere", make_base(tmp_path / "other", seed=9))
    python = {"path": str(root / "python")}
    for change, code, param, word in (
        ({"seed": {}}, "invalid_value", "seed", "one of path, base and job"),
        ({"seed": {"path": "x", "base": "tiny"}}, "invalid_value", "seed", "one of path"),
        ({"seed": {"path": str(root / "none")}}, "invalid_value", "seed.path", "does not exist"),
        ({"seed": {"path": str(tmp_path)}}, "path_outside_roots", "seed.path", "outside"),
        ({"seed": {"path": str(root)}}, "invalid_checkpoint", "seed.path", "config.json"),
        ({"seed": python}, "other_lineage", "seed.path", "begins with a seed"),
        ({"elms": [python, python]}, "invalid_value", "elms.1.name", "more than once"),
        ({"elms": [{"path": str(root / "elsewhere")}]}, "other_lineage", "elms.0.path", "seed"),
        ({"elms": [{}]}, "invalid_value", "elms.0", "either path or seed"),
        ({"elms": [{"seed": True}]}, "invalid_value", "elms.0", "domain"),
        ({"elms": [], "ensemble": {"top_k": 1}}, "top_k", "ensemble.top_k", "top_k=1"),
        ({"ensemble": {"top_k": 3}}, "top_k", "ensemble.top_k", "from 1 to 2"),
        ({"ensemble": {"prior": {"java": 1}}}, "not_found", "ensemble.prior.java", "'java'"),
        ({"name": "with space"}, "invalid_value", "name", "with space"),
    ):
        response = await api.post("/v1/forests", grown(root, **change))
        assert word in error(response, 422, code, param), change
    assert (await api.get("/v1/forests")).json()["data"] == []


async def test_a_damaged_checkpoint(api: Api, seed: Path, root: Path) -> None:
    weights = seed / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    response = await api.post("/v1/forests", {"name": "f", "seed": {"path": str(seed)}})
    message = error(response, 422, "invalid_checkpoint", "seed.path")
    assert "model.safetensors" in message
    assert str(root) not in message


async def test_more_elms_than_the_service_takes(
    api: Api, app: FastAPI, settings: Settings, seed: Path, root: Path
) -> None:
    object.__setattr__(
        app.state.context, "settings", settings.model_copy(update={"max_pool_experts": 1})
    )
    response = await api.post("/v1/forests", grown(root))
    assert "takes 1" in error(response, 422, "too_many", "elms")


async def test_the_ensemble_is_changed_field_by_field(api: Api, seed: Path, root: Path) -> None:
    created(await api.post("/v1/forests", grown(root)))

    async def change(**ensemble: object) -> Json:
        response = await api.http.patch("/v1/forests/manuals", json={"ensemble": ensemble})
        assert response.status_code == 200, response.text
        assert response.json() == (await api.get("/v1/forests/manuals")).json()
        found: Json = response.json()["ensemble"]
        return found

    assert (await change(mode="updating", history="previous"))["mode"] == "updating"
    assert (await change(top_k=2, top_k_kind="static"))["history"] == "previous"
    after = await change(prior={"perl": 0.1, "python": 0.9})
    assert list(after["prior"].items()) == [("python", 0.9), ("perl", 0.1)]
    assert (after["mode"], after["top_k"], after["top_k_kind"]) == ("updating", 2, "static")
    assert (await change(prior={"perl": 1.0}))["prior"] == {"perl": 1.0}
    assert (await change(prior=None, top_k=None))["prior"] is None
    assert (await change())["top_k"] is None


async def test_what_an_ensemble_may_not_be(api: Api, seed: Path, root: Path) -> None:
    before = created(await api.post("/v1/forests", grown(root)))
    for ensemble, code, param, word in (
        ({"prior": {"python": 0.5, "perl": 0.4}}, "invalid_value", "ensemble.prior", "sum 1"),
        ({"prior": {"python": 1.5}}, "invalid_value", "ensemble.prior.python", "1.5"),
        ({"prior": {"python": -0.5, "perl": 1}}, "invalid_value", "ensemble.prior.python", "-0.5"),
        ({"prior": {}}, "invalid_value", "ensemble.prior", "at least 1"),
        ({"prior": {"python": 0.5, "ruby": 0.5}}, "not_found", "ensemble.prior.ruby", "'ruby'"),
        ({"top_k": 0}, "invalid_value", "ensemble.top_k", "0"),
        ({"top_k": 3}, "top_k", "ensemble.top_k", "top_k=3"),
        ({"top_k_kind": "some"}, "invalid_value", "ensemble.top_k_kind", "some"),
        ({"mode": None}, "invalid_value", "ensemble", "mode"),
        ({"history": "half"}, "invalid_value", "ensemble.history", "half"),
        ({"weights": {}}, "invalid_value", "ensemble.weights", "weights"),
    ):
        response = await api.http.patch("/v1/forests/manuals", json={"ensemble": ensemble})
        assert word in error(response, 422, code, param), ensemble
    assert (await api.get("/v1/forests/manuals")).json() == before
    assert (await api.http.patch("/v1/forests/none", json={})).status_code == 404


async def test_metadata_is_replaced(api: Api, seed: Path, root: Path) -> None:
    created(await api.post("/v1/forests", grown(root, metadata={"a": "1"})))
    response = await api.http.patch("/v1/forests/manuals", json={"metadata": {"b": "2"}})
    assert response.json()["metadata"] == {"b": "2"}


async def test_deleting_leaves_registered_folders(api: Api, seed: Path, root: Path) -> None:
    forest = created(await api.post("/v1/forests", grown(root)))
    gone = await api.http.delete("/v1/forests/manuals")
    assert gone.json() == {"id": forest["id"], "object": "forest", "deleted": True}
    error(await api.get("/v1/forests/manuals"), 404, "not_found")
    error(await api.get("/v1/forests/manuals/elms"), 404, "not_found")
    assert (await api.http.delete("/v1/forests/manuals")).status_code == 404
    assert (seed / "model.safetensors").is_file()
    # The name is free again, with other content.
    created(await api.post("/v1/forests", grown(root, elms=[])))


@pytest.mark.parametrize("status", ["queued", "running", "paused"])
async def test_a_job_that_has_not_ended_keeps_its_forest(
    api: Api, app: FastAPI, seed: Path, root: Path, status: str
) -> None:
    forest = created(await api.post("/v1/forests", grown(root)))
    await add_job(app, forest["id"], status=status)
    response = await api.http.delete("/v1/forests/manuals")
    assert "fj_1" in error(response, 409, "in_use")
    async with app.state.context.database.write() as session:
        await session.execute(update(Job).values(status="cancelled"))
    assert (await api.http.delete("/v1/forests/manuals")).status_code == 200


async def test_the_same_key_is_the_same_forest(api: Api, seed: Path, root: Path) -> None:
    first = await api.post("/v1/forests", grown(root), idempotency_key="k")
    created(first)
    shutil.rmtree(root / "perl")
    again = await api.post("/v1/forests", grown(root), idempotency_key="k")
    assert (again.status_code, again.json()) == (201, first.json())
    response = await api.post("/v1/forests", grown(root, name="x"), idempotency_key="k")
    error(response, 409, "idempotency_key_reused", "Idempotency-Key")


async def test_forests_page_by_page(api: Api, seed: Path) -> None:
    for number in range(3):
        body = {"name": f"f{number}", "seed": {"path": str(seed)}}
        created(await api.post("/v1/forests", body))
    first = (await api.get("/v1/forests", limit=2)).json()
    assert [one["name"] for one in first["data"]] == ["f2", "f1"]
    assert first["has_more"]
    rest = (await api.get("/v1/forests", after=first["data"][-1]["id"])).json()
    assert [one["name"] for one in rest["data"]] == ["f0"]
    assert json.dumps(rest["has_more"]) == "false"
