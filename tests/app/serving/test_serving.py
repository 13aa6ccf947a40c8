"""What a real server shows: errors by name, clients that go away, and HTTP that is not starved."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from tests.support.databases import sqlite_url
from tests.support.served import World, add_merge, make_world, running
from tests.support.tiny import make_base
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.app.schemas.answers import ChatCompletion, Completion
from evomerge.app.schemas.completions import CHAT_REQUESTS, COMPLETION_REQUESTS

CHAT: dict[str, Any] = {"model": "merged", "messages": [{"role": "user", "content": "a"}]}
LONG = {**CHAT, "max_tokens": 200, "temperature": 2, "seed": 1, "n": 8, "stream": True}


def error(response: httpx.Response, status: int, code: str, param: str | None) -> str:
    assert response.status_code == status, response.text
    told = response.json()["error"]
    assert (told["code"], told["param"]) == (code, param), told
    message: str = told["message"]
    return message


async def test_others_are_answered_while_a_long_answer_is_written(http: httpx.AsyncClient) -> None:
    async with http.stream("POST", "/v1/chat/completions", json=LONG) as response:
        lines = response.aiter_lines()
        assert json.loads((await anext(lines)).removeprefix("data: "))["choices"]
        assert (await http.get("/healthz")).status_code == 200
        short = await http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 1})
        assert short.status_code == 200
        rest = [line async for line in lines if line]
    assert rest[-1] == "data: [DONE]"


async def test_an_answer_that_nobody_waits_for_makes_room(
    sqlite_template: Path, tmp_path: Path
) -> None:
    shutil.copy(sqlite_template, tmp_path)
    world = await asyncio.to_thread(
        make_world, tmp_path, sqlite_url(tmp_path), serve_rows=1, serve_waiting=1
    )
    async with _client(world) as http:
        one = {**LONG, "n": 1}
        async with http.stream("POST", "/v1/chat/completions", json=one) as response:
            first = await anext(response.aiter_lines())
            assert first.startswith("data: ")
            waiting = asyncio.create_task(
                http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 1})
            )
            # One is written and one waits, or has been read by now: of two more one is too many.
            more = [{**CHAT, "max_tokens": 200, "temperature": 2, "seed": n} for n in range(3)]
            answers = await asyncio.gather(
                *(http.post("/v1/chat/completions", json=each) for each in more)
            )
            busy = [each for each in answers if each.status_code == 503]
            assert busy
            error(busy[0], 503, "overloaded", None)
            assert busy[0].headers["retry-after"]
        assert (await waiting).status_code in (200, 503)
        # The long answer was left in its midst: there is room again.
        async with asyncio.timeout(60):
            last = await http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 1})
        assert last.status_code == 200


class _client:  # noqa: N801
    """A client of a service of its own."""

    def __init__(self, world: World) -> None:
        self._running = running(world.settings)

    async def __aenter__(self) -> httpx.AsyncClient:
        url = await asyncio.to_thread(self._running.__enter__)
        self._http = httpx.AsyncClient(base_url=url, timeout=60)
        return self._http

    async def __aexit__(self, *failure: object) -> None:
        await self._http.aclose()
        await asyncio.to_thread(self._running.__exit__, None, None, None)


REFUSED: list[tuple[str, dict[str, Any], str, str | None]] = [
    ("/v1/chat/completions", {**CHAT, "tools": [{}]}, "unsupported_parameter", "tools"),
    ("/v1/chat/completions", {**CHAT, "typo": 1}, "invalid_value", "typo"),
    ("/v1/chat/completions", {**CHAT, "top_logprobs": 2}, "invalid_value", "top_logprobs"),
    ("/v1/chat/completions", {**CHAT, "stop": [""]}, "invalid_value", "stop"),
    ("/v1/chat/completions", {"model": "merged", "messages": []}, "invalid_value", "messages"),
    ("/v1/chat/completions", {**CHAT, "choices": ["a", "b"]}, "unsupported_parameter", "choices"),
    ("/v1/completions", {"model": "merged", "prompt": {}}, "invalid_value", "prompt"),
    (
        "/v1/completions",
        {"model": "merged", "prompt": "a", "logprobs": 6},
        "invalid_value",
        "logprobs",
    ),
    (
        "/v1/completions",
        {"model": "merged", "prompt": "a", "best_of": 3},
        "unsupported_parameter",
        "best_of",
    ),
    ("/v1/completions", {"model": "merged", "prompt": [257]}, "invalid_value", "prompt"),
    ("/v1/completions", {"model": "merged"}, "invalid_value", "prompt"),
    (
        "/v1/completions",
        {"model": "merged", "prompt": "a", "max_tokens": 256},
        "context_length_exceeded",
        "max_tokens",
    ),
]


@pytest.mark.parametrize(("path", "body", "code", "param"), REFUSED)
async def test_refusals_name_the_parameter(
    http: httpx.AsyncClient, path: str, body: dict[str, Any], code: str, param: str | None
) -> None:
    response = await http.post(path, json=body)
    assert error(response, 400, code, param)


async def test_bodies_that_are_no_json_are_refused(http: httpx.AsyncClient) -> None:
    response = await http.post(
        "/v1/completions", content=b"{", headers={"content-type": "application/json"}
    )
    error(response, 400, "invalid_json", None)


async def test_answers_keep_to_the_documented_shapes(http: httpx.AsyncClient) -> None:
    for path, model, requests in (
        ("/v1/completions", Completion, COMPLETION_REQUESTS),
        ("/v1/chat/completions", ChatCompletion, [CHAT_REQUESTS[0], {**CHAT, "logprobs": True}]),
    ):
        for request in requests:
            asked = {**request, "model": "merged"}
            response = await http.post(path, json=asked)
            assert response.status_code == 200, response.text
            body = response.json()
            model.model_validate(body, extra="forbid")


async def test_a_model_whose_files_are_gone_says_so(sqlite_template: Path, tmp_path: Path) -> None:
    shutil.copy(sqlite_template, tmp_path)
    world = await asyncio.to_thread(make_world, tmp_path, sqlite_url(tmp_path), serve_experts=False)
    weights = world.adapters["mj_merged"] / "adapter_model.safetensors"
    weights.write_bytes(b"broken")
    async with _client(world) as http:
        response = await http.post("/v1/chat/completions", json=CHAT)
        assert str(tmp_path) not in error(response, 503, "model_unavailable", "model")
        response = await http.post("/v1/chat/completions", json={**CHAT, "model": "one"})
        error(response, 404, "model_not_found", "model")
        assert [one["id"] for one in (await http.get("/v1/models")).json()["data"]] == [
            "chatty",
            "merged",
        ]


async def test_what_a_rule_made_of_adapters_answers_as_the_checkpoint_it_is(
    sqlite_template: Path, tmp_path: Path
) -> None:
    shutil.copy(sqlite_template, tmp_path)
    world = await asyncio.to_thread(make_world, tmp_path, sqlite_url(tmp_path))

    def write(folder: Path) -> None:
        shutil.copytree(make_base(tmp_path / "made", seed=11), folder, dirs_exist_ok=True)

    method = {"name": "ties"}
    await asyncio.to_thread(add_merge, world, "mj_ties", "ties", "lora", write, method=method)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made")
    tokens = tokenizer("Berlin is in", return_tensors="pt").input_ids
    logs = torch.log_softmax(model(tokens).logits[0, :-1].double(), -1)
    expected = logs.gather(1, tokens[0, 1:, None])[:, 0].tolist()
    asked = {
        "model": "ties",
        "prompt": "Berlin is in",
        "max_tokens": 1,
        "echo": True,
        "logprobs": 1,
    }
    async with _client(world) as http:
        answer = await http.post("/v1/completions", json=asked)
        assert answer.status_code == 200, answer.text
        told = answer.json()["choices"][0]["logprobs"]["token_logprobs"]
    assert told[1 : tokens.shape[1]] == pytest.approx(expected, abs=1e-4)
