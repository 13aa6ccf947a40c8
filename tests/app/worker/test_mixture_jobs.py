"""Mixtures of a forest's ELMs from the API to the model that they make, held by real runs."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.app.api.client import Json, created
from tests.support import jobs
from tests.support.elms import make_elm
from tests.support.forest_jobs import Plantation, plantation
from tests.support.forests import mixed
from tests.support.tiny import make_base

from evomerge.app.mixtures import FOREST_MIXTURE, StoredMixture
from evomerge.app.schemas.inputs import DatasetInput
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.worker.inputs import read_data
from evomerge.connectors.local.base_model import BaseModel, load_base
from evomerge.evaluation import Example
from evomerge.merging.forest.prior import estimate

SPEC: Json = {
    "pool": "grove",
    "space": "output",
    "objective": {"datasets": [{"dataset": "rows"}]},
    "method": {
        "name": "evo-merging",
        "scaling": {"evaluations": 300, "sign": "nonnegative"},
        "denoising": {"evaluations": 40},
    },
    "serve_as": "mixed",
}
DOMAINS = ("law", "verse", "code")
BASELINES = ["base", "best_expert", "uniform", "argmax", "posterior", "btm_ensemble"]
# What the texts are drawn from.
TRUTH = np.array([0.65, 0.35, 0.0])
TEXTS, LENGTH = 60, 24


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seed, ELMs that differ, and texts that two of them have written together."""
    root = tmp_path_factory.mktemp("grove")
    seed = make_base(root / "seed")
    for number, domain in enumerate(DOMAINS):
        make_elm(root / domain, seed, number, domain=domain, strength=0.15)
    bases = [load_base(root / domain, threads=1) for domain in DOMAINS]
    rows = [json.dumps({"text": text}) for text in written_together(bases)]
    (root / "rows.jsonl").write_text("\n".join(rows))
    return root


def written_together(bases: Sequence[BaseModel]) -> list[str]:
    """Texts of letters, each drawn from the mixture of what the ELMs give to it."""
    words = bases[0].tokenizer
    letters = torch.tensor(words("abcdefghijklmnopqrstuvwxyz").input_ids)
    random = torch.Generator().manual_seed(1)
    tokens = torch.full((TEXTS, 1), int(words.eos_token_id))
    for _ in range(LENGTH):
        with torch.inference_mode():
            given = [base.model(tokens).logits[:, -1].double().softmax(1) for base in bases]
        chances = sum(w * p for w, p in zip(TRUTH.tolist(), given, strict=True))
        drawn = letters[torch.multinomial(chances[:, letters], 1, generator=random)]
        tokens = torch.cat([tokens, drawn], 1)
    return list(words.batch_decode(tokens[:, 1:]))


@pytest.fixture
async def farm(tmp_path: Path, root: Path, database_url: str) -> AsyncIterator[Plantation]:
    async with plantation(tmp_path, database_url) as made:
        shutil.copytree(root, made.root, dirs_exist_ok=True)
        body = {"name": "rows", "path": str(made.root / "rows.jsonl")}
        created(await made.api.post("/v1/datasets", body))
        elms = [{"path": str(made.root / domain)} for domain in DOMAINS]
        forest = {"name": "grove", "seed": {"path": str(made.root / "seed")}, "elms": elms}
        created(await made.api.post("/v1/forests", forest))
        yield made


async def ended(farm: Plantation, job_id: str) -> Json:
    """The job, once a worker has run it."""
    async with farm.worker() as task:

        async def over() -> bool:
            return (await jobs.get_job(farm.database, job_id)).finished_at is not None

        await jobs.until(over, task, 300)
    return dict((await farm.api.get(f"/v1/merge_jobs/{job_id}")).json())


async def run(farm: Plantation, **changes: object) -> tuple[str, Json]:
    """A job from its creation to its result."""
    job = created(await farm.api.post("/v1/merge_jobs", {**SPEC, **changes}))
    done = await ended(farm, job["id"])
    assert done["status"] == "succeeded", done["error"]
    result = (await farm.api.get(f"/v1/merge_jobs/{job['id']}/result")).json()
    return str(job["id"]), dict(result)


def given(base: BaseModel, text: str) -> np.ndarray:
    """(T,) log-probabilities of a text's tokens, by one plain forward."""
    words = base.tokenizer
    ids = torch.tensor([[int(words.eos_token_id), *words(text).input_ids]])
    with torch.inference_mode():
        logs = base.model(ids).logits[0, :-1].double().log_softmax(1)
    return np.asarray(logs.gather(1, ids[0, 1:, None])[:, 0].numpy())


def nats(rows: Sequence[np.ndarray], weights: np.ndarray) -> float:
    """Mean of -log sum_i w_i p_i over all tokens."""
    every = np.concatenate(rows, axis=1)
    return float(-np.log(weights @ np.exp(every)).mean())


def best_weights(rows: Sequence[np.ndarray]) -> np.ndarray:
    """The mixture of least loss, by expectation maximisation."""
    every = np.exp(np.concatenate(rows, axis=1))
    weights = np.full(len(every), 1 / len(every))
    for _ in range(2000):
        parts = weights[:, None] * every
        weights = (parts / parts.sum(0)).mean(1)
    return weights


on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def test_the_right_mixture_is_found_proven_and_served(farm: Plantation) -> None:
    foreseen = (await farm.api.post("/v1/merge_jobs/estimate", SPEC)).json()
    assert (foreseen["tokens_by"], foreseen["requests"]) == ("tokenizer", 0)
    job_id, result = await run(farm)
    bases = [load_base(farm.root / name, threads=1) for name in (*DOMAINS, "seed")]
    *elms, seed = bases
    search, held_out = await sides(farm)
    rows = [np.stack([given(base, one.completion) for base in elms]) for one in search]
    proof = [np.stack([given(base, one.completion) for base in elms]) for one in held_out]

    contenders = {one["name"]: one["loss"] for one in result["held_out"][0]["contenders"]}
    assert list(contenders) == ["winner", *BASELINES]
    # The winner is the best mixture of the search's texts, and wins where it has not looked.
    best = best_weights(rows)
    assert best[2] < 0.15 < min(best[:2])
    stored = StoredMixture.read(farm.settings.data_dir / "artifacts" / job_id)
    weights = np.array(
        [next((v.weight for v in stored.voices if v.name == name), 0.0) for name in DOMAINS]
    )
    assert nats(rows, weights) == pytest.approx(nats(rows, best), abs=2e-3)
    assert contenders["winner"] == pytest.approx(nats(proof, weights), abs=1e-4)
    assert contenders["winner"] < min(contenders[name] for name in BASELINES[:-1])
    # And its baselines are what they are called.
    order = np.random.default_rng(7).permutation(len(search))
    posterior = estimate([rows[place] for place in order])
    tokens = np.concatenate([given(seed, one.completion) for one in held_out])
    assert contenders["base"] == pytest.approx(-tokens.mean(), abs=1e-4)
    alone = [nats(proof, np.eye(3)[n]) for n in range(3)]
    assert contenders["best_expert"] == pytest.approx(min(alone), abs=1e-4)
    assert contenders["uniform"] == pytest.approx(nats(proof, np.full(3, 1 / 3)), abs=1e-4)
    assert contenders["argmax"] == pytest.approx(alone[int(posterior.argmax())], abs=1e-4)
    assert contenders["posterior"] == pytest.approx(nats(proof, posterior), abs=1e-4)
    joint = [np.logaddexp.reduce(np.log(posterior) + each.sum(1)) for each in proof]
    assert contenders["btm_ensemble"] == pytest.approx(-sum(joint) / (LENGTH * 30), abs=1e-4)

    # Every model has read everything once, and the search and the proof nothing.
    assert result["usage"]["reading"]["tokens"] == foreseen["tokens"] == 4 * TEXTS * (LENGTH + 1)
    assert result["usage"]["search"]["tokens"] == result["usage"]["held_out"]["tokens"] == 0
    await check_served(farm, job_id, elms, stored)


async def sides(farm: Plantation) -> tuple[Sequence[Example], Sequence[Example]]:
    """The split that every job of this spec makes."""
    row = await jobs.get_job(
        farm.database, (await farm.api.get("/v1/merge_jobs")).json()["data"][0]["id"]
    )
    data = read_data(
        MergeJobSpec.model_validate(row.spec),
        [DatasetInput.model_validate(one) for one in row.inputs["datasets"]],
    )
    return data.search.examples, data.held_out.examples


async def check_served(
    farm: Plantation, job_id: str, elms: Sequence[BaseModel], stored: StoredMixture
) -> None:
    folder = farm.settings.data_dir / "artifacts" / job_id
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["README.md", FOREST_MIXTURE, "manifest.json"]
    assert str(farm.root) not in (folder / FOREST_MIXTURE).read_text()
    assert (
        "A mixture, token by token, of the ELMs of forest grove"
        in (folder / "README.md").read_text()
    )
    known = dict(zip(DOMAINS, elms, strict=True))
    speaking = [known[voice.name] for voice in stored.voices]
    weights = np.array([voice.weight for voice in stored.voices])
    words = elms[0].tokenizer
    for model in ("mixed", job_id):
        body = {"model": model, "prompt": "a text", "max_tokens": 0, "echo": True, "logprobs": 0}
        response = await farm.api.post("/v1/completions", body)
        assert response.status_code == 200, response.text
        said = response.json()
        ids = list(words("a text").input_ids)
        p, _ = mixed(speaking, weights, ids, fixed=True)
        expected = [float(np.log(p[n, token])) for n, token in enumerate(ids[1:])]
        scored = said["choices"][0]["logprobs"]["token_logprobs"][1:]
        assert scored == pytest.approx(expected, abs=1e-3)
        assert said["evomerge"]["weights"] == pytest.approx(
            {voice.name: voice.weight for voice in stored.voices}
        )
        body = {"model": model, "prompt": "a text", "max_tokens": 5, "temperature": 0}
        written = (await farm.api.post("/v1/completions", body)).json()["choices"][0]["text"]
        for _ in range(5):
            ids.append(int(mixed(speaking, weights, ids, fixed=True)[0][-1].argmax()))
        assert written == words.decode(ids[6:])
    (card,) = [
        one for one in (await farm.api.get("/v1/models")).json()["data"] if one["id"] == "mixed"
    ]
    assert (card["evomerge"]["space"], card["evomerge"]["base"]) == ("output", None)


async def test_a_repeated_job_reads_nothing_and_finds_the_same(farm: Plantation) -> None:
    _, first = await run(farm)
    _, again = await run(farm)
    assert first["usage"]["reading"]["tokens"] > 0
    assert again["usage"]["reading"]["tokens"] == 0
    assert first["winner"] == again["winner"]
    assert first["held_out"] == again["held_out"]
    # Another method over the same texts costs no forward either.
    _, other = await run(farm, method={"name": "pso", "evaluations": 60})
    assert other["usage"]["reading"]["tokens"] == 0


@on_sqlite
async def test_what_is_merged_by_weights_and_by_outputs_is_held_beside_the_same(
    farm: Plantation,
) -> None:
    """The same seed, ELMs and ensemble, read through two different paths."""
    short = {"name": "random", "population": 4, "evaluations": 4}
    _, outputs = await run(farm, method=short)
    _, weights = await run(farm, method=short, space="checkpoint")
    one, other = (
        {each["name"]: each["loss"] for each in result["held_out"][0]["contenders"]}
        for result in (outputs, weights)
    )
    for name in ("base", "best_expert", "argmax", "btm_ensemble"):
        assert one[name] == pytest.approx(other[name], abs=1e-4), name


@on_sqlite
async def test_what_an_elm_was_is_what_answers_or_nothing(farm: Plantation) -> None:
    """ELMs leave the forest, and then their folders."""
    await run(farm)
    for domain in DOMAINS[1:]:
        assert (await farm.api.http.delete(f"/v1/forests/grove/elms/{domain}")).status_code == 200
    assert (await farm.api.http.delete("/v1/forests/grove")).status_code == 200
    body = {"model": "mixed", "prompt": "a", "max_tokens": 1}
    assert (await farm.api.post("/v1/completions", body)).status_code == 200
    body["model"] = (await run_of_law(farm))[0]
    shutil.rmtree(farm.root / "law")
    response = await farm.api.post("/v1/completions", body)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "model_unavailable"


async def run_of_law(farm: Plantation) -> tuple[str, Json]:
    elms = [{"path": str(farm.root / domain)} for domain in DOMAINS]
    forest = {"name": "grove", "seed": {"path": str(farm.root / "seed")}, "elms": elms}
    created(await farm.api.post("/v1/forests", forest))
    return await run(farm, serve_as=None)


@on_sqlite
async def test_a_budget_that_is_too_small_is_named_before_anything_is_read(
    farm: Plantation,
) -> None:
    for budget in ({"tokens": 100}, {"seconds": 1e-6}):
        (name,) = budget
        job = created(await farm.api.post("/v1/merge_jobs", {**SPEC, "budget": budget}))
        error = (await ended(farm, job["id"]))["error"]
        assert (error["code"], error["param"]) == ("budget_too_small", f"budget.{name}")
    assert not list((farm.settings.data_dir / "log_probs").glob("*"))


@on_sqlite
async def test_a_job_that_is_paused_while_it_reads_goes_on(farm: Plantation) -> None:
    job = created(await farm.api.post("/v1/merge_jobs", SPEC))
    async with farm.worker(batch_tokens=8) as task:

        async def reading() -> bool:
            row = await jobs.get_job(farm.database, job["id"])
            assert row.finished_at is None, row.error
            return bool(row.progress.get("tokens"))

        await jobs.until(reading, task)
        await farm.api.post(f"/v1/merge_jobs/{job['id']}/pause")

        async def paused() -> bool:
            return (await jobs.get_job(farm.database, job["id"])).status == "paused"

        await jobs.until(paused, task)
    await farm.api.post(f"/v1/merge_jobs/{job['id']}/resume")
    done = await ended(farm, job["id"])
    assert done["status"] == "succeeded", done["error"]
    result = (await farm.api.get(f"/v1/merge_jobs/{job['id']}/result")).json()
    assert 0 < result["usage"]["reading"]["tokens"] < 4 * TEXTS * (LENGTH + 1)


@on_sqlite
@pytest.mark.parametrize(
    ("changes", "param", "reason"),
    [
        (
            {"objective": {"datasets": [{"dataset": "choices"}]}},
            "objective.datasets.0.dataset",
            "rows are fused as choice",
        ),
        (
            {"objective": {"datasets": [{"dataset": "answers"}], "metric": "exact_match"}},
            "objective.metric",
            "mixed token by token",
        ),
        (
            {"objective": {"datasets": [{"dataset": "answers"}], "report": ["exact_match"]}},
            "objective.report.0",
            "it would take other questions",
        ),
        ({"pool": "single"}, "pool", "the forest has one ELM, 'law'"),
        ({"pool": "rootless"}, "pool", "the seed of forest 'rootless' is no longer where it was"),
        (
            {"objective": {"datasets": [{"dataset": "long"}]}},
            "objective.datasets",
            "the context holds 256",
        ),
        ({"layer_groups": 2}, None, "layer_groups=2"),
    ],
)
async def test_what_cannot_be_mixed_is_refused_at_once(
    farm: Plantation, changes: Json, param: str | None, reason: str
) -> None:
    await plant_the_wrong_ones(farm)
    response = await farm.api.post("/v1/merge_jobs", {**SPEC, **changes})
    assert response.status_code == 422, response.text
    problem = response.json()["error"]
    assert reason in problem["message"]
    if param is not None:
        assert problem["param"] == param


async def plant_the_wrong_ones(farm: Plantation) -> None:
    """Datasets and forests that no mixture is made of."""
    datasets: dict[str, list[Json]] = {
        "choices": [{"prompt": q, "choices": ["a", "b"], "answer": 0} for q in "pq"],
        "answers": [{"prompt": q, "completion": "a"} for q in "pq"],
        "long": [{"text": "x" * 300}, {"text": "y"}],
    }
    for name, rows in datasets.items():
        file = farm.root / f"{name}.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)))
        created(await farm.api.post("/v1/datasets", {"name": name, "path": str(file)}))
    seed = {"path": str(farm.root / "seed")}
    elm = {"path": str(farm.root / "law")}
    forest = {"name": "single", "seed": seed, "elms": [elm]}
    created(await farm.api.post("/v1/forests", forest))
    lost = await asyncio.to_thread(shutil.copytree, farm.root / "seed", farm.root / "lost")
    elms = [elm, {"path": str(farm.root / "code")}]
    forest = {"name": "rootless", "seed": {"path": str(lost)}, "elms": elms}
    created(await farm.api.post("/v1/forests", forest))
    shutil.rmtree(lost)
