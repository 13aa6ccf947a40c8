"""What a provider cannot merge is refused when the job is created, by its field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from tests.app.api.client import Api, created, error, spec
from tests.app.api.conftest import Shelf, connected

from evomerge.app.main import create_app
from evomerge.app.settings import Settings

Json = dict[str, Any]
URL = ["http://127.0.0.1:1"]
LLAMA: Json = {"provider": "llama_cpp", "base_urls": URL, "adapters": 3}
LORAX: Json = {"provider": "lorax", "base_urls": URL, "adapters": ["a", "b"], "end_of_text": "</s>"}
BMM: Json = {"provider": "bmm", "base_urls": URL, "adapters": 3, "model": "films"}
VLLM: Json = {"provider": "vllm", "base_urls": URL, "model": "tiny"}
BOTH = {"name": "evo-merging", "population": 4}
ROWS: Json = {"datasets": [{"dataset": "rows"}]}
BARE: Json = {**ROWS, "end_of_text": False}


def job(remote: Json, **changes: Any) -> Json:
    body = spec(space="remote", remote=remote, **changes)
    if "adapters" in remote:
        del body["pool"]
    return body


@pytest.fixture
def app_settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"adapter_dirs": [tmp_path / "shelf"]})


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (job(LLAMA), "objective.end_of_text", "set false"),
        (job(LLAMA, objective=BARE, method=BOTH), "method.stages", "alpha cannot travel"),
        (job(LLAMA, objective=BARE, composition="factor"), "composition", "'exact'"),
        (job({**LLAMA, "adapters": ["0", "x"]}, objective=BARE), "remote.adapters.1", "'x'"),
        (
            job({"provider": "llama_cpp", "base_urls": URL}),
            "remote.adapters",
            "was started with",
        ),
        (
            job(LLAMA, objective={**BARE, "metric": "exact_match"}),
            "objective.metric",
            "'exact_match'",
        ),
        (job(LORAX), "composition", "'factor'"),
        (job({**LORAX, "adapters": 1}, composition="factor"), "remote.adapters", "one adapter"),
        (job(LORAX, composition="factor", method=BOTH), "method.stages", "alpha cannot travel"),
        (
            job({**LORAX, "end_of_text": None}, composition="factor"),
            "remote.end_of_text",
            "say how",
        ),
        (job({"provider": "lorax", "base_urls": URL}), "remote.adapter_dir", "from a folder"),
        (job({**LORAX, "base_urls": URL * 2}), "remote.base_urls", "one server"),
        (job(VLLM), "remote.adapter_dir", "from a folder"),
        (job({**VLLM, "adapter_dir": "/etc"}), "remote.adapter_dir", "adapter_dirs"),
        (job({**VLLM, "model": None}), "remote.model", "base model's name"),
        (job({**VLLM, "adapters": 2}), "remote.adapters", "a pool that is here"),
        (job({**BMM, "model": None}), "remote.model", "preset's id"),
        (job({**BMM, "held_out": ["a", "b"]}), "remote.held_out", "2 datasets for 1"),
        (
            job(BMM, objective={**ROWS, "metric": "choice_accuracy"}),
            "objective.metric",
            "preset's own",
        ),
        (
            job(
                BMM,
                method={
                    "name": "cma",
                    "population": 4,
                    "scaling": {"evaluations": 12, "bounds": {"low": -2, "high": 1}},
                },
            ),
            "method.scaling.bounds",
            "±1.5",
        ),
        (job({**BMM, "credential": "nobody"}), "remote.credential", "'nobody'"),
    ],
)
async def test_refusals_name_the_field(
    app_settings: Settings, shelf: Shelf, body: Json, param: str, words: str
) -> None:
    app = create_app(app_settings)
    async with app.router.lifespan_context(app), connected(app, shelf) as api:
        await api.inputs()
        message = error(await api.post("/v1/merge_jobs", body), 422, "invalid_value", param)
    assert message.startswith(param)
    assert words in message


async def test_adapters_go_with_no_pool(api: Api) -> None:
    await api.inputs()
    body = {**job(BMM), "pool": "pool"}
    message = error(await api.post("/v1/merge_jobs", body), 422, "invalid_value")
    assert "neither pool nor experts" in message


@pytest.mark.parametrize("adapters", [0, 5000, [], ["a", "a"]])
async def test_adapters_are_some_and_none_twice(api: Api, adapters: object) -> None:
    body = job({**BMM, "adapters": adapters})
    message = error(await api.post("/v1/merge_jobs", body), 422, "invalid_value", "remote")
    assert "adapters" in message


async def test_a_job_over_a_servers_adapters_is_queued_with_what_is_known_of_them(
    app: FastAPI, api: Api
) -> None:
    await api.inputs()
    found = created(await api.post("/v1/merge_jobs", job(BMM)))
    assert found["inputs"]["base"] is None
    assert [one["name"] for one in found["inputs"]["experts"]] == ["0", "1", "2"]
    hashes = {one["content_hash"] for one in found["inputs"]["experts"]}
    assert len(hashes) == 3
    again = (await api.get(f"/v1/merge_jobs/{found['id']}")).json()
    assert again["inputs"] == found["inputs"]


async def test_the_dry_run_counts_calls(api: Api) -> None:
    await api.inputs()
    priced = {**LLAMA, "price": {"input": 1.0, "output": 2.0}}
    body = job(priced, objective=BARE)
    found = (await api.post("/v1/merge_jobs/estimate", body)).json()
    rows = found["search_examples"], found["held_out_examples"]
    assert found["requests"] == found["evaluations"] * rows[0] + 4 * rows[1]
    assert found["output_tokens"] == found["requests"]
    assert found["usd"] == pytest.approx((found["input_tokens"] + 2 * found["output_tokens"]) / 1e6)
