"""Jobs over forests, from the API to their end, on both databases."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.app.api.client import Json
from tests.support.changed_models import refuses_changed_weights
from tests.support.corpora import bytes_of, make_corpus
from tests.support.forest_jobs import ARCHITECTURE, BATCH, Plantation, plantation, recipe
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.merging.checkpoint.files import content_hash


@pytest.fixture
async def farm(database_url: str, tmp_path: Path) -> AsyncIterator[Plantation]:
    async with plantation(tmp_path, database_url) as farm:
        yield farm


async def test_a_forest_from_its_seed_to_its_report(farm: Plantation) -> None:
    seed = await farm.run(farm.seed_spec("north", "south"))
    forest = await farm.forest()
    assert seed["forest_id"] == forest["id"]
    assert forest["seed"]["content_hash"] == seed["checkpoint"]["content_hash"]
    assert seed["training"]["domain_tokens"] == {"north": 6 * BATCH, "south": 6 * BATCH}
    assert "path" not in json.dumps(seed)

    # Both at once, on two workers, each seeing the seed alone.
    first, second = [
        await farm.create(farm.branch_spec(domain, start="seed")) for domain in ("north", "south")
    ]
    async with farm.worker():
        north, south = await farm.finish(first, second)
    forest = await farm.forest()
    assert {elm["name"] for elm in forest["elms"]} == {"north", "south"}
    for result, name in ((north, "north"), (south, "south")):
        elm = (await farm.api.get(f"/v1/forests/grove/elms/{name}")).json()
        assert elm["id"] == result["elm_id"]
        assert elm["content_hash"] == content_hash(farm.elm_folder(result))
        assert elm["lineage"]["seed_hash"] == seed["checkpoint"]["content_hash"]
        assert elm["tokens"] == 24 * BATCH
        assert result["training"]["parents"] == {"seed": 1.0}

    third = await farm.run(farm.branch_spec("east", start="average", elm="new"))
    assert third["training"]["parents"].keys() == {"north", "south"}
    assert sum(third["training"]["posterior"].values()) == pytest.approx(1)

    weights = {"north": 0.75, "south": 0.25}
    spec = {"type": "average", "forest": "grove", "weights": weights, "serve_as": "both"}
    average = await farm.run(spec)
    folder = farm.settings.data_dir / "artifacts" / average["forest_job_id"]
    models = [
        AutoModelForCausalLM.from_pretrained(each).state_dict()
        for each in (folder, farm.elm_folder(north), farm.elm_folder(south))
    ]
    for name, value in models[0].items():
        expected = (0.75 * models[1][name].double() + 0.25 * models[2][name].double()).float()
        assert torch.equal(value, expected), name
    assert average["average"]["weights"] == {**weights, "new": 0.0}
    await refuses_changed_weights(farm.api, "both", folder)
    assert await _said(farm, "both") == _written(folder)
    listed = (await farm.api.get("/v1/models")).json()["data"]
    kinds = {one["id"]: one["evomerge"]["kind"] for one in listed}
    assert kinds == {"both": "average", "grove": "forest"}

    report = await farm.run(farm.evaluate_spec("north", "south", "west"))
    evaluation = report["evaluation"]
    assert [one["trained"] for one in evaluation["domains"]] == [True, True, False]
    assert evaluation["seed_share"] == pytest.approx(12 / 48)
    rows = [row["model"] for row in evaluation["models"]]
    # Of two that trained at once, the first to end joined first.
    assert rows == [
        "seed",
        *(f"elm:{elm['name']}" for elm in forest["elms"]),
        "elm:new",
        "ensemble:top-1",
        "ensemble:top-2",
        "ensemble:all",
        "average:uniform",
        "average:argmax",
        "average:posterior",
    ]
    assert all(row["all"]["domains"] == 3 for row in evaluation["models"])
    assert farm.scratch() == []


async def test_what_runs_is_seen_in_events_and_progress(farm: Plantation) -> None:
    job_id = await farm.create(farm.seed_spec("north"))
    await farm.finish(job_id)
    job = await farm.job(job_id)
    assert job["progress"]["stage"] == "done"
    assert job["progress"]["step"] == job["progress"]["planned_steps"] == 12
    assert job["progress"]["tokens_per_second"] > 0
    events = await farm.events(job_id)
    metrics = [event["data"] for event in events if event["type"] == "metrics"]
    assert [one["step"] for one in metrics] == list(range(1, 13))
    assert all(one["loss"] > 0 and one["tokens"] == one["step"] * BATCH for one in metrics)
    assert events[-1]["data"] == {"status": "succeeded"}
    listed = (await farm.api.get(f"/v1/forest_jobs/{job_id}/artifacts")).json()["data"]
    assert {"config.json", "model.safetensors", "elm.json"} <= {one["name"] for one in listed}
    got = await farm.api.get(f"/v1/forest_jobs/{job_id}/artifacts/elm.json")
    assert got.json()["own_tokens"] == 12 * BATCH


@pytest.mark.parametrize(
    ("budget", "name", "steps"),
    [({"steps": 7}, "steps", 7), ({"tokens": 8 * BATCH + 1, "steps": 11}, "tokens", 8)],
)
async def test_a_budget_ends_a_training_with_the_elm_as_it_is(
    farm: Plantation, budget: Json, name: str, steps: int
) -> None:
    result = await farm.run(farm.seed_spec("north", budget=budget))
    assert result["ended_by"] == name
    assert result["training"]["steps"] == steps
    assert result["training"]["planned_steps"] == 12
    assert result["checkpoint"]["lineage"]["own_tokens"] == steps * BATCH
    events = await farm.events(result["forest_job_id"])
    assert any(event["data"].get("budget") == name for event in events)
    assert (await farm.forest())["seed"]["content_hash"] == result["checkpoint"]["content_hash"]


async def test_a_budget_of_time_ends_a_training_between_two_steps(farm: Plantation) -> None:
    spec = farm.seed_spec("north", recipe=recipe(tokens=10**9), budget={"seconds": 2.0})
    result = await farm.run(spec)
    assert result["ended_by"] == "seconds"
    assert 0 < result["training"]["steps"] < result["training"]["planned_steps"]
    lineage = result["checkpoint"]["lineage"]
    assert lineage["own_tokens"] == result["training"]["steps"] * BATCH
    error = await farm.fails({**spec, "forest": None, "budget": {"seconds": 1e-9}})
    assert (error["code"], error["param"]) == ("budget_too_small", "budget.seconds")


async def test_a_paused_training_goes_on_to_the_same_bits(farm: Plantation) -> None:
    long = recipe(tokens=60 * BATCH)
    (straight,) = await farm.finish(await farm.create(farm.seed_spec("north", recipe=long)))
    job_id = await farm.create(farm.seed_spec("north", recipe=long, forest=None))
    for step in (8, 30):
        async with farm.worker() as task:
            await farm.until(job_id, _at(step), task)
            response = await farm.api.post(f"/v1/forest_jobs/{job_id}/pause")
            assert response.json()["status"] == "pausing"
            await farm.until(job_id, lambda row: row.status == "paused", task)
        assert [name.partition(".")[0] for name in farm.scratch()] == [job_id]
        await farm.api.post(f"/v1/forest_jobs/{job_id}/resume")
    (result,) = await farm.finish(job_id)
    assert result["checkpoint"] == straight["checkpoint"]
    assert result["training"] == straight["training"]
    steps = [e["data"]["step"] for e in await farm.events(job_id) if e["type"] == "metrics"]
    assert steps == sorted(set(steps))
    assert farm.scratch() == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_two_processes_share_a_training(farm: Plantation) -> None:
    alone = await farm.run(farm.seed_spec("north"))
    shared = await farm.run(farm.seed_spec("north", forest=None, processes=2))
    assert (alone["training"]["processes"], shared["training"]["processes"]) == (1, 2)
    losses = [each["training"]["dev_losses"]["north"] for each in (alone, shared)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    # The sums were in another order, so that this was not one process twice.
    assert shared["checkpoint"]["content_hash"] != alone["checkpoint"]["content_hash"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_training_goes_where_the_settings_say(tmp_path: Path, database_url: str) -> None:
    async with plantation(tmp_path, database_url, device="cuda:99") as farm:
        error = await farm.fails(farm.seed_spec("north"))
    assert error["code"] == "invalid_placement"
    assert error["message"].startswith("device='cuda:99': there are ")


async def test_a_cancelled_training_leaves_nothing(farm: Plantation) -> None:
    job_id = await farm.create(farm.seed_spec("north", recipe=recipe(tokens=10**8)))
    async with farm.worker() as task:
        await farm.until(job_id, _at(3), task)
        await farm.api.post(f"/v1/forest_jobs/{job_id}/cancel")
        await farm.until(job_id, lambda row: row.status == "cancelled", task)
    assert farm.scratch() == []
    elms = farm.settings.data_dir / "elms"
    assert not elms.is_dir() or list(elms.iterdir()) == []
    assert (await farm.api.get("/v1/forests/grove")).status_code == 404


async def test_what_the_others_were_stays_to_the_byte(farm: Plantation) -> None:
    seed = await farm.run(farm.seed_spec("north", "south"))
    first = await farm.run(farm.branch_spec("north"))
    before = [bytes_of(farm.elm_folder(one)) for one in (seed, first)]
    await farm.run(farm.branch_spec("south"))
    assert [bytes_of(farm.elm_folder(one)) for one in (seed, first)] == before


async def test_errors_that_show_only_once_a_worker_reads(farm: Plantation) -> None:
    error = await farm.fails(
        farm.seed_spec(
            "north",
            recipe=recipe(block_tokens=4096, batch_blocks=1, tokens=4096),
            architecture={**ARCHITECTURE, "context": 4096},
        )
    )
    assert (error["code"], error["param"]) == ("corpus_too_small", "recipe.block_tokens")
    assert "'north'" in error["message"]
    assert (await farm.api.get("/v1/forests/grove")).status_code == 404
    assert not (farm.settings.data_dir / "elms").exists()

    spec = farm.seed_spec("south")
    job_id = await farm.create(spec)
    make_corpus(farm.root, "south", 41)
    async with farm.worker() as task:
        await farm.until(job_id, lambda row: row.finished_at is not None, task)
    assert (await farm.job(job_id))["error"]["code"] == "input_changed"


async def test_an_elm_that_has_changed_is_not_branched_from(farm: Plantation) -> None:
    seed = await farm.run(farm.seed_spec("north"))
    config = farm.elm_folder(seed) / "config.json"
    job_id = await farm.create(farm.branch_spec("north"))
    config.write_text(config.read_text() + "\n")
    async with farm.worker() as task:
        await farm.until(job_id, lambda row: row.finished_at is not None, task)
    error = (await farm.job(job_id))["error"]
    assert (error["code"], error["message"]) == (
        "input_changed",
        "the seed has changed since the job was created",
    )


async def test_a_name_taken_meanwhile_fails_and_costs_no_training(farm: Plantation) -> None:
    seed = await farm.run(farm.seed_spec("north"))
    job_id = await farm.create(farm.branch_spec("south", elm="taken"))
    body = {"seed": True, "domain": "everything", "name": "taken"}
    assert (await farm.api.post("/v1/forests/grove/elms", body)).status_code == 201
    async with farm.worker() as task:
        await farm.until(job_id, lambda row: row.finished_at is not None, task)
    job = await farm.job(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "name_taken")
    await farm.api.post("/v1/forests/grove/elms", {**body, "name": "other"})
    await farm.api.http.delete("/v1/forests/grove/elms/taken")
    told = len(await farm.events(job_id))
    await farm.api.post(f"/v1/forest_jobs/{job_id}/resume")
    (result,) = await farm.finish(job_id)
    assert result["checkpoint"]["lineage"]["seed_hash"] == seed["checkpoint"]["content_hash"]
    again = (await farm.events(job_id))[told:]
    assert not [event for event in again if event["type"] == "metrics"]
    assert farm.scratch() == []


async def _said(farm: Plantation, model: str) -> str:
    body = {"model": model, "prompt": "12 ", "max_tokens": 8, "temperature": 0}
    response = await farm.api.post("/v1/completions", body)
    return str(response.json()["choices"][0]["text"])


def _written(folder: Path) -> str:
    """The same by transformers alone."""
    words = AutoTokenizer.from_pretrained(folder)
    asked = words("12 ", return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(folder)
    told = model.generate(**asked, max_new_tokens=8, do_sample=False)[0]
    return str(words.decode(told[asked.input_ids.shape[1] :], skip_special_tokens=True))


def _at(step: int) -> Any:
    return lambda row: row.progress.get("step", 0) >= step


async def test_a_worker_taken_for_dead_adds_nothing(
    farm: Plantation, caplog: pytest.LogCaptureFixture
) -> None:
    await farm.run(farm.seed_spec("north"))
    long = recipe(tokens=150 * BATCH)
    (straight,) = await farm.finish(await farm.create(farm.branch_spec("east", recipe=long)))
    job_id = await farm.create(farm.branch_spec("east", recipe=long, elm="again", start="seed"))
    # Its heart does not beat, so that its lease runs out while it trains.
    async with farm.worker(beat_seconds=1000.0, lease_seconds=0.1) as task:
        await farm.until(job_id, _at(5), task)
        async with farm.worker() as second:
            await farm.until(job_id, lambda row: row.lease_token > 1, second)
            await farm.until(job_id, lambda row: row.finished_at is not None, second)
    assert "was lost to another claim" in caplog.text
    result = await farm.result(job_id)
    assert result["checkpoint"] == straight["checkpoint"]
    elms = [elm["name"] for elm in (await farm.forest())["elms"]]
    assert elms == ["east", "again"]
    assert (await farm.job(job_id))["attempts"] == 2
    assert farm.scratch() == []


async def test_workers_end_between_two_steps(farm: Plantation) -> None:
    job_id = await farm.create(farm.seed_spec("north", recipe=recipe(tokens=60 * BATCH)))
    async with farm.worker() as task:
        await farm.until(job_id, _at(10), task)
    job = await farm.job(job_id)
    assert (job["status"], job["attempts"]) == ("queued", 0)
    (result,) = await farm.finish(job_id)
    assert result["training"]["steps"] == 60
