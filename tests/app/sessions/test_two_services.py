"""One service searches over another's adapters, which it never sees."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import SecretStr
from tests.support.databases import sqlite_url
from tests.support.loopback import serving
from tests.support.tiny import make_adapter, make_base

from evomerge.app.main import create_app
from evomerge.app.settings import CredentialSetting, KeySetting, Settings
from evomerge.app.worker.process import work

Json = dict[str, Any]

OWNER, GUEST, RICH = "sk-owner", "sk-guest", "sk-rich"
METHOD: Json = {
    "name": "evo-merging",
    "population": 4,
    "denoising": {"evaluations": 4},
    "scaling": {"evaluations": 8},
}
PRESET: Json = {
    "pool": "pool",
    "objective": {"datasets": [{"dataset": "films"}, {"dataset": "books"}], "held_out": 0.25},
    "method": METHOD,
    "seed": 3,
}


@dataclass(frozen=True)
class Service:
    """A running service and its settings."""

    url: str
    settings: Settings

    @asynccontextmanager
    async def client(self, key: str = OWNER) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=120) as client:
            yield client

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A worker beside it."""
        stopping = asyncio.Event()
        task = asyncio.create_task(work(self.settings, stopping))
        try:
            yield
        finally:
            stopping.set()
            await task


@contextmanager
def service(folder: Path, template: Path, **settings: Any) -> Iterator[Service]:
    folder.mkdir()
    shutil.copy(template, folder / "evomerge.db")
    whole = Settings(
        data_dir=folder,
        database_url=sqlite_url(folder),
        api_keys=[SecretStr(OWNER)],
        poll_seconds=0.02,
        device="cpu",
        threads=1,
        **settings,
    )
    with serving(create_app(whole)) as url:
        yield Service(url, whole)


@pytest.fixture
def holder(tmp_path: Path, sqlite_template: Path) -> Iterator[Service]:
    """Who has the adapters and the data."""
    base = make_base(tmp_path / "bases" / "tiny")
    for number in range(3):
        make_adapter(tmp_path / "private" / f"e{number}", base, seed=number + 1)
    with service(
        tmp_path / "holder",
        sqlite_template,
        roots=[tmp_path / "private"],
        bases={"tiny": base},
        shared={"relatives": PRESET},
        named_keys={
            "guest": KeySetting(key=SecretStr(GUEST)),
            "rich": KeySetting(key=SecretStr(RICH), evaluations=40, materialize=True),
        },
    ) as running:
        yield running


@pytest.fixture
def searcher(
    tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """Who has neither."""
    monkeypatch.setenv("HOLDERS_KEY", GUEST)
    monkeypatch.setenv("RICH_KEY", RICH)
    with service(
        tmp_path / "searcher",
        sqlite_template,
        allowed_hosts=["127.0.0.1"],
        allowed_networks=["127.0.0.0/8"],
        credentials={
            "guest": CredentialSetting(hosts=["127.0.0.1"], env="HOLDERS_KEY"),
            "rich": CredentialSetting(hosts=["127.0.0.1"], env="RICH_KEY"),
        },
    ) as running:
        yield running


async def created(client: httpx.AsyncClient, path: str, body: Json) -> Json:
    response = await client.post(path, json=body)
    assert response.status_code in (200, 201), response.text
    found: Json = response.json()
    return found


async def prepared(holder: Service) -> None:
    """The holder's pool and two datasets."""
    root = holder.settings.roots[0]
    async with holder.client() as client:
        for name, word in (("films", "film"), ("books", "book")):
            rows = [{"prompt": f"{word} {n}", "completion": f"no. {n % 5}"} for n in range(12)]
            path = root / f"{name}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            await created(client, "/v1/datasets", {"name": name, "path": str(path)})
        await created(client, "/v1/pools", {"name": "pool", "folders": f"{root}/e*"})


def remote_job(holder: Service, credential: str, **remote: Any) -> Json:
    return {
        "space": "remote",
        "remote": {
            "provider": "bmm",
            "base_urls": [holder.url],
            "model": "relatives",
            "adapters": ["ann", "bob", "eve"],
            "credential": credential,
            **remote,
        },
        "objective": {"datasets": [{"dataset": "films"}, {"dataset": "books"}]},
        "method": METHOD,
        "seed": 3,
    }


async def ended(client: httpx.AsyncClient, job_id: str) -> Json:
    async with asyncio.timeout(120):
        while True:
            job: Json = (await client.get(f"/v1/merge_jobs/{job_id}")).json()
            if job["status"] in ("succeeded", "failed", "cancelled"):
                return job
            await asyncio.sleep(0.02)


async def evaluations(client: httpx.AsyncClient, job_id: str) -> list[Json]:
    response = await client.get(f"/v1/merge_jobs/{job_id}/evaluations", params={"limit": 100})
    found: list[Json] = response.json()["data"]
    return [one for one in found if one["stage"] != "held_out"]


async def test_a_remote_job_finds_the_losses_of_the_local_one(
    holder: Service, searcher: Service
) -> None:
    await prepared(holder)
    async with searcher.client() as client, searcher.working():
        job = await created(client, "/v1/merge_jobs", remote_job(holder, "guest"))
        done = await ended(client, job["id"])
        assert done["error"] is None
        away = await evaluations(client, job["id"])
        result = (await client.get(f"/v1/merge_jobs/{job['id']}/result")).json()
        artifact = await client.get(f"/v1/merge_jobs/{job['id']}/artifacts/merge.json")
    async with holder.client() as client, holder.working():
        local = await created(client, "/v1/merge_jobs", PRESET)
        assert (await ended(client, local["id"]))["error"] is None
        at_home = await evaluations(client, local["id"])
    # Experts alone, averages of the best two, and two stages.
    assert len(away) == len(at_home) == 3 + 3 + 12
    for one, other in zip(away, at_home, strict=True):
        np.testing.assert_allclose(one["alpha"], other["alpha"])
        np.testing.assert_allclose(one["beta"], other["beta"], atol=1e-9)
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)
    # The data is the holder's: nothing was held out, and the result says so.
    assert result["held_out"] == []
    assert "provider's own" in result["unproven"]
    (calls,) = result["calls"].values()
    assert calls["requests"] == 2 * 18 + 2 * 2
    merge = artifact.json()
    assert set(merge["adapters"]) == {"ann", "bob", "eve"}
    assert merge["materialized"] is None  # this key may not
    assert str(holder.settings.data_dir) not in json.dumps(result) + artifact.text


async def test_datasets_of_theirs_prove_a_winner_that_is_materialized(
    holder: Service, searcher: Service
) -> None:
    await prepared(holder)
    body = remote_job(holder, "rich", held_out=["books"])
    body["objective"] = {"datasets": [{"dataset": "films"}]}
    async with searcher.client() as client, searcher.working():
        job = await created(client, "/v1/merge_jobs", body)
        assert (await ended(client, job["id"]))["error"] is None
        result = (await client.get(f"/v1/merge_jobs/{job['id']}/result")).json()
        merge = (await client.get(f"/v1/merge_jobs/{job['id']}/artifacts/merge.json")).json()
    (proof,) = result["held_out"]
    assert [one["name"] for one in proof["contenders"]] == [
        "winner",
        "base",
        "best_expert",
        "uniform",
    ]
    # One number a contender has no interval.
    assert all(one["interval"] is None for one in proof["contenders"])
    assert result["unproven"] is None
    assert (Path(merge["materialized"]) / "adapter_model.safetensors").is_file()


async def test_a_quota_at_the_holder_ends_the_job_with_its_words(
    holder: Service, searcher: Service
) -> None:
    await prepared(holder)
    body = remote_job(holder, "rich")
    body["method"] = {**METHOD, "scaling": {"evaluations": 400}}
    async with searcher.client() as client, searcher.working():
        job = await created(client, "/v1/merge_jobs", body)
        done = await ended(client, job["id"])
    assert done["status"] == "failed"
    assert "used 40 of 40 evaluations" in done["error"]["message"]


async def test_optimize_is_the_preset_s_own_job(holder: Service) -> None:
    await prepared(holder)
    async with holder.client(GUEST) as guest, holder.working():
        session = await created(guest, "/v1/sessions", {"preset_id": "relatives"})
        path = f"/v1/sessions/{session['session_id']}"
        found = await created(guest, f"{path}/optimize", {})
        candidate = {"alpha": found["best_alpha"], "beta": found["best_beta"]}
        again = await created(guest, f"{path}/evaluate", candidate)
    assert set(found) == {
        "best_loss",
        "best_alpha",
        "best_beta",
        "checkpoint_dir",
        "stage1_evaluations",
        "stage2_evaluations",
        "best_adapter_dir",
    }
    assert (found["stage1_evaluations"], found["stage2_evaluations"]) == (4, 8)
    assert again["loss"] == pytest.approx(found["best_loss"], abs=1e-6)
    assert found["checkpoint_dir"].startswith("mj_")


async def test_optimize_is_charged_for_what_it_scored_and_refused_beyond_the_quota(
    holder: Service,
) -> None:
    await prepared(holder)
    async with holder.client(RICH) as rich, holder.working():
        session = await created(rich, "/v1/sessions", {"preset_id": "relatives"})
        path = f"/v1/sessions/{session['session_id']}"
        scored = 3 + 3 + 4 + 8
        for _ in range(40 // scored):
            await created(rich, f"{path}/optimize", {})
        refused = await rich.post(f"{path}/optimize", json={})
        assert refused.status_code == 429
        assert f"used {40 // scored * scored} of 40" in refused.json()["error"]["message"]


async def test_a_caller_that_hangs_up_cancels_its_search(holder: Service) -> None:
    await prepared(holder)
    async with holder.client(GUEST) as guest:
        session = await created(guest, "/v1/sessions", {"preset_id": "relatives"})
        path = f"/v1/sessions/{session['session_id']}/optimize"
        # No worker runs: the search waits in the queue until nobody waits for it.
        with pytest.raises(httpx.ReadTimeout):
            await guest.post(path, json={}, timeout=0.5)
    async with holder.client() as owner:
        jobs = (await owner.get("/v1/merge_jobs")).json()["data"]
        assert (await ended(owner, jobs[0]["id"]))["status"] == "cancelled"
