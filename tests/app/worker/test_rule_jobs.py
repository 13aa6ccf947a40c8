"""Jobs that merge task vectors by rule, over adapters and over a forest, as a worker runs them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.app.worker.conftest import Shop
from tests.support import jobs
from tests.support.checkpoint_jobs import FOREST_SPEC, make_tiny_forest
from tests.support.lora_jobs import SPEC, TinyPool, make_tiny_pool
from tests.support.rules import RULES, rule_method
from transformers import AutoModelForCausalLM

from evomerge.app.db.models import Job
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.worker.benches import LoraBenches
from evomerge.app.worker.inputs import read_data
from evomerge.app.worker.process import work
from evomerge.connectors.local.base_model import load_base
from evomerge.connectors.local.checkpoint_evaluator import Unchanged
from evomerge.connectors.local.evaluator import LocalEvaluator
from evomerge.evaluation import Example
from evomerge.merging.checkpoint.lineage import read_lineage
from evomerge.merging.lora.adapter import read_adapter
from evomerge.merging.lora.population import Population
from evomerge.optimizers import Candidate
from evomerge.optimizers.candidate import one_hot

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> TinyPool:
    return make_tiny_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> TinyPool:
    return make_tiny_forest(tmp_path_factory.mktemp("forest"))


async def run(shop: Shop, ground: TinyPool, spec: dict[str, Any], job_id: str = "mj_1") -> Job:
    """Run one job as a worker process does."""
    await jobs.add_job(shop.database, ground.inputs, job_id, **spec)
    url = shop.database.url.render_as_string(hide_password=False)
    stopping = asyncio.Event()
    task = asyncio.create_task(work(ground.settings(url, shop.folder), stopping))

    async def ended() -> bool:
        return (await jobs.get_job(shop.database, job_id)).finished_at is not None

    await jobs.until(ended, task)
    stopping.set()
    await task
    return await jobs.get_job(shop.database, job_id)


async def scored(folder: Path, examples: tuple[Example, ...]) -> np.ndarray:
    """Losses of a checkpoint that is loaded from its folder."""
    evaluator = LocalEvaluator(load_base(folder, threads=1), Unchanged(), batch_tokens=512)
    return (await evaluator.score_population(Population(1, {}), examples)).losses[0]


@pytest.mark.parametrize("rule", RULES)
async def test_a_rule_leaves_the_checkpoint_that_was_proven(
    shop: Shop, pool: TinyPool, rule: str
) -> None:
    job = await run(shop, pool, SPEC | {"method": rule_method(rule, top_k=3)})
    assert job.status == "succeeded", job.error
    assert job.result is not None
    folder = shop.folder / "artifacts" / "mj_1"
    (entropy, matches) = job.result["held_out"]
    names = ["winner", "base", "best_expert", "uniform"]
    assert [one["name"] for one in entropy["contenders"]] == names
    assert [one["name"] for one in matches["contenders"]] == names
    # Loaded from its files, it loses to the bit what the proof says.
    data = read_data(MergeJobSpec.model_validate(job.spec), pool.inputs.datasets).held_out
    losses = await scored(folder, data.examples)
    log = {row[:4]: row for row in await shop.log()}
    first = log[min(key for key in log if key[1] == "held_out")]
    assert np.array_equal(np.frombuffer(first[7], "<f8"), losses)  # type: ignore[call-overload]
    beta = job.result["winner"]["beta"]
    assert sorted(value != [0.0] for value in beta.values()) == [False, True, True, True]
    assert "A checkpoint made of tiny" in (folder / "README.md").read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["spec"]["method"]["name"] == rule


async def test_a_rank_makes_an_adapter_of_it(shop: Shop, pool: TinyPool) -> None:
    output = {"rank": 5, "dtype": "float32"}
    job = await run(shop, pool, SPEC | {"method": rule_method("ties"), "output": output})
    assert job.status == "succeeded", job.error
    assert job.result is not None
    folder = shop.folder / "artifacts" / "mj_1"
    adapter = read_adapter(folder)
    assert {shape.rank for shape in adapter.shapes.values()} == {5}
    spec = MergeJobSpec.model_validate({**SPEC, "method": {"name": "best_expert"}})
    stored = pool.inputs.experts[0].model_copy(
        update={"path": folder, "content_hash": adapter.content_hash}
    )
    inputs = pool.inputs.model_copy(update={"experts": [stored]})
    bench = LoraBenches(pool.settings("", shop.folder)).bench(spec, inputs)
    held_out = read_data(spec, inputs.datasets).held_out
    scores = await bench.plain("cross_entropy").score([one_hot(0, 1)], held_out.examples)
    loss = held_out.objective.means(scores.losses, scores.weights)[0]
    proven = job.result["held_out"][0]["contenders"][0]["loss"]
    assert loss == pytest.approx(proven, abs=1e-6)


async def test_a_rule_over_a_forest(shop: Shop, forest: TinyPool) -> None:
    job = await run(
        shop, forest, FOREST_SPEC | {"method": rule_method("dare_ties", order=["elm-2", "elm-0"])}
    )
    assert job.status == "succeeded", job.error
    assert job.result is not None
    folder = shop.folder / "artifacts" / "mj_1"
    data = read_data(MergeJobSpec.model_validate(job.spec), forest.inputs.datasets).held_out
    losses = await scored(folder, data.examples)
    log = {row[:4]: row for row in await shop.log()}
    first = log[min(key for key in log if key[1] == "held_out")]
    assert np.array_equal(np.frombuffer(first[7], "<f8"), losses)  # type: ignore[call-overload]
    beta = job.result["winner"]["beta"]
    assert [value != [0.0] for value in beta.values()] == [True, False, True, False]
    assert len(read_lineage(folder).parents) == 2
    assert AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype == torch.float32


@pytest.mark.parametrize("name", ["base", "best_expert", "uniform"])
async def test_a_baseline_is_a_job_and_loses_what_the_report_says(
    shop: Shop, pool: TinyPool, name: str
) -> None:
    output = {"dtype": "float32"}
    job = await run(shop, pool, SPEC | {"method": {"name": name}, "output": output})
    assert job.status == "succeeded", job.error
    assert job.result is not None
    found = {one["name"]: one["loss"] for one in job.result["held_out"][0]["contenders"]}
    assert found["winner"] == pytest.approx(found[name], abs=1e-5)
    assert job.result["usage"]["search"]["evaluations"] == (4 if name == "best_expert" else 5)


async def test_experts_alone_are_themselves_under_a_rule(shop: Shop, pool: TinyPool) -> None:
    """Breadcrumbs would drop their largest weights."""
    settings = pool.settings("", shop.folder)
    spec = MergeJobSpec.model_validate({**SPEC, "method": {"name": "breadcrumbs", "gamma": 0.3}})
    data = read_data(spec, pool.inputs.datasets).search
    bench = LoraBenches(settings).bench(spec, pool.inputs)
    both = Candidate(np.ones((1, 4)), np.array([[1.0, 1.0, 0.0, 0.0]]))
    asked = [one_hot(1, 4), both, one_hot(2, 4)]
    ruled = await bench.evaluator("cross_entropy").score(asked, data.examples)
    plain = await bench.plain("cross_entropy").score(asked, data.examples)
    assert np.allclose(ruled.losses[[0, 2]], plain.losses[[0, 2]], atol=1e-6)
    assert not np.allclose(ruled.losses[1], plain.losses[1], atol=1e-4)
    alone = bench.merge(one_hot(1, 4)).evaluator("cross_entropy")
    stored = await alone.score([one_hot(1, 4)], data.examples)
    assert np.allclose(stored.losses[0], plain.losses[0], atol=1e-4)


async def test_lorahub_is_a_job(shop: Shop, pool: TinyPool) -> None:
    pytest.importorskip("nevergrad", reason="needs the extra baselines")
    job = await run(shop, pool, SPEC | {"method": {"name": "lorahub", "evaluations": 12}})
    assert job.status == "succeeded", job.error
    assert job.result is not None
    assert job.spec["composition"] == "factor"
    assert job.result["usage"]["search"]["evaluations"] == 4 + 12
    assert job.result["winner"]["stage"] == "lorahub"
    assert read_adapter(shop.folder / "artifacts" / "mj_1").modules
