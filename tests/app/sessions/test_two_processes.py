"""The protocol between two services that are processes of their own, workers and all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import SecretStr
from tests.app.sessions.test_two_services import (
    GUEST,
    OWNER,
    PRESET,
    Service,
    created,
    ended,
    evaluations,
    prepared,
    remote_job,
)
from tests.support.processes import Running, evomerge
from tests.support.tiny import make_adapter, make_base

from evomerge.app.settings import Settings

LISTENING = r"Evo-Merging is at (http\S+)"


def environment(data_dir: Path, **more: Any) -> dict[str, str]:
    """Settings of one of the two, as its process reads them."""
    settings = {"data_dir": str(data_dir), "api_keys": [OWNER], "device": "cpu", "threads": 1}
    return {
        f"EVOMERGE_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in {**settings, "poll_seconds": 0.05, **more}.items()
    }


async def at(running: Running, data_dir: Path, *roots: Path) -> Service:
    """A process that listens."""
    url = (await running.printed(LISTENING)).group(1)
    settings = Settings(data_dir=data_dir, roots=list(roots), api_keys=[SecretStr(OWNER)])
    return Service(url, settings)


async def test_a_search_from_one_process_over_anothers_adapters(tmp_path: Path) -> None:
    base = make_base(tmp_path / "bases" / "tiny")
    for number in range(3):
        make_adapter(tmp_path / "private" / f"e{number}", base, seed=number + 1)
    private, theirs, ours = (tmp_path / name for name in ("private", "holder", "searcher"))
    holding = environment(
        theirs,
        roots=[str(private)],
        bases={"tiny": str(base)},
        shared={"relatives": PRESET},
        named_keys={"guest": {"key": GUEST}},
    )
    searching = environment(
        ours,
        allowed_hosts=["127.0.0.1"],
        allowed_networks=["127.0.0.0/8"],
        credentials={"guest": {"hosts": ["127.0.0.1"], "env": "HOLDERS_KEY"}},
    )
    async with (
        evomerge("serve", "--port", "0", environment=holding) as one,
        evomerge(
            "serve", "--port", "0", environment={**searching, "HOLDERS_KEY": GUEST}
        ) as another,
    ):
        holder, searcher = await at(one, theirs, private), await at(another, ours)
        await prepared(holder)
        async with searcher.client() as client, holder.client() as owner:
            job = await created(client, "/v1/merge_jobs", remote_job(holder, "guest"))
            found = await ended(client, job["id"])
            assert found["status"] == "succeeded", found["error"]
            local = await created(owner, "/v1/merge_jobs", PRESET)
            assert (await ended(owner, local["id"]))["error"] is None
            away = await evaluations(client, job["id"])
            at_home = await evaluations(owner, local["id"])
        assert len(away) == len(at_home) == 3 + 3 + 12
        for near, far in zip(at_home, away, strict=True):
            np.testing.assert_allclose(far["beta"], near["beta"], atol=1e-9)
            assert far["loss"] == pytest.approx(near["loss"], abs=1e-6)
        async with httpx.AsyncClient(base_url=holder.url) as stranger:
            assert (await stranger.get("/v1/presets")).status_code == 401
    weights = (private / "e0" / "adapter_model.safetensors").read_bytes()[-256:]
    files = [path for path in ours.rglob("*") if path.is_file()]
    assert files
    assert not any(weights in path.read_bytes() for path in files)
