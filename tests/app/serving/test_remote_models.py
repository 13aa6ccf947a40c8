"""Merges that live at their provider, and those whose winner is an adapter here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.responses import JSONResponse, Response
from openai import APIStatusError, BadRequestError, OpenAI
from tests.support.databases import sqlite_url
from tests.support.fake_llama_cpp import FakeLlamaCpp
from tests.support.fake_lorax import FakeLorax
from tests.support.loopback import serving
from tests.support.served import World, add_merge, make_world, running
from tests.support.tiny_model import TinyModel, added, delta, linear, read_factors

BETA = {"0": 0.7, "1": -0.4}
PROMPT = "Berlin is in"


@pytest.fixture(scope="module")
def here(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("remote")
    shutil.copy(sqlite_template, folder)
    return make_world(
        folder,
        sqlite_url(folder),
        allowed_hosts=["127.0.0.1:*"],
        allowed_networks=["127.0.0.0/8"],
        endpoint_limits={"*": {"attempts": 1}},
    )


@pytest.fixture(scope="module")
def model(here: World) -> TinyModel:
    return TinyModel(here.base)


@pytest.fixture(scope="module")
def llama_cpp(here: World, model: TinyModel) -> FakeLlamaCpp:
    fake = FakeLlamaCpp(model, [read_factors(here.adapters[name]) for name in ("one", "two")])

    def write(body: dict[str, Any]) -> Response | None:
        fake.asked.append(body)
        if "fail" in body["prompt"]:
            return JSONResponse({"error": {"code": 503, "message": "Loading model"}}, 503)
        text, ended = written(model, body["prompt"], fake._update(body), body["n_predict"])
        return JSONResponse(
            {
                "index": 0,
                "content": text,
                "stop": True,
                "stop_type": "eos" if ended else "limit",
                "tokens_predicted": 6,
                "tokens_evaluated": len(body["prompt"]),
                "truncated": False,
            }
        )

    fake.fault = write
    return fake


@pytest.fixture(scope="module")
def lorax(here: World, model: TinyModel) -> FakeLorax:
    fake = FakeLorax(
        model,
        {n: read_factors(here.adapters[x]) for n, x in zip(BETA, ("one", "two"), strict=True)},
    )

    def write(body: dict[str, Any]) -> Response | None:
        parameters = body["parameters"]
        fake.asked.append(parameters)
        update = fake._update(parameters)
        if isinstance(update, Response):
            return update
        text, ended = written(model, body["inputs"], update, parameters["max_new_tokens"])
        details = {
            "finish_reason": "eos_token" if ended else "length",
            "prompt_tokens": len(body["inputs"]),
            "generated_tokens": 6,
            "tokens": [],
        }
        return JSONResponse({"generated_text": text, "details": details})

    fake.fault = write
    return fake


def written(model: TinyModel, prompt: str, update: Any, room: int) -> tuple[str, bool]:
    tokens = [token for token, _ in model.greedy(model.ids(prompt), update, room)]
    ended = 256 in tokens
    kept = tokens[: tokens.index(256)] if ended else tokens
    return "".join(model.text(token) for token in kept), ended


@pytest.fixture(scope="module")
def client(here: World, llama_cpp: FakeLlamaCpp, lorax: FakeLorax) -> Iterator[OpenAI]:
    weights = {name: {"alpha": 1.0, "beta": beta} for name, beta in BETA.items()}

    def write(folder: Path) -> None:
        (folder / "merge.json").write_text(json.dumps({"adapters": weights}))

    with serving(llama_cpp.app()) as first, serving(lorax.app()) as second:
        for provider, url in (("llama_cpp", first), ("lorax", second)):
            remote = {"provider": provider, "base_urls": [url], "adapters": list(BETA)}
            asked = {"experts": None, "remote": remote, "method": {"name": "cma"}}
            add_merge(here, f"mj_{provider}", provider, "remote", write, **asked)
        with (
            running(here.settings) as url,
            OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        ):
            yield client


def test_the_weights_travel_and_the_answer_is_the_merges(
    client: OpenAI, here: World, model: TinyModel, llama_cpp: FakeLlamaCpp, lorax: FakeLorax
) -> None:
    factors = [read_factors(here.adapters[name]) for name in ("one", "two")]
    pairs = list(zip(BETA.values(), factors, strict=True))
    updates = {
        "llama_cpp": added([delta(one, beta) for beta, one in pairs]),
        "lorax": linear(pairs),
    }
    for name, update in updates.items():
        said = client.completions.create(model=name, prompt=PROMPT, max_tokens=6, temperature=0)
        text, ended = written(model, PROMPT, update, 6)
        assert said.choices[0].text == text
        assert said.choices[0].finish_reason == ("stop" if ended else "length")
        assert said.usage is not None
        assert (said.usage.prompt_tokens, said.usage.completion_tokens) == (len(PROMPT), 6)
        chat = client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": PROMPT}], max_tokens=6, temperature=0
        )
        assert chat.choices[0].message.content == text.strip()
    assert llama_cpp.asked[-1]["lora"] == [{"id": 0, "scale": 0.7}, {"id": 1, "scale": -0.4}]
    assert llama_cpp.asked[-1]["cache_prompt"] is False
    assert lorax.asked[-1]["merged_adapters"]["weights"] == [0.7, -0.4]


def test_stops_seeds_and_several_answers(client: OpenAI, lorax: FakeLorax) -> None:
    whole = client.completions.create(model="lorax", prompt=PROMPT, max_tokens=6, temperature=0)
    text = whole.choices[0].text
    cut = client.completions.create(
        model="lorax", prompt=PROMPT, max_tokens=6, temperature=0, stop=text[2:4]
    )
    assert cut.choices[0].text == text[: text.index(text[2:4])]
    assert cut.choices[0].finish_reason == "stop"
    begun = len(lorax.asked)
    client.completions.create(
        model="lorax", prompt=[PROMPT, "a"], n=2, seed=5, temperature=0.5, max_tokens=2
    )
    seeds = [one["seed"] for one in lorax.asked[begun:]]
    assert sorted(seeds) == [5, 5, 6, 6]


def test_what_a_provider_cannot_do_is_refused(client: OpenAI) -> None:
    for param, value in {"logprobs": 1, "echo": True}.items():
        with pytest.raises(BadRequestError) as refused:
            client.completions.create(model="lorax", prompt="a", **{param: value})
        assert refused.value.param == param


def test_a_provider_that_is_down_is_told_of(client: OpenAI) -> None:
    with pytest.raises(APIStatusError) as away:
        client.completions.create(model="llama_cpp", prompt="fail", max_tokens=2)
    assert away.value.status_code == 503
    assert "127.0.0.1" not in str(away.value.body)
