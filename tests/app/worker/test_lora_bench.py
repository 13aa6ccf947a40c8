"""Jobs over real (tiny) models, through the process's own wiring."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from tests.app.worker.conftest import Shop
from tests.support import jobs
from tests.support.lora_jobs import SPEC, TinyPool, make_tiny_pool
from tests.support.tiny import make_adapter, make_base

from evomerge.app.db.models import Job
from evomerge.app.schemas.inputs import ExpertInput
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.worker.benches import LoraBenches
from evomerge.app.worker.inputs import read_data
from evomerge.app.worker.process import versions, work
from evomerge.connectors.local.headers import content_hash
from evomerge.connectors.vllm import RANKS
from evomerge.merging.lora.adapter import read_adapter
from evomerge.optimizers.candidate import one_hot

SHORT = {"method": {"name": "random", "population": 4, "evaluations": 8}}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> TinyPool:
    return make_tiny_pool(tmp_path_factory.mktemp("pool"))


async def run(shop: Shop, pool: TinyPool, job_id: str = "mj_1", **spec: Any) -> Job:
    """Run one job as a worker process does."""
    await jobs.add_job(shop.database, pool.inputs, job_id, **{**SPEC, **SHORT, **spec})
    url = shop.database.url.render_as_string(hide_password=False)
    stopping = asyncio.Event()
    task = asyncio.create_task(work(pool.settings(url, shop.folder), stopping))

    async def ended() -> bool:
        return (await jobs.get_job(shop.database, job_id)).finished_at is not None

    await jobs.until(ended, task)
    stopping.set()
    await task
    return await jobs.get_job(shop.database, job_id)


pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.mark.parametrize(
    "spec",
    [
        {"composition": "factor", "layer_groups": 2},
        {"output": {"dtype": "float32", "rank": 3, "full_checkpoint": True}},
    ],
)
async def test_a_job_leaves_an_adapter_with_its_proof(
    shop: Shop, pool: TinyPool, spec: dict[str, Any]
) -> None:
    job = await run(shop, pool, **spec)
    assert job.status == "succeeded", job.error
    assert job.result is not None
    folder = shop.folder / "artifacts" / "mj_1"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["hashes"] == job.result["hashes"]
    assert manifest["hashes"]["experts"] == {
        expert.name: expert.content_hash for expert in pool.inputs.experts
    }
    assert manifest["winner"] == job.result["winner"]
    assert manifest["versions"] == versions()
    assert str(pool.folder) not in (folder / "manifest.json").read_text()
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as tensors:
        assert len(tensors.keys()) == 2 * 7 * 2
    groups = spec.get("layer_groups", 1)
    assert all(len(values) == groups for values in job.result["winner"]["beta"].values())
    assert (folder / "checkpoint" / "model.safetensors").exists() == ("output" in spec)
    listed = {each["name"] for each in job.result["artifacts"]}
    assert "adapter_model.safetensors" in listed
    assert ("checkpoint/model.safetensors" in listed) == ("output" in spec)


async def test_the_winner_is_proven_as_it_is_stored(shop: Shop, pool: TinyPool) -> None:
    job = await run(shop, pool, objective={**SPEC["objective"], "held_out": 0.25})
    assert job.result is not None, job.error
    (entropy, matches) = job.result["held_out"]
    assert (entropy["metric"], matches["metric"]) == ("cross_entropy", "exact_match")
    assert entropy["examples"] == job.result["held_out_examples"] == 4
    assert job.result["search_examples"] == 12
    folder = shop.folder / "artifacts" / "mj_1"
    stored = ExpertInput(
        id="ex", name="merged", path=folder, content_hash=read_adapter(folder).content_hash
    )
    spec = MergeJobSpec.model_validate(job.spec)
    inputs = pool.inputs.model_copy(update={"experts": [stored]})
    bench = LoraBenches(pool.settings("", shop.folder)).bench(spec, inputs)
    held_out = read_data(spec, inputs.datasets).held_out
    scores = await bench.plain("cross_entropy").score([one_hot(0, 1)], held_out.examples)
    loss = held_out.objective.means(scores.losses, scores.weights)[0]
    assert loss == pytest.approx(entropy["contenders"][0]["loss"], abs=1e-6)


async def test_a_changed_adapter_is_refused(shop: Shop, tmp_path: Path) -> None:
    pool = make_tiny_pool(tmp_path / "pool", experts=2)
    make_adapter(tmp_path / "pool" / "expert-1", tmp_path / "pool" / "base", seed=99)
    job = await run(shop, pool)
    assert job.error is not None
    assert job.error["code"] == "input_changed"
    assert "expert-1" in job.error["message"]


async def test_a_changed_base_is_refused(shop: Shop, tmp_path: Path) -> None:
    pool = make_tiny_pool(tmp_path / "pool", experts=2)
    base = tmp_path / "pool" / "base"
    fixed = TinyPool(pool.folder, pool.inputs.model_copy(update={"base_hash": content_hash(base)}))
    job = await run(shop, fixed)
    assert job.status == "succeeded", job.error
    assert job.result is not None
    assert job.result["hashes"]["base"] == fixed.inputs.base_hash
    config = json.loads(shop.artifacts()["adapter_config.json"])
    warned = [event.data["rank"] for event in await shop.events() if event.level == "warn"]
    assert warned == ([] if config["r"] in RANKS else [config["r"]])
    make_base(base, seed=5)
    job = await run(shop, fixed, "mj_2")
    assert job.error is not None
    assert job.error["code"] == "input_changed"
    assert "base model 'tiny' has changed" in job.error["message"]


async def test_a_row_beyond_the_context_is_refused_before_anything_is_scored(
    shop: Shop, pool: TinyPool
) -> None:
    job = await run(shop, pool, objective={**SPEC["objective"], "max_new_tokens": 256})
    assert job.error is not None
    assert job.error["code"] == "model_failed"
    assert await shop.log() == []


async def test_a_base_that_the_worker_lacks_is_named(shop: Shop, pool: TinyPool) -> None:
    other = TinyPool(pool.folder, pool.inputs.model_copy(update={"base": "large"}))
    job = await run(shop, other)
    assert job.error is not None
    assert job.error["code"] == "unknown_base"
    assert "'large'" in job.error["message"]
    assert "tiny" in job.error["message"]
