"""/tokenize of a service over a tiny model: what is counted is what an answer reads."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.app.serving.test_serving import error

PROMPT: dict[str, Any] = {"model": "merged", "prompt": "One, two, three"}
CHAT: dict[str, Any] = {"model": "chatty", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(("body", "path"), [(PROMPT, "completions"), (CHAT, "chat/completions")])
async def test_counts_are_those_of_an_answer(
    http: httpx.AsyncClient, body: dict[str, Any], path: str
) -> None:
    response = await http.post("/tokenize", json=body)
    assert response.status_code == 200, response.text
    told = response.json()
    answer = (await http.post(f"/v1/{path}", json={**body, "max_tokens": 1})).json()
    assert told["count"] == len(told["tokens"]) == answer["usage"]["prompt_tokens"]
    assert told["max_model_len"] > told["count"]


async def test_it_asks_for_a_key(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        error(await client.post("/tokenize", json=PROMPT), 401, "invalid_api_key", None)


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"model": "nobody", "prompt": "a"}, 404, "model_not_found", "model"),
        ({"model": "merged"}, 400, "invalid_value", "prompt"),
        ({**CHAT, "prompt": "a"}, 400, "invalid_value", "prompt"),
        ({**PROMPT, "typo": 1}, 400, "invalid_value", "typo"),
    ],
)
async def test_refusals(
    http: httpx.AsyncClient, body: dict[str, Any], status: int, code: str, param: str
) -> None:
    error(await http.post("/tokenize", json=body), status, code, param)
