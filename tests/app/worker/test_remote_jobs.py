"""Whole jobs whose candidates travel, held against the same jobs at home."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.responses import Response
from sqlalchemy import func, select
from tests.app.worker.conftest import RHYTHM, Shop
from tests.support import jobs
from tests.support.databases import sqlite_url
from tests.support.fake_llama_cpp import FakeLlamaCpp
from tests.support.fake_lorax import FakeLorax, refused
from tests.support.fake_vllm import FakeVllm, Json
from tests.support.loopback import serving
from tests.support.lora_jobs import TinyPool, make_tiny_pool
from tests.support.tiny import END_OF_TEXT
from tests.support.tiny_model import TinyModel, read_factors

from evomerge.app.connections import connectors
from evomerge.app.db.engine import SyncDatabase
from evomerge.app.db.models import Call, Job
from evomerge.app.db.repositories import queue
from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.services.remote import their_experts
from evomerge.app.settings import EndpointLimitsSetting
from evomerge.app.worker.benches import LoraBenches
from evomerge.app.worker.checkpoint_benches import CheckpointBenches
from evomerge.app.worker.loop import Worker
from evomerge.app.worker.preparing import Preparer
from evomerge.evaluation import Example

OBJECTIVE: dict[str, Any] = {"datasets": [{"dataset": "facts"}]}
SCALING: dict[str, Any] = {"name": "cma", "population": 4, "scaling": {"evaluations": 8}}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> TinyPool:
    return make_tiny_pool(tmp_path_factory.mktemp("pool"), experts=2)


@pytest.fixture(scope="module")
def model(pool: TinyPool) -> TinyModel:
    return TinyModel(pool.folder / "base")


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    (tmp_path / "evomerge.db").write_bytes(sqlite_template.read_bytes())
    return sqlite_url(tmp_path)


class Home:
    """Runs jobs over the tiny pool."""

    def __init__(self, shop: Shop, pool: TinyPool) -> None:
        self.shop = shop
        self.pool = pool
        self.settings = pool.settings(
            shop.database.url.render_as_string(),
            shop.folder,
            allowed_hosts=["127.0.0.1"],
            allowed_networks=["127.0.0.0/8"],
            adapter_dirs=[shop.folder / "shelf"],
            endpoint_limits={"*": {"attempts": 1}},
        )

    async def run(self, job_id: str, inputs: JobInputs | None = None, **spec: Any) -> Job:
        """Queue a job and work until it has ended."""
        given = inputs or self.pool.inputs
        fields = {"objective": OBJECTIVE, "method": SCALING, **spec}
        await jobs.add_job(self.shop.database, given, job_id, **fields)
        return await self.work(job_id)

    async def work(self, job_id: str) -> Job:
        stopping = asyncio.Event()
        self.shop.beats.append(SyncDatabase(self.shop.database.url))
        async with connectors(self.settings) as ask:
            benches = LoraBenches(self.settings), CheckpointBenches(self.settings)
            prepare = Preparer(self.settings, self.shop.database, ask, *benches).prepare
            run = jobs.runner(prepare, self.shop.folder, stopping)
            beats = self.shop.beats[-1]
            worker = Worker(self.shop.database, beats, run, RHYTHM, stopping, "one")
            return await self.shop.run_until(worker, "succeeded", "failed", job_id=job_id)

    async def losses(self, job_id: str) -> list[Any]:
        """Points and losses, in order."""
        return [(row[4], row[5], row[6]) for row in await self.shop.log(job_id)]

    def theirs(self, **remote: Any) -> JobInputs:
        """The inputs of a job over a server's adapters."""
        spec = MergeJobSpec.model_validate(
            {"space": "remote", "objective": OBJECTIVE, "remote": remote}
        )
        assert spec.remote is not None
        changes = {"base": None, "experts": their_experts(spec.remote)}
        return self.pool.inputs.model_copy(update=changes)


@pytest.fixture
def home(shop: Shop, pool: TinyPool) -> Home:
    return Home(shop, pool)


def agree(found: list[Any], expected: list[Any]) -> None:
    """The same first generation, at losses that agree."""
    count = 2 + 4  # the experts alone, and one population
    assert len(found) == len(expected)
    for (alpha, beta, loss), (a, b, wanted) in zip(found[:count], expected[:count], strict=True):
        np.testing.assert_allclose(np.frombuffer(alpha), np.frombuffer(a))
        np.testing.assert_allclose(np.frombuffer(beta), np.frombuffer(b), atol=1e-9)
        assert loss == pytest.approx(wanted, abs=1e-3)


@pytest.fixture
def vllm(model: TinyModel) -> Iterator[tuple[FakeVllm, str]]:
    fake = FakeVllm(model)
    with serving(fake.app()) as url:
        yield fake, url


def at_vllm(url: str, home: Home) -> Json:
    return {
        "space": "remote",
        "remote": {
            "provider": "vllm",
            "base_urls": [f"{url}/v1"],
            "model": "tiny",
            "adapter_dir": str(home.shop.folder / "shelf"),
            "price": {"input": 1.0, "output": 2.0},
        },
        "output": {"dtype": "float32"},
    }


async def test_a_job_at_vllm_is_the_job_at_home(home: Home, vllm: tuple[FakeVllm, str]) -> None:
    fake, url = vllm
    away = await home.run("mj_away", **at_vllm(url, home))
    assert away.error is None
    at_home = await home.run("mj_home")
    agree(await home.losses("mj_away"), await home.losses("mj_home"))
    assert away.result is not None
    assert at_home.result is not None
    names = [one["name"] for one in away.result["held_out"][0]["contenders"]]
    assert names == ["winner", "base", "best_expert", "uniform"]
    assert away.result["unproven"] is None
    (calls,) = away.result["calls"].values()
    assert calls["requests"] > 0
    assert calls["usd"] == pytest.approx((calls["input_tokens"] + 2 * calls["output_tokens"]) / 1e6)
    assert not fake.adapters
    files = home.shop.artifacts("mj_away")
    assert {"adapter_config.json", "adapter_model.safetensors", "merge.json"} <= set(files)
    merge = json.loads(files["merge.json"])
    assert set(merge["adapters"]) == {"expert-0", "expert-1"}


async def test_a_budget_of_requests_ends_the_search_with_its_best_and_a_proof(
    home: Home, vllm: tuple[FakeVllm, str]
) -> None:
    fake, url = vllm
    sent = 0

    def count(body: Json) -> None:
        nonlocal sent
        sent += 1

    fake.fault = count
    away = await home.run("mj_away", budget={"requests": 35}, **at_vllm(url, home))
    assert away.error is None
    assert away.result is not None
    assert away.result["ended_by"] == "requests"
    assert away.result["held_out"]
    (calls,) = away.result["calls"].values()
    assert sent < calls["requests"] <= 35  # loading and unloading are requests too


async def test_a_proof_that_repeated_requests_made_unaffordable_is_missed_and_not_the_winner(
    home: Home, vllm: tuple[FakeVllm, str]
) -> None:
    fake, url = vllm
    home.settings.endpoint_limits["*"] = EndpointLimitsSetting(attempts=2)
    begun: set[str] = set()

    def fail_once(body: Json) -> Any:
        """Every candidate's first request fails, and is paid for all the same."""
        if body["model"] in begun:
            return None
        begun.add(body["model"])
        return Response("", 503, headers={"Retry-After": "0"})

    fake.fault = fail_once
    away = await home.run("mj_away", budget={"requests": 22}, **at_vllm(url, home))
    assert away.error is None
    assert away.result is not None
    assert away.result["held_out"] == []
    assert "requests" in away.result["unproven"]
    assert away.result["winner"]["search_loss"] > 0


async def test_a_crash_pays_for_nothing_twice(home: Home, vllm: tuple[FakeVllm, str]) -> None:
    fake, url = vllm
    asked = 0

    def fail(body: Json) -> Any:
        nonlocal asked
        asked += 1
        return refused(500, "down", "InternalServerError") if asked == 6 else None

    fake.fault = fail
    failed = await home.run("mj_away", **at_vllm(url, home))
    assert failed.status == "failed"
    logged = await home.losses("mj_away")
    assert logged
    async with home.shop.database.write() as session:
        await queue.resume(session, "mj_away")
    done = await home.work("mj_away")
    assert done.error is None
    assert (await home.losses("mj_away"))[: len(logged)] == logged
    async with home.shop.database.read() as session:
        booked = await session.scalar(select(func.sum(Call.requests)))
        open_ones = await session.scalar(select(func.count()).where(~Call.settled))
    assert done.result is not None
    (calls,) = done.result["calls"].values()
    assert calls["requests"] == booked
    assert open_ones == 1  # the one that failed counts at its most


async def test_a_job_at_lorax_is_the_job_at_home_by_factors(home: Home, model: TinyModel) -> None:
    adapters = {path.name: read_factors(path) for path in home.pool.inputs.folders}
    with serving(FakeLorax(model, adapters).app()) as url:
        remote = {
            "provider": "lorax",
            "base_urls": [url],
            "adapters": list(adapters),
            "end_of_text": END_OF_TEXT,
        }
        spec = {"space": "remote", "remote": remote, "pool": None, "composition": "factor"}
        away = await home.run("mj_away", home.theirs(**remote), **spec)
    assert away.error is None
    await home.run("mj_home", composition="factor")
    agree(await home.losses("mj_away"), await home.losses("mj_home"))
    merge = json.loads(home.shop.artifacts("mj_away")["merge.json"])
    assert set(merge["adapters"]) == {"expert-0", "expert-1"}


async def test_a_job_at_llama_cpp_is_the_job_at_home(home: Home, model: TinyModel) -> None:
    labels = "abcd"
    rows = [
        Example(f"question {n}: ", labels[n % 4], choices=tuple(labels), row=n + 1)
        for n in range(8)
    ]
    dataset = jobs.write_dataset(home.shop.folder, rows, "labels")
    fake = FakeLlamaCpp(model, [read_factors(path) for path in home.pool.inputs.folders])
    objective = {
        "datasets": [{"dataset": "labels"}],
        "end_of_text": False,
        "answer_prefix": "",
        "report": ["choice_accuracy"],
    }
    given = home.pool.inputs.model_copy(update={"datasets": [dataset]})
    with serving(fake.app()) as url:
        remote = {"provider": "llama_cpp", "base_urls": [url], "adapters": 2}
        inputs = home.theirs(**remote).model_copy(update={"datasets": [dataset]})
        spec = {"space": "remote", "remote": remote, "pool": None, "objective": objective}
        away = await home.run("mj_away", inputs, **spec)
    assert away.error is None
    await home.run("mj_home", given, objective=objective)
    found, expected = await home.losses("mj_away"), await home.losses("mj_home")
    # A label below the hundredth place has a floor: the search may go another way from there.
    np.testing.assert_allclose(
        [loss for *_, loss in found[:6]], [loss for *_, loss in expected[:6]], rtol=0.2
    )
    assert away.result is not None
    assert [one["metric"] for one in away.result["held_out"]] == [
        "cross_entropy",
        "choice_accuracy",
    ]
