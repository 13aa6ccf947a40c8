from __future__ import annotations

import shutil
from pathlib import Path

from tests.app.api.client import Api, created, error
from tests.app.api.conftest import Shelf, connected
from tests.support.tiny import make_adapter

from evomerge.app.settings import Settings


async def test_a_whole_folder_at_once(api: Api) -> None:
    pool = await api.pool()
    assert pool["id"].startswith("pool_")
    assert [member["name"] for member in pool["experts"]] == ["a", "b", "c"]
    assert pool["base"] == "tiny"
    for key in ("pool", pool["id"]):
        assert (await api.get(f"/v1/pools/{key}")).json() == pool
    assert (await api.get("/v1/pools")).json()["data"] == [pool]
    assert len((await api.get("/v1/experts")).json()["data"]) == 3


async def test_a_list_keeps_its_order(api: Api) -> None:
    everything = await api.pool()
    first = everything["experts"][0]
    pool = created(await api.post("/v1/pools", {"name": "two", "experts": ["c", first["id"]]}))
    assert [member["name"] for member in pool["experts"]] == ["c", "a"]


async def test_one_expert_is_a_pool(api: Api) -> None:
    await api.pool()
    assert created(await api.post("/v1/pools", {"name": "one", "experts": ["a"]}))


async def test_more_than_a_hundred_folders(api: Api, shelf: Shelf, root: Path) -> None:
    for number in range(120):
        shutil.copytree(shelf.adapters[0], root / "many" / f"e{number:03d}")
    body = {"name": "many", "folders": str(root / "many" / "e*")}
    pool = created(await api.post("/v1/pools", body))
    assert [member["name"] for member in pool["experts"]] == [f"e{n:03d}" for n in range(120)]


async def test_every_bad_folder_is_named_and_nothing_is_registered(
    api: Api, shelf: Shelf, root: Path
) -> None:
    make_adapter(root / "good", shelf.base)
    make_adapter(root / "dora", shelf.base, use_dora=True)
    make_adapter(root / "with space", shelf.base)
    (root / "empty").mkdir()
    response = await api.post("/v1/pools", {"name": "pool", "folders": str(root / "*")})
    message = error(response, 422, "invalid_adapter", "folders")
    assert "use_dora" in message
    details = [detail["message"] for detail in response.json()["error"]["details"]]
    bad = ("dora", "empty", "with space")
    assert [Path(text.partition(":")[0]).name for text in details] == list(bad)
    assert (await api.get("/v1/experts")).json()["data"] == []


async def test_registering_again_is_the_same_pool(api: Api, shelf: Shelf, root: Path) -> None:
    pool = await api.pool()
    body = {"name": "pool", "folders": str(api.folders)}
    again = await api.post("/v1/pools", body)
    assert (again.status_code, again.json()) == (200, pool)
    response = await api.post("/v1/pools", {"name": "pool", "experts": ["a"]})
    assert "'pool'" in error(response, 409, "name_taken", "name")
    make_adapter(root / "a", shelf.base, seed=9)
    response = await api.post("/v1/pools", {"name": "other", "folders": str(root / "*")})
    assert "name='a'" in error(response, 422, "invalid_adapter", "folders")


async def test_what_a_pool_may_not_be(api: Api, tmp_path: Path) -> None:
    await api.pool()
    for body, param, word in (
        ({"experts": ["a", "nobody"]}, "experts.1", "'nobody'"),
        ({"experts": ["a", "b", "a"]}, "experts.2", "more than once"),
        ({"experts": []}, "experts", "at least 1"),
        ({}, None, "either experts or folders"),
        ({"experts": ["a"], "folders": "/x/*"}, None, "either experts or folders"),
        ({"experts": ["a"], "base": "tiny"}, None, "base goes with folders"),
        ({"folders": str(api.folders.parent / "zzz*")}, "folders", "no folder"),
        ({"folders": f"{api.folders.parent}/../*"}, "folders", ".."),
    ):
        response = await api.post("/v1/pools", {"name": "new", **body})
        assert word in error(response, 422, response.json()["error"]["code"], param)
    response = await api.post("/v1/pools", {"name": "new", "folders": f"{tmp_path}/*"})
    error(response, 422, "path_outside_roots", "folders")


async def test_a_link_out_of_the_root_is_refused(
    api: Api, shelf: Shelf, root: Path, tmp_path: Path
) -> None:
    outside = make_adapter(tmp_path / "outside", shelf.base)
    (root / "inside").symlink_to(outside)
    response = await api.post("/v1/pools", {"name": "new", "folders": str(root / "*")})
    error(response, 422, "path_outside_roots", "folders")


async def test_the_size_of_a_pool_is_bounded(settings: Settings, shelf: Shelf) -> None:
    from evomerge.app.main import create_app

    app = create_app(settings.model_copy(update={"max_pool_experts": 2}))
    async with app.router.lifespan_context(app), connected(app, shelf) as api:
        response = await api.post("/v1/pools", {"name": "p", "folders": str(api.folders)})
        assert "more than 2" in error(response, 422, "invalid_value", "folders")


async def test_delete_keeps_the_experts(api: Api) -> None:
    pool = await api.pool()
    gone = (await api.http.delete("/v1/pools/pool")).json()
    assert gone == {"id": pool["id"], "object": "pool", "deleted": True}
    assert "'pool'" in error(await api.get("/v1/pools/pool"), 404, "not_found")
    assert len((await api.get("/v1/experts")).json()["data"]) == 3
