"""Documents without domains, from a cluster job to a routed ensemble, on both databases."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.app.api.client import Json, error
from tests.support import jobs
from tests.support.corpora import bytes_of, sentences
from tests.support.forest_jobs import RECIPE, SHARES, Plantation, plantation

from evomerge.evaluation.corpus import Corpus, Shares, documents
from evomerge.merging.forest.router import Router

DOMAINS = ("north", "south")


@pytest.fixture
async def farm(database_url: str, tmp_path: Path) -> AsyncIterator[Plantation]:
    """A service with a forest without ELMs."""
    async with plantation(tmp_path, database_url) as farm:
        await farm.run(farm.seed_spec(*DOMAINS))
        yield farm


def cluster_spec(farm: Plantation, count: int = 40, **changes: object) -> Json:
    """Documents of two languages in one file, some of them twice."""
    file = farm.root / "mixed.jsonl"
    texts = [text for domain in DOMAINS for text in sentences(domain, count)]
    rows = [json.dumps({"text": text}) + "\n" for text in [*texts, *texts[:3]]]
    file.write_text("".join(rows), encoding="utf-8")
    spec = {
        "type": "cluster",
        "forest": "grove",
        "corpora": [str(file)],
        "clusters": 2,
        "shares": SHARES,
    }
    return {**spec, **changes}


def cluster_of(number: int) -> Json:
    """What branches an ELM on a cluster."""
    return {
        "type": "branch_train",
        "forest": "grove",
        "corpus": {"cluster": number},
        "start": "seed",
        "recipe": RECIPE,
    }


async def weigh_by_the_router(farm: Plantation, **more: object) -> httpx.Response:
    body = {"ensemble": {"weighting": "router", **more}}
    return await farm.api.http.patch("/v1/forests/grove", json=body)


async def test_from_documents_to_a_routed_ensemble(farm: Plantation) -> None:
    result = await farm.run(cluster_spec(farm))
    found = result["clustering"]
    assert found["duplicates"] == 3
    train = [one["train_documents"] for one in found["clusters"]]
    assert max(train) - min(train) <= 1
    assert sum(one["documents"] for one in found["clusters"]) == 2 * 40
    folder = farm.settings.data_dir / "artifacts" / result["forest_job_id"]
    cut, router = Shares(dev=0.2, test=0.2), Router.load(folder / "router")
    for one in found["clusters"]:
        path = folder / "clusters" / f"{one['cluster']}.jsonl"
        inside = list(documents(Corpus("c", path)))
        parts = [cut.part(document.digest) for document in inside]
        counted = [parts.count(part) for part in ("train", "dev", "test")]
        assert counted == [one[f"{part}_documents"] for part in ("train", "dev", "test")]
        for document, part in zip(inside, parts, strict=True):
            if part != "train":
                assert router.log_weights([document.text])[0].argmax() == one["cluster"]
    forest = await farm.forest()
    assert forest["router"] == {
        "job_id": result["forest_job_id"],
        "content_hash": found["router_hash"],
        "clusters": [one["content_hash"] for one in found["clusters"]],
    }
    stages = [event["message"] for event in await farm.events(result["forest_job_id"])]
    assert any("80 documents were read" in message for message in stages)
    assert farm.scratch() == []

    archive = await farm.api.get("/v1/forests/grove/archive.zip")
    with zipfile.ZipFile(io.BytesIO(archive.content)) as packed:
        packed.extractall(farm.root / "unpacked")
    again = Router.load(farm.root / "unpacked" / "router")
    assert again.words == router.words

    # A cluster without an ELM is told of wherever the router is asked.
    await farm.run(cluster_of(1))
    error(await weigh_by_the_router(farm), 422, "cluster_without_elm", "ensemble.weighting")
    spec = farm.evaluate_spec(*DOMAINS, weightings=["posterior", "router"], top_k=[1])
    error(await farm.api.post("/v1/forest_jobs", spec), 422, "cluster_without_elm", "weightings")
    first = await farm.run(cluster_of(0))
    assert first["training"]["domain_tokens"].keys() == {"cluster-0"}
    elms = (await farm.forest())["elms"]
    assert [(elm["name"], elm["cluster"]) for elm in elms] == [("cluster-1", 1), ("cluster-0", 0)]
    everything = {"seed": True, "domain": "everything"}
    await farm.api.post("/v1/forests/grove/elms", everything)
    assert (await farm.forest())["elms"][2]["cluster"] is None

    evaluation = (await farm.run(spec))["evaluation"]
    losses = {row["model"]: row["all"]["perplexity"] for row in evaluation["models"]}
    assert {"ensemble:top-1", "ensemble:all", "router:top-1", "router:all"} <= losses.keys()
    assert min(losses["router:top-1"], losses["router:all"]) > 1
    reaching = {**spec, "shares": {"dev_share": 0.3, "test_share": 0.2}}
    error(await farm.api.post("/v1/forest_jobs", reaching), 422, "trained_on", "shares")

    changed = await weigh_by_the_router(farm, top_k=1)
    assert changed.json()["ensemble"]["weighting"] == "router"
    text = sentences("south", 1)[0][:12]
    body = {"model": "grove", "prompt": text, "max_tokens": 2, "temperature": 0}
    said = (await farm.api.post("/v1/completions", body)).json()
    about = said["evomerge"]
    assert about["weighting"] == "router"
    weights = about["answers"][0]["posterior"]
    assert weights.keys() == {"cluster-0", "cluster-1"}
    expected = np.exp(router.log_weights([text + said["choices"][0]["text"]])[0])
    assert [weights["cluster-0"], weights["cluster-1"]] == pytest.approx(expected, abs=1e-6)

    # What is called after one of its ELMs has gone says so.
    await farm.api.http.delete("/v1/forests/grove/elms/cluster-0")
    refused = await farm.api.post("/v1/completions", body)
    assert "cluster 0 of the router has no ELM" in refused.json()["error"]["message"]
    # A new router begins without ELMs, and weighs nothing yet.
    await farm.run(cluster_spec(farm, clusters=3, balance=False))
    forest = await farm.forest()
    assert (forest["ensemble"]["weighting"], len(forest["router"]["clusters"])) == ("posterior", 3)


async def test_what_cannot_be_clustered(farm: Plantation, monkeypatch: pytest.MonkeyPatch) -> None:
    many = cluster_spec(farm, clusters=100)
    error(await farm.api.post("/v1/forest_jobs", many), 422, "too_few_documents", "clusters")
    (farm.root / "blank.txt").write_text("\n\n")
    blank = cluster_spec(farm, corpora=[str(farm.root / "blank.txt")])
    error(await farm.api.post("/v1/forest_jobs", blank), 422, "invalid_corpus", "corpora.0")
    branch = cluster_of(0)
    error(await farm.api.post("/v1/forest_jobs", branch), 422, "no_router", "corpus.cluster")
    error(await weigh_by_the_router(farm), 422, "no_router", "ensemble.weighting")
    # Enough documents, but not enough that train.
    few = await farm.fails(cluster_spec(farm, clusters=75))
    assert (few["code"], few["param"]) == ("too_few_documents", "clusters")
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    missing = await farm.fails(cluster_spec(farm))
    assert missing["code"] == "not_installed"
    assert "evo-merging[forest]" in missing["message"]
    monkeypatch.undo()
    await farm.run(cluster_spec(farm))
    beyond = {**branch, "corpus": {"cluster": 2}}
    error(await farm.api.post("/v1/forest_jobs", beyond), 422, "not_found", "corpus.cluster")
    assert (await farm.api.post("/v1/forest_jobs/estimate", cluster_spec(farm))).json()[
        "steps"
    ] == 0


async def test_a_cancelled_clustering_leaves_nothing(farm: Plantation) -> None:
    job_id = await farm.create(cluster_spec(farm, count=3000))
    async with farm.worker() as task:
        await farm.until(job_id, lambda row: row.status == "running", task)
        await farm.api.post(f"/v1/forest_jobs/{job_id}/cancel")
        await farm.until(job_id, lambda row: row.finished_at is not None, task)
    assert (await farm.job(job_id))["status"] == "cancelled"
    assert not (farm.settings.data_dir / "artifacts" / job_id).exists()
    assert (await farm.forest())["router"] is None
    assert farm.scratch() == []


async def test_a_killed_clustering_comes_to_the_same(farm: Plantation) -> None:
    spec = cluster_spec(farm, count=3000, clusters=8)
    straight = await farm.run(spec)
    killed = await farm.create(spec)
    process = farm.process()
    try:
        await farm.until(killed, lambda row: row.progress.get("stage") == "clustering")
    finally:
        process.kill()
        await process.wait()
    row = await jobs.get_job(farm.database, killed)
    assert row.finished_at is None
    assert not (farm.settings.data_dir / "artifacts" / killed).exists()
    (again,) = await farm.finish(killed)
    assert again["clustering"] == straight["clustering"]
    home = farm.settings.data_dir / "artifacts"
    assert bytes_of(home / killed) == bytes_of(home / straight["forest_job_id"])
    assert (await farm.job(killed))["attempts"] == 2
