from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from tests.app.api.client import Api, Json, created, error
from tests.app.api.conftest import Shelf
from tests.support.elm_folders import contents, make_elm
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.connectors.local.headers import content_hash


@pytest.fixture
async def forest(api: Api, shelf: Shelf, root: Path) -> Json:
    """An ELM of its own, and the seed as another."""
    seed = shutil.copytree(shelf.base, root / "seed")
    elm = make_elm(root / "python", seed, 1)
    (elm / "secrets.env").write_text("not for anybody")
    body = {
        "name": "wood",
        "seed": {"path": str(seed)},
        "elms": [{"path": str(elm)}, {"seed": True, "domain": "all"}],
        "ensemble": {"prior": {"python": 1.0}, "top_k": 1},
        "metadata": {"team": "docs"},
    }
    return created(await api.post("/v1/forests", body))


async def fetched(api: Api, folder: Path) -> Path:
    """The archive of the forest, unpacked."""
    response = await api.get("/v1/forests/wood/archive.zip")
    assert response.status_code == 200, response.text
    assert response.headers["content-disposition"] == 'attachment; filename="wood.zip"'
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        archive.extractall(folder)
    return folder


async def test_it_holds_the_seed_and_every_other_elm_once(
    api: Api, forest: Json, root: Path, tmp_path: Path
) -> None:
    out = await fetched(api, tmp_path / "out")
    manifest = json.loads((out / "forest.json").read_text())
    assert manifest["format"] == 1
    for field in ("name", "vocabulary_hash", "architecture", "ensemble", "metadata"):
        assert manifest[field] == forest[field]
    assert manifest["seed"] == {"folder": "seed", **forest["seed"]}
    assert [(elm["name"], elm["folder"]) for elm in manifest["elms"]] == [
        ("python", "elms/python"),
        ("all", "seed"),
    ]
    elms = (await api.get("/v1/forests/wood/elms")).json()["data"]
    for told, elm in zip(manifest["elms"], elms, strict=True):
        assert content_hash(out / told["folder"]) == elm["content_hash"] == told["content_hash"]
        assert told["lineage"] == elm["lineage"]
    assert sorted(path.name for path in out.iterdir()) == ["elms", "forest.json", "seed"]
    assert contents(out / "seed") == contents(root / "seed")
    python = contents(root / "python")
    del python["secrets.env"]
    assert contents(out / "elms" / "python") == python


async def test_each_model_loads(api: Api, forest: Json, tmp_path: Path) -> None:
    out = await fetched(api, tmp_path / "out")
    for folder in ("seed", "elms/python"):
        assert AutoModelForCausalLM.from_pretrained(out / folder).config.vocab_size == 257
        assert AutoTokenizer.from_pretrained(out / folder)("ab").input_ids


async def test_it_makes_the_same_forest_again(api: Api, forest: Json, root: Path) -> None:
    out = await fetched(api, root / "out")
    manifest = json.loads((out / "forest.json").read_text())
    body = {
        "name": "again",
        "seed": {"path": str(out / manifest["seed"]["folder"])},
        "elms": [
            {"path": str(out / elm["folder"]), "name": elm["name"], "domain": elm["domain"]}
            for elm in manifest["elms"]
        ],
        "ensemble": manifest["ensemble"],
        "metadata": manifest["metadata"],
    }
    again = created(await api.post("/v1/forests", body))
    for field in ("seed", "vocabulary_hash", "architecture", "ensemble", "metadata"):
        assert again[field] == forest[field]
    assert [elm["domain"] for elm in again["elms"]] == ["python", "all"]


async def test_files_that_have_gone(api: Api, forest: Json, root: Path) -> None:
    shutil.rmtree(root / "python")
    response = await api.get("/v1/forests/wood/archive.zip")
    assert "'elms/python'" in error(response, 409, "files_gone")
    error(await api.get("/v1/forests/none/archive.zip"), 404, "not_found")
