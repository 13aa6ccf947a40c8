"""The session protocol over HTTP: what callers get, and what they never do."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from tests.app.api.client import Api, error
from tests.app.api.conftest import Shelf, connected

from evomerge.app.api import middleware
from evomerge.app.main import create_app
from evomerge.app.sessions.presets import PresetError
from evomerge.app.settings import KeySetting, Settings

GUEST, RICH, OWNER = "sk-guest", "sk-rich", "sk-owner"
PRESET: dict[str, Any] = {
    "pool": "pool",
    "objective": {"datasets": [{"dataset": "rows"}]},
    "method": {"name": "cma", "population": 4, "scaling": {"evaluations": 12}},
}
HALVES = {"alpha": [1.0, 0.5, 1.0], "beta": [0.5, -0.2, 0.1]}


def shared(settings: Settings, **changes: Any) -> Settings:
    fields: dict[str, Any] = {
        "threads": 1,
        "device": "cpu",
        "shared": {"films": PRESET},
        "api_keys": [SecretStr(OWNER)],
        "named_keys": {
            "guest": KeySetting(key=SecretStr(GUEST), evaluations=3),
            "rich": KeySetting(key=SecretStr(RICH), materialize=True),
        },
        **changes,
    }
    return settings.model_copy(update=fields)


@pytest.fixture
async def served(settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(shared(settings))
    async with app.router.lifespan_context(app):
        yield app


def as_(app: FastAPI, shelf: Shelf, key: str) -> Any:
    return connected(app, shelf, Authorization=f"Bearer {key}")


@pytest.fixture
async def owner(served: FastAPI, shelf: Shelf) -> AsyncIterator[Api]:
    async with as_(served, shelf, OWNER) as api:
        await api.inputs()
        yield api


@pytest.fixture
async def guest(served: FastAPI, shelf: Shelf, owner: Api) -> AsyncIterator[Api]:
    async with as_(served, shelf, GUEST) as api:
        yield api


async def opened(api: Api, **more: Any) -> dict[str, Any]:
    response = await api.post("/v1/sessions", {"preset_id": "films", **more})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def test_the_protocol_from_end_to_end(guest: Api, shelf: Shelf) -> None:
    assert (await guest.get("/health")).json() == {"status": "ok"}
    presets = (await guest.get("/v1/presets")).json()
    assert presets == {
        "items": [{"preset_id": "films", "path": "films", "base_model_name_or_path": "tiny"}]
    }
    session = await opened(guest, model_name_or_path="tiny")
    assert set(session) == {
        "session_id",
        "preset_id",
        "workdir",
        "model_name_or_path",
        "query_plus",
        "adapter_count",
    }
    assert session["adapter_count"] == 3
    assert session["query_plus"]["template"] == "default"
    again = await guest.get(f"/v1/sessions/{session['session_id']}")
    assert again.json() == session
    found = await guest.post(f"/v1/sessions/{session['session_id']}/evaluate", HALVES)
    assert set(found.json()) == {"loss", "adapter_dir"}
    assert found.json()["loss"] > 0
    assert str(shelf.root) not in found.text + str(session) + str(presets)


async def test_a_session_outlives_a_restart(
    settings: Settings, served: FastAPI, shelf: Shelf, guest: Api
) -> None:
    session = await opened(guest)
    path = f"/v1/sessions/{session['session_id']}/evaluate"
    first = (await guest.post(path, HALVES)).json()
    anew = create_app(shared(settings))
    async with anew.router.lifespan_context(anew), as_(anew, shelf, GUEST) as api:
        assert (await api.post(path, HALVES)).json() == first


async def test_a_session_is_its_callers_alone(served: FastAPI, shelf: Shelf, guest: Api) -> None:
    session = await opened(guest)
    async with as_(served, shelf, RICH) as other:
        path = f"/v1/sessions/{session['session_id']}"
        error(await other.get(path), 404, "not_found")
        error(await other.post(f"{path}/evaluate", HALVES), 404, "not_found")


async def test_a_guest_sees_nothing_but_sessions(guest: Api, owner: Api) -> None:
    for path in (
        "/v1/experts",
        "/v1/datasets",
        "/v1/merge_jobs",
        "/v1/sessionsx",
        "/v1",
        "/v1/models",
    ):
        error(await guest.get(path), 403, "forbidden")
        assert (await owner.get(path)).status_code in (200, 404)
    error(await guest.post("/tokenize", {"model": "m", "prompt": "a"}), 403, "forbidden")
    assert set(middleware.SHARED) == {"/v1/presets", "/v1/sessions"}


async def test_a_quota_is_exact_however_many_ask_at_once(guest: Api) -> None:
    session = await opened(guest)
    path = f"/v1/sessions/{session['session_id']}/evaluate"
    responses = await asyncio.gather(*(guest.post(path, HALVES) for _ in range(6)))
    assert sorted(one.status_code for one in responses) == [200] * 3 + [429] * 3
    last = await guest.post(path, HALVES)
    assert "3 of 3" in error(last, 429, "insufficient_quota")
    # Opening another session brings no more.
    other = await opened(guest)
    refused = await guest.post(f"/v1/sessions/{other['session_id']}/evaluate", HALVES)
    error(refused, 429, "insufficient_quota")


async def test_what_is_refused_costs_nothing(guest: Api) -> None:
    session = await opened(guest)
    path = f"/v1/sessions/{session['session_id']}/evaluate"
    for body, param in (
        ({**HALVES, "alpha": [1.0]}, "alpha"),
        ({**HALVES, "alpha": [1.0, 1.1, 1.0]}, "alpha.1"),
        ({**HALVES, "beta": [0.0, 0.0, -1.6]}, "beta.2"),
    ):
        error(await guest.post(path, body), 422, "invalid_value", param)
    for _ in range(3):
        assert (await guest.post(path, HALVES)).status_code == 200


async def test_materialize_is_for_keys_that_may(served: FastAPI, shelf: Shelf, guest: Api) -> None:
    session = await opened(guest)
    refused = await guest.post(f"/v1/sessions/{session['session_id']}/materialize", HALVES)
    error(refused, 403, "forbidden")
    async with as_(served, shelf, RICH) as rich:
        session = await opened(rich)
        path = f"/v1/sessions/{session['session_id']}/materialize"
        found = (await rich.post(path, HALVES)).json()
    assert found["session"] == session
    config = json.loads((Path(found["adapter_dir"]) / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"


async def test_more_than_may_wait_are_told_to_come_again(
    settings: Settings, shelf: Shelf, owner: Api
) -> None:
    app = create_app(shared(settings, shared_waiting=1))
    async with app.router.lifespan_context(app), as_(app, shelf, RICH) as api:
        session = await opened(api)
        path = f"/v1/sessions/{session['session_id']}/evaluate"
        responses = await asyncio.gather(*(api.post(path, HALVES) for _ in range(4)))
        busy = [one for one in responses if one.status_code == 429]
        assert len(busy) == 3
        for one in busy:
            error(one, 429, "queue_full")
            assert one.headers["retry-after"]


async def test_a_query_chooses_among_the_presets_datasets(guest: Api) -> None:
    session = await opened(guest, query_plus={"dataset": "rows", "max_samples": 1})
    assert session["query_plus"]["dataset"] == "rows"
    body = {"preset_id": "films", "query_plus": {"dataset": "secrets"}}
    message = error(await guest.post("/v1/sessions", body), 422, "invalid_value", QUERY)
    assert "'secrets' is none of 'rows'" in message


QUERY = "query_plus.dataset"


async def test_what_there_is_not(guest: Api) -> None:
    error(await guest.post("/v1/sessions", {"preset_id": "x"}), 404, "not_found", "preset_id")
    body = {"preset_id": "films", "model_name_or_path": "llama"}
    error(await guest.post("/v1/sessions", body), 422, "invalid_value", "model_name_or_path")
    error(await guest.get("/v1/sessions/ses_x"), 404, "not_found")


async def test_a_preset_whose_pool_is_not_there_tells_its_holder_alone(
    settings: Settings, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(shared(settings))
    async with app.router.lifespan_context(app), as_(app, shelf, GUEST) as api:
        items = (await api.get("/v1/presets")).json()["items"]
        assert items[0]["base_model_name_or_path"] is None
        with caplog.at_level(logging.ERROR):
            refused = await api.post("/v1/sessions", {"preset_id": "films"})
    message = error(refused, 409, "preset_unusable")
    assert "'pool'" not in message
    assert "'pool'" in caplog.text


async def test_without_keys_everything_is_open(settings: Settings, shelf: Shelf) -> None:
    app = create_app(shared(settings, api_keys=[], named_keys={}))
    async with app.router.lifespan_context(app), connected(app, shelf) as api:
        await api.inputs()
        session = await opened(api)
        path = f"/v1/sessions/{session['session_id']}"
        assert (await api.post(f"{path}/evaluate", HALVES)).status_code == 200


@pytest.mark.parametrize(
    "preset",
    [
        {"pool": "pool"},
        {**PRESET, "layer_groups": 2},
        {**PRESET, "space": "output"},
    ],
)
def test_a_preset_that_cannot_be_shared_stops_the_start(
    settings: Settings, preset: dict[str, Any]
) -> None:
    with pytest.raises(PresetError, match=r"shared\.films"):
        create_app(shared(settings, shared={"films": preset}))
