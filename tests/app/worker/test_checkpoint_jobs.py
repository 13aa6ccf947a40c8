"""Merges of a forest's weights from the API to the model that they make: one real run, whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from tests.app.api.client import Api, Json, created, error
from tests.support import jobs
from tests.support.changed_models import refuses_changed_weights
from tests.support.elms import make_elm
from tests.support.forest_jobs import Plantation, plantation
from tests.support.tiny import make_base
from transformers import AutoModelForCausalLM, AutoTokenizer

SPEC: Json = {
    "pool": "grove",
    "space": "checkpoint",
    "objective": {"datasets": [{"dataset": "rows"}], "answer_prefix": ""},
    "method": {"name": "cma", "population": 4, "scaling": {"evaluations": 8}},
    "serve_as": "merged",
}
DOMAINS = ("law", "verse", "code")


@pytest.fixture
async def farm(tmp_path: Path, database_url: str) -> AsyncIterator[Plantation]:
    async with plantation(tmp_path, database_url) as made:
        yield made


@pytest.fixture
async def grove(farm: Plantation) -> Json:
    """A forest of three ELMs, and texts to merge them for."""
    seed = make_base(farm.root / "seed")
    for number, domain in enumerate(DOMAINS):
        make_elm(farm.root / domain, seed, number, domain=domain)
    rows = [json.dumps({"text": f"section {n} of the act"}) for n in range(8)]
    (farm.root / "rows.jsonl").write_text("\n".join(rows))
    body = {"name": "rows", "path": str(farm.root / "rows.jsonl")}
    created(await farm.api.post("/v1/datasets", body))
    elms = [{"path": str(farm.root / domain)} for domain in DOMAINS]
    forest = {"name": "grove", "seed": {"path": str(seed)}, "elms": elms}
    return created(await farm.api.post("/v1/forests", forest))


async def finished(farm: Plantation, job_id: str) -> Json:
    """The job's result, once a worker has run it."""
    async with farm.worker() as task:

        async def ended() -> bool:
            return (await jobs.get_job(farm.database, job_id)).finished_at is not None

        await jobs.until(ended, task, 300)
    response = await farm.api.get(f"/v1/merge_jobs/{job_id}/result")
    assert response.status_code == 200, (await farm.api.get(f"/v1/merge_jobs/{job_id}")).text
    return dict(response.json())


async def test_a_forest_is_merged_proven_and_served(farm: Plantation, grove: Json) -> None:
    foreseen = (await farm.api.post("/v1/merge_jobs/estimate", SPEC)).json()
    assert (foreseen["experts"], foreseen["tokens_by"]) == (3, "tokenizer")
    assert "no job over forest 'grove'" in foreseen["seconds_reason"]
    job = created(await farm.api.post("/v1/merge_jobs", SPEC))
    assert job["inputs"]["pool_id"] == grove["id"]
    assert job["inputs"]["seed"] == {
        "forest": "grove",
        "content_hash": grove["seed"]["content_hash"],
    }
    assert [one["name"] for one in job["inputs"]["experts"]] == list(DOMAINS)
    # What is removed later changes no job, and while it needs the forest that cannot go.
    assert (await farm.api.http.delete("/v1/forests/grove/elms/verse")).status_code == 200
    response = await farm.api.http.delete("/v1/forests/grove")
    assert job["id"] in error(response, 409, "in_use")

    result = await finished(farm, job["id"])
    assert set(result["winner"]["beta"]) == set(DOMAINS)
    names = [one["name"] for one in result["held_out"][0]["contenders"]]
    assert names[-3:] == ["argmax", "posterior", "btm_ensemble"]
    spent = sum(usage["tokens"] for usage in result["usage"].values())
    assert spent <= foreseen["tokens"]
    again = (await farm.api.post("/v1/merge_jobs/estimate", {**SPEC, "seed": 8})).json()
    assert again["seconds"] > 0

    folder = farm.settings.data_dir / "artifacts" / job["id"]
    listed = (await farm.api.get(f"/v1/merge_jobs/{job['id']}/artifacts")).json()["data"]
    assert {one["name"] for one in listed} >= {
        "config.json",
        "elm.json",
        "manifest.json",
        "model.safetensors",
        "README.md",
        "tokenizer.json",
    }
    (card,) = [
        one for one in (await farm.api.get("/v1/models")).json()["data"] if one["id"] == "merged"
    ]
    assert card["evomerge"]["space"] == "checkpoint"
    assert card["evomerge"]["forest_id"] == grove["id"]
    await refuses_changed_weights(farm.api, "merged", folder)
    assert await said(farm.api, "merged") == written(folder)
    # A merge is an ELM of the same lineage, and joins the forest as any other.
    copy = farm.root / "merged"
    folder.rename(copy)
    elm = created(
        await farm.api.post("/v1/forests/grove/elms", {"path": str(copy), "domain": "all"})
    )
    assert elm["lineage"]["seed_hash"] == grove["seed"]["content_hash"]
    assert len(elm["lineage"]["parents"]) == 3


async def said(api: Api, model: str) -> str:
    body = {"model": model, "prompt": "section 3", "max_tokens": 6, "temperature": 0}
    response = await api.post("/v1/completions", body)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["text"])


def written(folder: Path) -> str:
    """The same by plain transformers."""
    words = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([words("section 3").input_ids])
    out = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=256)
    return str(words.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@on_sqlite
@pytest.mark.parametrize(
    ("changes", "param", "reason"),
    [
        ({"space": "lora"}, "space", "works with experts of kind 'lora', these are of kind 'elm'"),
        ({"pool": "nowhere"}, "pool", "no pool or forest 'nowhere'"),
        ({"pool": "bare"}, "pool", "forest 'bare' has no ELM yet"),
        ({"pool": None, "experts": ["a"]}, None, "works over a forest"),
        ({"output": {"rank": 4}}, None, "output.rank=4: goes with adapters"),
        ({"output": {"full_checkpoint": True}}, None, "goes with adapters"),
        (
            {"objective": {**SPEC["objective"], "datasets": [{"dataset": "long"}]}},
            "objective.datasets",
            "the context holds 256",
        ),
    ],
)
async def test_what_cannot_be_merged_is_refused_at_once(
    farm: Plantation, grove: Json, changes: Json, param: str | None, reason: str
) -> None:
    rows = [json.dumps({"text": "x" * 300}), json.dumps({"text": "y"})]
    (farm.root / "long.jsonl").write_text("\n".join(rows))
    body = {"name": "long", "path": str(farm.root / "long.jsonl")}
    created(await farm.api.post("/v1/datasets", body))
    bare = {"name": "bare", "seed": {"path": str(farm.root / "seed")}}
    created(await farm.api.post("/v1/forests", bare))
    response = await farm.api.post("/v1/merge_jobs", {**SPEC, **changes})
    assert response.status_code == 422, response.text
    problem = response.json()["error"]
    assert reason in problem["message"]
    if param is not None:
        assert problem["param"] == param
