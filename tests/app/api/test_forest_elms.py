from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.app.api.client import Api, Json, created, error
from tests.app.api.conftest import Shelf
from tests.support.elm_folders import make_elm, rewrite
from tests.support.tiny import make_base

from evomerge.connectors.local.headers import content_hash

ELMS = "/v1/forests/wood/elms"
NAMES = ("ada", "bob", "cyd")


@pytest.fixture
def seed(shelf: Shelf, root: Path) -> Path:
    """A seed with three ELMs beside it."""
    folder = shutil.copytree(shelf.base, root / "seed")
    for number, name in enumerate(NAMES, 1):
        make_elm(root / name, folder, number)
    return folder


@pytest.fixture
async def forest(api: Api, seed: Path) -> Json:
    """A forest without an ELM."""
    return created(await api.post("/v1/forests", {"name": "wood", "seed": {"path": str(seed)}}))


async def add(api: Api, root: Path, *names: str) -> list[Json]:
    return [created(await api.post(ELMS, {"path": str(root / name)})) for name in names]


async def ensemble(api: Api) -> Json:
    found: Json = (await api.get("/v1/forests/wood")).json()["ensemble"]
    return found


async def test_an_elm_tells_where_it_comes_from(api: Api, forest: Json, root: Path) -> None:
    (elm,) = await add(api, root, "bob")
    assert elm["id"].startswith("elm_")
    assert elm["forest_id"] == forest["id"]
    assert (elm["name"], elm["domain"]) == ("bob", "bob")
    assert elm["content_hash"] == content_hash(root / "bob")
    assert (elm["tokens"], elm["own_tokens"]) == (102, 2)
    seed_hash = forest["seed"]["content_hash"]
    assert elm["lineage"]["seed_hash"] == seed_hash
    assert elm["lineage"]["parents"] == [{"content_hash": seed_hash, "weight": 1.0}]
    for key in ("bob", elm["id"]):
        assert (await api.get(f"{ELMS}/{key}")).json() == elm
    error(await api.get(f"{ELMS}/ada"), 404, "not_found")


async def test_a_name_and_a_domain_of_ones_own(api: Api, forest: Json, root: Path) -> None:
    body = {"path": str(root / "ada"), "name": "first", "domain": "Old programs, mostly"}
    elm = created(await api.post(ELMS, body))
    assert (elm["name"], elm["domain"]) == ("first", "Old programs, mostly")
    body = {"path": str(root / "bob"), "domain": "no name"}
    assert "no name" in error(await api.post(ELMS, body), 422, "invalid_value", "name")


async def test_the_seed_itself_under_a_domain(api: Api, forest: Json) -> None:
    elm = created(await api.post(ELMS, {"seed": True, "domain": "everything"}))
    assert elm["content_hash"] == forest["seed"]["content_hash"]
    assert elm["lineage"]["seed_hash"] == elm["content_hash"]
    assert elm["own_tokens"] == 0


async def test_the_seeds_folder_is_an_elm_too(api: Api, forest: Json, seed: Path) -> None:
    elm = created(await api.post(ELMS, {"path": str(seed), "domain": "everything"}))
    assert elm["content_hash"] == forest["seed"]["content_hash"]
    response = await api.post(ELMS, {"path": str(seed)})
    assert "names none" in error(response, 422, "invalid_value", "domain")


async def test_they_stay_in_the_order_they_came(api: Api, forest: Json, root: Path) -> None:
    added = await add(api, root, "cyd", "ada", "bob")
    found = (await api.get(ELMS)).json()
    assert found == {"object": "list", "data": added, "has_more": False}
    first = (await api.get(ELMS, limit=2)).json()
    assert (first["data"], first["has_more"]) == (added[:2], True)
    rest = (await api.get(ELMS, after=added[1]["id"])).json()
    assert (rest["data"], rest["has_more"]) == (added[2:], False)
    error(await api.get(ELMS, after="elm_none"), 422, "invalid_value", "after")


async def test_the_same_again_is_the_same_elm(api: Api, forest: Json, root: Path) -> None:
    (elm,) = await add(api, root, "ada")
    again = await api.post(ELMS, {"path": str(root / "ada")})
    assert (again.status_code, again.json()) == (200, elm)
    for body in (
        {"path": str(root / "bob"), "name": "ada"},
        {"path": str(root / "ada"), "domain": "other"},
    ):
        body["name"] = "ada"
        assert "'ada'" in error(await api.post(ELMS, body), 409, "name_taken", "name")


async def test_many_at_once_take_turns(api: Api, forest: Json, root: Path) -> None:
    await api.http.patch("/v1/forests/wood", json={"metadata": {}})
    bodies = [{"path": str(root / name)} for name in NAMES for _ in range(2)]
    answers = await asyncio.gather(*(api.post(ELMS, body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [201] * 3
    found = (await api.get(ELMS)).json()["data"]
    assert sorted(elm["name"] for elm in found) == list(NAMES)


async def test_the_prior_makes_room_for_those_that_come_at_once(
    api: Api, forest: Json, root: Path
) -> None:
    await add(api, root, "ada")
    await api.http.patch("/v1/forests/wood", json={"ensemble": {"prior": {"ada": 1.0}}})
    bodies = [{"path": str(root / name)} for name in ("bob", "cyd")]
    await asyncio.gather(*(api.post(ELMS, body) for body in bodies))
    assert (await ensemble(api))["prior"] == pytest.approx(dict.fromkeys(NAMES, 1 / 3))


async def test_removing_renormalises_the_prior(api: Api, forest: Json, root: Path) -> None:
    _, bob, _ = await add(api, root, *NAMES)
    settings = {"prior": {"ada": 0.2, "bob": 0.5, "cyd": 0.3}, "top_k": 3}
    await api.http.patch("/v1/forests/wood", json={"ensemble": settings})
    gone = await api.http.delete(f"{ELMS}/bob")
    assert gone.json() == {"id": bob["id"], "object": "forest.elm", "deleted": True}
    left = await ensemble(api)
    assert left["prior"] == pytest.approx({"ada": 0.4, "cyd": 0.6})
    assert left["top_k"] == 2
    assert (root / "bob" / "model.safetensors").is_file()
    assert [elm["name"] for elm in (await api.get(ELMS)).json()["data"]] == ["ada", "cyd"]
    error(await api.http.delete(f"{ELMS}/bob"), 404, "not_found")


async def test_the_last_one_stays(api: Api, forest: Json, root: Path) -> None:
    await add(api, root, "ada", "bob")
    answers = await asyncio.gather(*(api.http.delete(f"{ELMS}/{name}") for name in ("ada", "bob")))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert "the last ELM" in error(refused, 409, "last_elm")
    assert len((await api.get(ELMS)).json()["data"]) == 1


async def test_a_name_comes_before_an_id(api: Api, forest: Json, root: Path) -> None:
    (ada,) = await add(api, root, "ada")
    named = created(await api.post(ELMS, {"path": str(root / "bob"), "name": ada["id"]}))
    assert (await api.get(f"{ELMS}/{ada['id']}")).json() == named


async def test_elms_of_another_seed(api: Api, forest: Json, root: Path) -> None:
    make_elm(root / "stranger", make_base(root / "other", seed=9))
    message = error(
        await api.post(ELMS, {"path": str(root / "stranger")}), 422, "other_lineage", "path"
    )
    assert content_hash(root / "other")[:12] in message
    assert forest["seed"]["content_hash"][:12] in message
    # Another seed without an elm.json is of its own lineage.
    message = error(
        await api.post(ELMS, {"path": str(root / "other"), "domain": "x"}),
        422,
        "other_lineage",
        "path",
    )
    assert "no elm.json" in message


async def test_elms_of_another_vocabulary(api: Api, forest: Json, root: Path) -> None:
    file = root / "ada" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    one, other = list(vocabulary)[:2]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    file.write_text(json.dumps(tokenizer))
    message = error(
        await api.post(ELMS, {"path": str(root / "ada")}), 422, "other_vocabulary", "path"
    )
    assert "tokenizer" in message


async def test_elms_of_other_tensors(api: Api, forest: Json, root: Path) -> None:
    norm = "model__norm__weight"
    for change, word in (
        ({norm: torch.zeros(31)}, "[31]"),
        ({norm: None}, "missing"),
        ({"model__extra__weight": torch.zeros(2)}, "model.extra.weight"),
    ):
        folder = shutil.copytree(root / "ada", root / "changed")
        rewrite(folder, **change)  # type: ignore[arg-type]
        message = error(
            await api.post(ELMS, {"path": str(folder)}), 422, "other_architecture", "path"
        )
        assert word in message
        shutil.rmtree(folder)
    assert (await api.get(ELMS)).json()["data"] == []


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "elm.json"),
        ('{"format": 2}', "format 1"),
        ('{"format": 1, "tokens": -1}', "tokens=-1"),
        ('{"format": 1, "colour": "red"}', "colour"),
    ],
)
async def test_a_damaged_lineage(
    api: Api, forest: Json, root: Path, content: str, word: str
) -> None:
    (root / "ada" / "elm.json").write_text(content)
    response = await api.post(ELMS, {"path": str(root / "ada")})
    message = error(response, 422, "invalid_checkpoint", "path")
    assert word in message
    assert str(root) not in message


async def test_what_an_elm_may_not_be(api: Api, forest: Json, root: Path, tmp_path: Path) -> None:
    file = root / "file"
    file.touch()
    for body, code, param, word in (
        ({}, "invalid_value", None, "either path or seed"),
        ({"seed": True}, "invalid_value", None, "domain"),
        ({"seed": False, "domain": "x"}, "invalid_value", "seed", "seed"),
        ({"path": str(tmp_path)}, "path_outside_roots", "path", "outside"),
        ({"path": str(root / "none")}, "invalid_value", "path", "does not exist"),
        ({"path": str(file)}, "invalid_value", "path", "not a folder"),
        ({"path": str(root)}, "invalid_checkpoint", "path", "config.json"),
        ({"path": str(root / "ada"), "domain": ""}, "invalid_value", "domain", "at least 1"),
    ):
        assert word in error(await api.post(ELMS, body), 422, code, param), body
    response = await api.post("/v1/forests/none/elms", {"path": str(root / "ada")})
    error(response, 404, "not_found")


async def test_the_same_key_is_the_same_elm(api: Api, forest: Json, root: Path) -> None:
    body = {"path": str(root / "ada")}
    first = await api.post(ELMS, body, idempotency_key="k")
    created(first)
    shutil.rmtree(root / "ada")
    again = await api.post(ELMS, body, idempotency_key="k")
    assert (again.status_code, again.json()) == (201, first.json())
    response = await api.post(ELMS, {"path": str(root / "bob")}, idempotency_key="k")
    error(response, 409, "idempotency_key_reused", "Idempotency-Key")
