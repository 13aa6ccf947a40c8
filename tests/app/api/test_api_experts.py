"""Experts that are APIs: registered by a probe of a real server, refused by the field at fault."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.app.api.client import Api, Json, created
from tests.support import classroom
from tests.support.provider import Action, Provider, Request, Send, provider


def answer(request: Request) -> Action:
    """The classroom, which has a door: one model is not in it, one wants a key."""
    if request.body["model"] == "absent":
        return Send({"error": {"message": "no model 'absent'", "code": "model_not_found"}}, 404)
    if request.body["model"] == "locked":
        return Send({"error": {"message": "invalid api key"}}, 401)
    return classroom.answer(request)


@pytest.fixture
async def server() -> AsyncIterator[Provider]:
    async with provider(answer) as running:
        yield running


async def test_an_endpoint_is_probed_and_what_it_can_do_is_kept(api: Api, server: Provider) -> None:
    made = created(await api.post("/v1/experts", classroom.expert("north", server.base_url)))
    assert (made["kind"], made["base"]) == ("api", None)
    found = made["info"]["capabilities"]
    assert (found["interface"], found["alternatives"]) == ("chat", 4)
    assert not found["prompt_logprobs"]
    assert found["checked_at"] > 0
    definition = made["definition"]
    assert (definition["model"], definition["template"]) == ("north", "{prompt}")
    listed = (await api.get("/v1/experts")).json()["data"]
    assert [one["id"] for one in listed] == [made["id"]]


async def test_the_same_expert_is_the_same_and_another_of_its_name_is_refused(
    api: Api, server: Provider
) -> None:
    body = classroom.expert("north", server.base_url)
    first = created(await api.post("/v1/experts", body))
    again = await api.post("/v1/experts", body)
    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    other = await api.post("/v1/experts", {**body, "system": "be brief"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "name_taken")


async def test_prompts_over_one_endpoint_share_its_probe(api: Api, server: Provider) -> None:
    created(await api.post("/v1/experts", classroom.expert("north", server.base_url)))
    asked = len(server.requests)
    for number in range(20):
        body = classroom.expert("north", server.base_url, system=f"prompt {number}")
        created(await api.post("/v1/experts", {**body, "name": f"variant-{number}"}))
    assert len(server.requests) == asked


async def test_check_probes_again_and_keeps_what_has_changed(api: Api, server: Provider) -> None:
    made = created(await api.post("/v1/experts", classroom.expert("north", server.base_url)))

    def without_logprobs(request: Request) -> Action:
        request.body.pop("logprobs", None)
        return classroom.answer(request)

    server.answer = without_logprobs
    checked = await api.post("/v1/experts/north/check")
    assert checked.status_code == 200
    assert checked.json()["info"]["capabilities"]["alternatives"] is None
    assert (await api.get(f"/v1/experts/{made['id']}")).json() == checked.json()


REFUSED: list[tuple[str, Json]] = [
    ("base_url", {"base_url": "http://169.254.169.254/v1"}),
    ("base_url", {"base_url": "http://elsewhere.example/v1"}),
    ("base_url", {"base_url": "ftp://127.0.0.1/v1"}),
    ("credential", {"credential": "none-such"}),
    ("credential", {"model": "locked"}),
    ("model", {"model": "absent"}),
    ("template", {"template": "without a place"}),
    ("template", {"template": "{prompt} and {prompt}"}),
    ("sampling.temperature", {"sampling": {"temperature": 3}}),
    ("price.input", {"price": {"input": -1}}),
    ("provider", {"provider": "nobody"}),
    ("kind", {"kind": "psychic"}),
    ("colour", {"colour": "red"}),
]


@pytest.mark.parametrize(("param", "change"), REFUSED)
async def test_what_cannot_be_called_is_refused_by_its_field(
    api: Api, server: Provider, param: str, change: dict[str, Any]
) -> None:
    body = classroom.expert("north", server.base_url) | change
    answer = await api.post("/v1/experts", body)
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert (await api.get("/v1/experts")).json()["data"] == []


async def test_a_server_that_is_not_there_is_told_of(api: Api, server: Provider) -> None:
    body = classroom.expert("north", "http://127.0.0.1:9/v1")
    refused = await api.post("/v1/experts", body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "base_url")


async def test_adapters_and_apis_are_not_of_one_pool(api: Api, server: Provider) -> None:
    await api.pool()
    adapter = (await api.get("/v1/experts")).json()["data"][0]["name"]
    created(await api.post("/v1/experts", classroom.expert("north", server.base_url)))
    mixed = await api.post("/v1/pools", {"name": "mixed", "experts": [adapter, "north"]})
    assert (mixed.status_code, mixed.json()["error"]["param"]) == (422, "experts.1")
    checked = await api.post(f"/v1/experts/{adapter}/check")
    assert (checked.status_code, checked.json()["error"]["code"]) == (409, "not_an_api_expert")
    missing = await api.post("/v1/experts/nobody/check")
    assert missing.status_code == 404
