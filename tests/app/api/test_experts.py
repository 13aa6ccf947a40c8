from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.app.api.client import Api, created, error
from tests.app.api.conftest import Shelf
from tests.support.tiny import make_adapter, make_base

from evomerge.app.settings import Settings

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


async def register(api: Api, folder: Path, **body: object) -> httpx.Response:
    return await api.post("/v1/experts", {"path": str(folder), **body})


async def upload(api: Api, folder: Path, **fields: str) -> httpx.Response:
    files = {"config": (folder / CONFIG).read_bytes(), "weights": (folder / WEIGHTS).read_bytes()}
    return await api.http.post("/v1/experts", files=files, data=fields)


async def test_a_folder_is_registered_where_it_lies(api: Api, shelf: Shelf) -> None:
    expert = created(await register(api, shelf.adapters[0], metadata={"task": "ner"}))
    assert expert["id"].startswith("ex_")
    assert (expert["name"], expert["base"], expert["kind"]) == ("a", "tiny", "lora")
    assert expert["metadata"] == {"task": "ner"}
    assert expert["info"] == {"rank": 4, "ranks": [4], "modules": 14, "parameters": 3712}
    for key in ("a", expert["id"]):
        assert (await api.get(f"/v1/experts/{key}")).json() == expert
    assert str(shelf.root) not in json.dumps(expert)


async def test_an_upload_is_kept_by_content(api: Api, shelf: Shelf, settings: Settings) -> None:
    by_path = created(await register(api, shelf.adapters[0]))
    uploaded = created(
        await upload(api, shelf.adapters[0], name="up", base="tiny", metadata='{"k": "v"}')
    )
    assert uploaded["content_hash"] == by_path["content_hash"]
    assert uploaded["metadata"] == {"k": "v"}
    kept = settings.data_dir / "experts" / uploaded["content_hash"]
    assert (kept / WEIGHTS).read_bytes() == (shelf.adapters[0] / WEIGHTS).read_bytes()
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


async def test_the_same_adapter_under_the_same_name_is_the_same_expert(
    api: Api, shelf: Shelf
) -> None:
    first = created(await register(api, shelf.adapters[0]))
    again = await register(api, shelf.adapters[0])
    assert (again.status_code, again.json()) == (200, first)
    message = error(await register(api, shelf.adapters[1], name="a"), 409, "name_taken", "name")
    assert "'a'" in message


async def test_delete_and_refusal_while_a_pool_holds_it(api: Api) -> None:
    pool = await api.pool()
    message = error(await api.http.delete("/v1/experts/a"), 409, "in_use")
    assert "'pool'" in message
    await api.http.delete(f"/v1/pools/{pool['id']}")
    gone = await api.http.delete("/v1/experts/a")
    assert gone.json() == {"id": pool["experts"][0]["id"], "object": "expert", "deleted": True}
    assert "'a'" in error(await api.get("/v1/experts/a"), 404, "not_found")
    assert "'a'" in error(await api.http.delete("/v1/experts/a"), 404, "not_found")


async def test_pages(api: Api, shelf: Shelf) -> None:
    made = [created(await register(api, folder)) for folder in shelf.adapters]
    first = (await api.get("/v1/experts", limit=2)).json()
    assert first["data"] == made[:0:-1]
    assert first["has_more"] is True
    rest = (await api.get("/v1/experts", limit=2, after=first["data"][-1]["id"])).json()
    assert rest == {"object": "list", "data": made[:1], "has_more": False}
    response = await api.get("/v1/experts", after="ex_no")
    assert "'ex_no'" in error(response, 422, "invalid_value", "after")


async def test_paths_outside_the_roots(api: Api, root: Path, shelf: Shelf, tmp_path: Path) -> None:
    outside = make_adapter(tmp_path / "outside", shelf.base)
    (root / "link").symlink_to(outside)
    for path in (outside, root / "link", root / ".." / "outside", tmp_path / "none", "/etc"):
        message = error(await register(api, path), 422, "path_outside_roots", "path")
        assert str(path)[:20] in message
    message = error(await register(api, root / "none"), 422, "invalid_value", "path")
    assert "does not exist" in message
    assert "not a folder" in error(await register(api, shelf.dataset), 422, "invalid_value", "path")


async def test_a_relative_path_is_below_a_root(api: Api) -> None:
    assert created(await register(api, Path("pool/b")))["name"] == "b"


async def test_paths_that_are_none(api: Api) -> None:
    error(await register(api, Path("a\x00b")), 422, "invalid_value", "path")
    error(await register(api, Path("x" * 3000)), 422, "invalid_value", "path")


def spoil_nan(folder: Path) -> str:
    tensors = load_file(folder / WEIGHTS)
    name = sorted(tensors)[3]
    tensors[name][0, 0] = float("nan")
    save_file(tensors, folder / WEIGHTS)
    return name


def spoil_shape(folder: Path) -> str:
    tensors = load_file(folder / WEIGHTS)
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
    tensors[name] = torch.zeros(4, 99)
    save_file(tensors, folder / WEIGHTS)
    return name


def spoil_module(folder: Path) -> str:
    tensors = load_file(folder / WEIGHTS)
    for factor in "AB":
        old = f"base_model.model.model.layers.0.mlp.up_proj.lora_{factor}.weight"
        tensors[old.replace("layers.0", "layers.7")] = tensors.pop(old)
    save_file(tensors, folder / WEIGHTS)
    return "base_model.model.model.layers.7.mlp.up_proj.lora_A.weight"


@pytest.mark.parametrize("spoil", [spoil_nan, spoil_shape, spoil_module])
async def test_bad_tensors_are_named(api: Api, shelf: Shelf, root: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    folder = make_adapter(root / "bad", shelf.base)
    name = spoil(folder)
    for response in (await register(api, folder), await upload(api, folder, name="bad")):
        message = error(response, 422, "invalid_adapter", name)
        assert message.startswith(WEIGHTS)
        assert name in message


async def test_an_adapter_for_another_base(api: Api, root: Path, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", hidden=16, heads=2, kv_heads=1)
    folder = make_adapter(root / "other", other)
    response = await register(api, folder, base="tiny")
    message = error(response, 422, "invalid_adapter", response.json()["error"]["param"])
    assert "lora_" in message


async def test_an_adapter_that_is_a_pickle(
    api: Api, shelf: Shelf, root: Path, settings: Settings
) -> None:
    folder = make_adapter(root / "pickled", shelf.base)
    (folder / WEIGHTS).write_bytes(pickle.dumps({"a": 1}))
    for response in (await register(api, folder), await upload(api, folder, name="bad")):
        assert "pickle" in error(response, 422, "invalid_adapter")
    assert list((settings.data_dir / "experts").iterdir()) == []


async def test_an_unsupported_configuration(api: Api, shelf: Shelf, root: Path) -> None:
    folder = make_adapter(root / "dora", shelf.base, use_dora=True)
    assert "use_dora=True" in error(await register(api, folder), 422, "invalid_adapter")


async def test_which_base(api: Api, shelf: Shelf, root: Path) -> None:
    unknown = make_adapter(root / "elsewhere", shelf.base, base_model_name_or_path="some/other")
    assert created(await register(api, unknown))["base"] == "tiny"
    message = error(await register(api, unknown, base="big"), 422, "invalid_value", "base")
    assert "'big'" in message
    assert "'tiny'" in message


async def test_names(api: Api, shelf: Shelf, root: Path) -> None:
    folder = make_adapter(root / "has space", shelf.base)
    assert "'has space'" in error(await register(api, folder), 422, "invalid_value", "name")
    assert created(await register(api, folder, name="good"))["name"] == "good"
    message = error(await register(api, folder, name="no/slash"), 422, "invalid_value", "name")
    assert "'no/slash'" in message


async def test_forms_that_are_incomplete(api: Api, shelf: Shelf) -> None:
    config = (shelf.adapters[0] / CONFIG).read_bytes()
    response = await api.http.post("/v1/experts", files={"config": config})
    assert "weights: is missing" in error(response, 422, "invalid_value", "weights")
    weights = (shelf.adapters[0] / WEIGHTS).read_bytes()
    files = {"config": config, "weights": weights}
    response = await api.http.post("/v1/experts", files=files, data={"metadata": "{"})
    assert "metadata" in error(response, 422, "invalid_value", "metadata")
    response = await api.http.post("/v1/experts", files=files, data={"nmae": "x"})
    assert "nmae: is not a known field" in error(response, 422, "invalid_value", "nmae")


async def test_without_torch(api: Api, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "evomerge.merging.lora.adapter", None)
    assert "pip install" in error(await register(api, shelf.adapters[0]), 501, "not_installed")
