"""Jobs over the weights of a real (tiny) forest, through the process's own wiring."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.app.worker.conftest import Shop
from tests.support import jobs
from tests.support.checkpoint_jobs import FOREST_SPEC, make_tiny_forest
from tests.support.elms import make_elm, tensors_of
from tests.support.lora_jobs import TinyPool
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.app.db.models import Job
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.worker.checkpoint_benches import CheckpointBenches
from evomerge.app.worker.inputs import read_data
from evomerge.app.worker.process import work
from evomerge.connectors.local.base_model import load_base
from evomerge.connectors.local.checkpoint_evaluator import Unchanged
from evomerge.connectors.local.evaluator import LocalEvaluator
from evomerge.evaluation import Example
from evomerge.merging.checkpoint.lineage import read_lineage
from evomerge.merging.forest.prior import estimate
from evomerge.merging.lora.population import Population
from evomerge.optimizers.candidate import Candidate

SHORT = {"method": {"name": "random", "population": 4, "evaluations": 8}}
BASELINES = ["winner", "base", "best_expert", "uniform", "argmax", "posterior", "btm_ensemble"]


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> TinyPool:
    return make_tiny_forest(tmp_path_factory.mktemp("forest"))


async def run(shop: Shop, forest: TinyPool, job_id: str = "mj_1", **spec: Any) -> Job:
    """Run one job as a worker process does."""
    await jobs.add_job(shop.database, forest.inputs, job_id, **{**FOREST_SPEC, **SHORT, **spec})
    url = shop.database.url.render_as_string(hide_password=False)
    stopping = asyncio.Event()
    task = asyncio.create_task(work(forest.settings(url, shop.folder), stopping))

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


on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@on_sqlite
@pytest.mark.parametrize(
    "spec", [{}, {"layer_groups": 2, "output": {"dtype": "bfloat16"}}], ids=["plain", "groups"]
)
async def test_a_job_leaves_a_checkpoint_with_its_proof(
    shop: Shop, forest: TinyPool, spec: dict[str, Any]
) -> None:
    job = await run(shop, forest, **spec)
    assert job.status == "succeeded", job.error
    assert job.result is not None
    folder = shop.folder / "artifacts" / "mj_1"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["forest"] == "grove"
    assert manifest["hashes"]["base"] == forest.inputs.seed.content_hash  # type: ignore[union-attr]
    assert manifest["winner"] == job.result["winner"]
    assert str(forest.folder) not in (folder / "manifest.json").read_text()
    card = (folder / "README.md").read_text()
    assert "A checkpoint made of the seed of forest grove and its ELMs" in card
    assert "library_name: transformers" in card
    (entropy, matches) = job.result["held_out"]
    assert [one["name"] for one in entropy["contenders"]] == BASELINES
    assert [one["name"] for one in matches["contenders"]] == BASELINES[:-1]
    # It loads by itself, and is what was proven.
    data = read_data(MergeJobSpec.model_validate(job.spec), forest.inputs.datasets).held_out
    losses = await scored(folder, data.examples)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert model.dtype == (torch.bfloat16 if "output" in spec else torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert AutoTokenizer.from_pretrained(folder)("ab").input_ids
    log = {row[:4]: row for row in await shop.log()}
    first = log[min(key for key in log if key[1] == "held_out")]
    assert np.array_equal(np.frombuffer(first[7], "<f8"), losses)  # type: ignore[call-overload]
    # Its lineage tells what it is made of.
    lineage = read_lineage(folder)
    beta = job.result["winner"]["beta"]
    assert [parent.content_hash for parent in lineage.parents] == [
        expert.content_hash for expert in forest.inputs.experts
    ]
    assert [parent.weight for parent in lineage.parents] == pytest.approx(
        [np.mean(values) for values in beta.values()]
    )


@on_sqlite
async def test_the_averages_and_the_ensemble_are_what_they_are_called(
    shop: Shop, forest: TinyPool
) -> None:
    """Beside checkpoints averaged by hand, and log-probabilities of ELMs that were loaded."""
    job = await run(shop, forest)
    assert job.result is not None, job.error
    spec = MergeJobSpec.model_validate(job.spec)
    data = read_data(spec, forest.inputs.datasets)
    order = np.random.default_rng(spec.seed).permutation(len(data.search.examples))
    bases = [load_base(folder, threads=1) for folder in forest.inputs.folders]
    rows = LocalEvaluator(bases[0], Unchanged()).rows(data.search.examples)
    read = [by_transformers(forest, rows[place].tokens) for place in order]
    posterior = estimate(read)
    found = {one["name"]: one["loss"] for one in job.result["held_out"][0]["contenders"]}
    expected = {
        "uniform": np.full(4, 0.25),
        "argmax": np.eye(4)[posterior.argmax()],
        "posterior": posterior,
    }
    for name, weights in expected.items():
        folder = averaged(shop.folder / name, forest, weights)
        losses = await scored(folder, data.held_out.examples)
        weights = LocalEvaluator(bases[0], Unchanged()).weights(data.held_out.examples)
        assert found[name] == pytest.approx(np.average(losses, weights=weights), abs=1e-4), name
    assert found["best_expert"] != pytest.approx(found["uniform"])
    nll, count = 0.0, 0
    for row in LocalEvaluator(bases[0], Unchanged()).rows(data.held_out.examples):
        every = by_transformers(forest, row.tokens)
        joint = np.log(posterior) + every.sum(1)
        before = np.log(posterior) + every[:, : -row.scored].sum(1)
        nll += float(np.logaddexp.reduce(before) - np.logaddexp.reduce(joint))
        count += row.scored
    assert found["btm_ensemble"] == pytest.approx(nll / count, abs=1e-4)


def by_transformers(forest: TinyPool, tokens: tuple[int, ...]) -> np.ndarray:
    """(N, T - 1) log-probabilities of all tokens but the first."""
    ids = torch.tensor([tokens])
    found = []
    for folder in forest.inputs.folders:
        logits = AutoModelForCausalLM.from_pretrained(folder)(ids).logits[0, :-1].detach()
        logs = torch.log_softmax(logits.double(), -1)
        found.append(logs.gather(1, ids[0, 1:, None])[:, 0].numpy())
    return np.stack(found)


def averaged(folder: Path, forest: TinyPool, weights: np.ndarray) -> Path:
    """The average by plain torch."""
    shutil.copytree(forest.inputs.folders[0], folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    members = [tensors_of(each) for each in forest.inputs.folders]
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(
                sum(w * own[name] for w, own in zip(weights.tolist(), members, strict=True))
            )
    model.save_pretrained(folder)
    return folder


async def test_the_posterior_never_reads_what_is_held_out(forest: TinyPool, tmp_path: Path) -> None:
    spec = MergeJobSpec.model_validate({**FOREST_SPEC, **SHORT})
    data = read_data(spec, forest.inputs.datasets)
    benches = CheckpointBenches(forest.settings("", tmp_path))
    ready = benches.prepare(spec, forest.inputs, data)
    swapped = type(data)(data.search, type(data.held_out)((), data.held_out.objective))
    again = benches.prepare(spec, forest.inputs, swapped)
    for name, baseline in ready.baselines.items():
        assert np.array_equal(baseline.candidate.beta, again.baselines[name].candidate.beta)
    (start,) = ready.bench.starts()
    np.testing.assert_allclose(ready.baselines["posterior"].candidate.beta[0], start, atol=0.0006)


@on_sqlite
@pytest.mark.parametrize("what", ["seed", "elm-2"])
@pytest.mark.parametrize("how", ["changed", "gone"])
async def test_what_has_changed_is_named(shop: Shop, tmp_path: Path, what: str, how: str) -> None:
    forest = make_tiny_forest(tmp_path / "forest")
    path = forest.folder / what
    shutil.rmtree(path)
    if how == "changed":
        make_elm(path, forest.folder / "elm-0", 9)
    job = await run(shop, forest)
    assert job.error is not None
    assert job.error["code"] == "input_changed"
    named = "the seed of forest 'grove'" if what == "seed" else f"ELM {what!r}"
    assert f"{named} has {how}" in job.error["message"]
    assert await shop.log() == []


@on_sqlite
async def test_an_elm_of_another_seed_is_refused_before_anything_is_scored(
    shop: Shop, tmp_path: Path
) -> None:
    forest = make_tiny_forest(tmp_path / "forest")
    lost = forest.folder / "elm-1"
    (lost / "elm.json").unlink()
    job = await run(shop, forest)
    assert job.error is not None
    assert job.error["code"] == "merge_failed"
    assert "ELM 'elm-1' does not fit 'grove': lineage" in job.error["message"]
    assert await shop.log() == []


@on_sqlite
async def test_a_row_beyond_the_context_is_refused_before_anything_is_scored(
    shop: Shop, forest: TinyPool
) -> None:
    objective = {**FOREST_SPEC["objective"], "max_new_tokens": 256}
    job = await run(shop, forest, objective=objective)
    assert job.error is not None
    assert job.error["code"] == "model_failed"
    assert await shop.log() == []


def test_a_bench_merges_nothing_into_its_inputs(forest: TinyPool, tmp_path: Path) -> None:
    spec = MergeJobSpec.model_validate({**FOREST_SPEC, **SHORT})
    data = read_data(spec, forest.inputs.datasets)
    ready = CheckpointBenches(forest.settings("", tmp_path)).prepare(spec, forest.inputs, data)
    before = [path.stat() for path in sorted(forest.folder.rglob("*"))]
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    ready.bench.merge(Candidate(np.ones((1, 4)), np.full((1, 4), 0.3))).write(fresh)
    after = [path.stat() for path in sorted(forest.folder.rglob("*"))]
    assert [s.st_mtime_ns for s in before] == [s.st_mtime_ns for s in after]
    assert not (fresh / "README.md").exists()
