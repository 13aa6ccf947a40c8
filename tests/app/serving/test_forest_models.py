"""Forests as models, over HTTP and by the official client: what they say is a plain mixture's."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI
from sqlalchemy import update
from tests.app.serving.test_serving import error
from tests.support.databases import sqlite_url
from tests.support.forests import forest_rows, make_forest, mixed
from tests.support.served import EXAMPLES, running

from evomerge.app.db.engine import Database
from evomerge.app.db.models import Forest, ForestElm
from evomerge.app.ensembles import Ensemble
from evomerge.app.settings import Settings
from evomerge.connectors.local.base_model import BaseModel, load_base

PRIOR = {"ada": 0.2, "bob": 0.5, "cyd": 0.3}
PROMPTS = [example.prompt for example in EXAMPLES]
FORESTS: dict[str, dict[str, Any]] = {
    "grove": {"prior": PRIOR},
    "pair": {"prior": PRIOR, "top_k": 2, "top_k_kind": "static", "history": "previous"},
    "settled": {},
}


@dataclass(frozen=True)
class Wood:
    """A service and the ELMs of its forests."""

    settings: Settings
    folders: dict[str, Path]
    elms: dict[str, BaseModel]

    def change(self, name: str, **ensemble: Any) -> None:
        """Give a forest other settings, as another process would."""
        stored = Ensemble(**ensemble).stored()
        query = update(Forest).where(Forest.name == name).values(ensemble=stored)
        self._write(query)

    def point(self, elm: str, folder: Path) -> None:
        """Move an ELM's row to another folder."""
        self._write(update(ForestElm).where(ForestElm.name == elm).values(path=str(folder)))

    def _write(self, query: Any) -> None:
        async def write() -> None:
            database = Database(self.settings.url)
            async with database.write() as session:
                await session.execute(query)
            await database.dispose()

        asyncio.run(write())

    def mixed(self, tokens: list[int], **more: Any) -> tuple[np.ndarray, np.ndarray]:
        return mixed(list(self.elms.values()), np.array(list(PRIOR.values())), tokens, **more)


@pytest.fixture(scope="module")
def wood(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Wood:
    folder = tmp_path_factory.mktemp("wood")
    shutil.copy(sqlite_template, folder)
    folders = make_forest(folder / "elms")
    settings = Settings(
        data_dir=folder / "data",
        database_url=sqlite_url(folder),
        device="cpu",
        threads=1,
        batch_tokens=512,
    )
    asyncio.run(_plant(settings, folders))
    elms = {name: load_base(each, name=name, threads=1) for name, each in folders.items()}
    return Wood(settings, folders, elms)


async def _plant(settings: Settings, folders: dict[str, Path]) -> None:
    database = Database(settings.url)
    async with database.write() as session:
        for name, ensemble in FORESTS.items():
            forest, elms = forest_rows(folders, name, **ensemble)
            session.add(forest)
            await session.flush()
            for elm in elms:
                elm.id = f"{elm.id}_{name}"
                elm.name = elm.name if name != "settled" else f"{elm.name}2"
                session.add(elm)
        bare, _ = forest_rows({}, "bare")
        session.add(bare)
    await database.dispose()


@pytest.fixture(scope="module")
def url(wood: Wood) -> Iterator[str]:
    with running(wood.settings) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def http(url: str) -> Any:
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        yield client


def ids(wood: Wood, text: str) -> list[int]:
    return list(wood.elms["ada"].tokenizer(text).input_ids)


def report(said: Any) -> dict[str, Any]:
    extension = said.model_extra["evomerge"]
    assert isinstance(extension, dict)
    return extension


def test_forests_are_listed_and_found(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert sorted(listed) == ["grove", "pair", "settled"]
    about = {"kind": "forest", "forest_id": "forest_grove", "elms": ["ada", "bob", "cyd"]}
    assert report(listed["grove"]) == about
    assert report(client.models.retrieve("forest_grove")) == about
    with pytest.raises(openai.ConflictError, match="'bare' has no ELM yet"):
        client.chat.completions.create(model="bare", messages=[{"role": "user", "content": "a"}])


@pytest.mark.parametrize("name", ["grove", "forest_grove"])
def test_answers_are_the_likeliest_of_a_plain_mixture(
    client: OpenAI, wood: Wood, name: str
) -> None:
    said = client.completions.create(model=name, prompt=PROMPTS, temperature=0, max_tokens=4)
    for prompt, choice in zip(PROMPTS, said.choices, strict=True):
        tokens = ids(wood, prompt)
        start = len(tokens)
        for _ in range(4):
            tokens.append(int(wood.mixed(tokens)[0][-1].argmax()))
        assert choice.text == wood.elms["ada"].tokenizer.decode(tokens[start:])


def test_the_response_tells_the_posterior_of_each_answer(client: OpenAI, wood: Wood) -> None:
    scored = client.completions.create(
        model="grove", prompt=PROMPTS, max_tokens=0, echo=True, logprobs=0
    )
    told = report(scored)
    assert told["forest_id"] == "forest_grove"
    assert told["elms"] == list(PRIOR)
    assert told["prior"] == pytest.approx(PRIOR)
    assert [answer["index"] for answer in told["answers"]] == [0, 1, 2, 3]
    for prompt, answer in zip(PROMPTS, told["answers"], strict=True):
        _, posterior = wood.mixed(ids(wood, prompt))
        expected = dict(zip(PRIOR, posterior, strict=True))
        assert answer["posterior"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_a_stream_tells_the_posterior_as_it_stands(client: OpenAI, kind: str) -> None:
    more: dict[str, Any] = {"model": "grove", "temperature": 0, "max_tokens": 6}
    if kind == "chat":
        more["messages"] = [{"role": "user", "content": PROMPTS[0]}]
        create: Any = client.chat.completions.create
    else:
        more["prompt"] = PROMPTS[0]
        create = client.completions.create
    chunks = list(create(**more, stream=True, stream_options={"include_usage": True}))
    whole = report(create(**more))
    *pieces, last = [report(chunk) for chunk in chunks]
    assert len(pieces) >= 2
    for piece in pieces:
        assert piece["index"] == 0
        assert sum(piece["posterior"].values()) == pytest.approx(1)
    assert pieces[0]["posterior"] != pieces[-1]["posterior"]
    assert last["answers"][0]["posterior"] == pytest.approx(pieces[-1]["posterior"])
    assert last["answers"][0]["posterior"] == pytest.approx(
        whole["answers"][0]["posterior"], abs=1e-4
    )
    assert last["prior"] == whole["prior"]


def test_texts_are_scored_as_lm_eval_asks(client: OpenAI, wood: Wood) -> None:
    """Token ids, echoed, with one token more that is dropped."""
    tokens = [ids(wood, prompt + " more") for prompt in PROMPTS]
    scored = client.completions.create(
        model="grove", prompt=tokens, max_tokens=1, echo=True, logprobs=1, temperature=0
    )
    for each, choice in zip(tokens, scored.choices, strict=True):
        assert choice.logprobs is not None
        p, _ = wood.mixed(each)
        expected = [float(np.log(p[n, token])) for n, token in enumerate(each[1:])]
        assert choice.logprobs.token_logprobs[1:-1] == pytest.approx(expected, abs=1e-3)
        for place, top in enumerate(choice.logprobs.top_logprobs[1:]):
            assert max(top.values()) == pytest.approx(float(np.log(p[place].max())), abs=1e-3)


def test_a_chat_has_log_probabilities(client: OpenAI, wood: Wood) -> None:
    chat = client.chat.completions.create(
        model="grove",
        messages=[{"role": "user", "content": PROMPTS[0]}],
        max_tokens=3,
        logprobs=True,
        top_logprobs=3,
        temperature=0,
    ).choices[0]
    assert chat.logprobs is not None
    assert chat.logprobs.content is not None
    row = np.log(wood.mixed(ids(wood, PROMPTS[0]))[0][-1])
    first = chat.logprobs.content[0]
    assert first.logprob == pytest.approx(row.max(), abs=1e-3)
    best = np.sort(row)[::-1][:3].tolist()
    assert [top.logprob for top in first.top_logprobs] == pytest.approx(best, abs=1e-3)


def test_settings_of_the_forest_hold(client: OpenAI, wood: Wood) -> None:
    said = client.completions.create(
        model="pair", prompt=PROMPTS[0], max_tokens=0, echo=True, logprobs=0
    )
    told = report(said)
    assert told["elms"] == ["bob", "cyd"]
    assert (told["top_k"], told["top_k_kind"], told["history"]) == (2, "static", "previous")
    p, posterior = mixed(
        [wood.elms["bob"], wood.elms["cyd"]],
        np.array([0.625, 0.375]),
        ids(wood, PROMPTS[0]),
        history="previous",
    )
    logprobs = said.choices[0].logprobs
    assert logprobs is not None
    tokens = ids(wood, PROMPTS[0])
    expected = [float(np.log(p[n, token])) for n, token in enumerate(tokens[1:])]
    assert logprobs.token_logprobs[1:] == pytest.approx(expected, abs=1e-3)
    assert list(told["answers"][0]["posterior"].values()) == pytest.approx(
        posterior.tolist(), abs=1e-4
    )


def test_settings_that_change_hold_from_the_next_answer(client: OpenAI, wood: Wood) -> None:
    def told() -> dict[str, Any]:
        return report(client.completions.create(model="settled", prompt="a", max_tokens=1))

    assert told()["prior"] == pytest.approx({"ada2": 1 / 3, "bob2": 1 / 3, "cyd2": 1 / 3})
    wood.change("settled", prior={"ada2": 0.0, "bob2": 0.0, "cyd2": 1.0})
    assert told()["prior"] == {"cyd2": 1.0}
    wood.change("settled", top_k=1, top_k_kind="token")
    assert told()["top_k"] == 1


def test_an_elm_that_is_away_or_changed_is_told_of(
    client: OpenAI, wood: Wood, tmp_path: Path
) -> None:
    def ask() -> None:
        client.completions.create(model="settled", prompt="a", max_tokens=1)

    for place in (tmp_path / "nowhere", wood.folders["bob"]):
        wood.point("ada2", place)
        with pytest.raises(openai.InternalServerError) as refused:
            ask()
        assert refused.value.code == "model_unavailable"
        assert str(place) not in refused.value.message
    wood.point("ada2", wood.folders["ada"])
    ask()


async def test_what_it_cannot_do_is_refused_by_name(http: httpx.AsyncClient) -> None:
    body = {"model": "grove", "prompt": "a", "choices": ["yes", "no"]}
    error(await http.post("/v1/completions", json=body), 400, "unsupported_parameter", "choices")
    body = {"model": "grove", "prompt": "x" * 300}
    error(await http.post("/v1/completions", json=body), 400, "context_length_exceeded", "messages")
    body = {"model": "grove", "prompt": [999]}
    error(await http.post("/v1/completions", json=body), 400, "invalid_value", "prompt")


async def test_its_tokens_are_counted(http: httpx.AsyncClient, wood: Wood) -> None:
    told = (await http.post("/tokenize", json={"model": "grove", "prompt": "One, two"})).json()
    assert told["tokens"] == ids(wood, "One, two")
    assert told["max_model_len"] == wood.elms["ada"].context_tokens


async def test_a_seed_draws_the_same_answers(http: httpx.AsyncClient) -> None:
    body = {"model": "grove", "prompt": "One", "seed": 5, "n": 3, "max_tokens": 8}
    first = (await http.post("/v1/completions", json=body)).json()
    again = (await http.post("/v1/completions", json=body)).json()
    texts = [choice["text"] for choice in first["choices"]]
    assert texts == [choice["text"] for choice in again["choices"]]
    assert len(set(texts)) == 3
    assert len(json.loads(json.dumps(first["evomerge"]))["answers"]) == 3
