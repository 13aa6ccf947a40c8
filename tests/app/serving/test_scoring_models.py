"""Merges of scored text: what its experts give to a text's tokens is mixed, and told of."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI
from openai import BadRequestError, InternalServerError, OpenAI
from tests.support.asked import ECHOES, FakeAsker, served_expert, stored
from tests.support.outputs import echoed
from tests.support.served import World, add_merge, running

from evomerge.app.outputs import StoredOutput
from evomerge.app.serving.answers import Gathered, completion_logprobs, gather
from evomerge.app.serving.errors import BadParameterError, ModelUnavailableError
from evomerge.app.serving.protocol import Request
from evomerge.app.serving.scoring import ScoringModel
from evomerge.connectors.errors import ProviderDownError
from evomerge.connectors.local.engine_values import Draw
from evomerge.connectors.output.evidence import fusion_of
from evomerge.connectors.output.task import Task
from evomerge.evaluation.example import Example
from evomerge.merging.output.merge import OutputMerge

TEXTS = ("Berlin is in Germany", "a b")
SYSTEM = "Be brief."
# In float32 a text's numbers depend on what else is in its batch, by some 1e-7 a token.
ROUNDING = 1e-5
SCORE: dict[str, Any] = {"max_tokens": 0, "logprobs": 1, "echo": True}
BETA = {"one": 0.6, "two": 0.2, "gone": 0.5, "against": -0.7}


def request(*texts: str) -> Request:
    return Request(Draw(), max_tokens=0, prompts=texts, alternatives=0, echo=True)


async def scored(asker: FakeAsker, *texts: str) -> tuple[list[Gathered], dict[str, Any]]:
    run = await ScoringModel(stored("texts"), asker).start(request(*texts))
    return await gather(run, len(texts)), run.report


def mean(answer: Gathered) -> float:
    known = [one.logprob for one in answer.prompt.tokens if one.logprob is not None]
    return sum(known) / len(known)


async def test_scores_are_those_of_the_searchs_own_fusion() -> None:
    asker = FakeAsker()
    answers, report = await scored(asker, *TEXTS)
    assert sorted(asker.asked) == ["ann", "ann", "bob", "bob"]
    assert asker.most_under_way == 4
    merge = stored("texts")
    rows = [Example("", text) for text in TEXTS]
    given = [
        [(echoed(asker.echo(name, text)),) if name in ECHOES else () for text in TEXTS]
        for name in merge.merge.experts
    ]
    fusion = fusion_of([one.expert for one in merge.experts], rows, given, merge.task)
    losses = fusion.losses([merge.merge.alpha], [merge.merge.beta], "cross_entropy")  # type: ignore[arg-type]
    assert [-mean(answer) for answer in answers] == pytest.approx(losses[0].tolist())
    assert report["asked"] == ["ann", "bob"]
    assert [one["index"] for one in report["answers"]] == [0, 1]


async def test_one_that_is_down_or_silent_is_left_out_and_told_of() -> None:
    def down(name: str) -> None:
        if name == "ann":
            raise ProviderDownError(name, "connection reset")

    for asker, why in (
        (FakeAsker(fails=down), "it cannot be reached"),
        (
            FakeAsker(cut=lambda name, text: text if name == "bob" else "else"),
            "its answer does not say what was asked",
        ),
    ):
        [answer], report = await scored(asker, "a b")
        assert mean(answer) == pytest.approx(ECHOES["bob"])
        assert report["failed"] == [{"expert": "ann", "index": 0, "reason": why}]
        assert report["answers"] == [{"index": 0, "weights": {"bob": 1.0}}]


async def test_without_anybody_there_are_no_scores() -> None:
    with pytest.raises(ModelUnavailableError, match=r"no expert answers \(ann: its answer.*bob"):
        await scored(FakeAsker(cut=lambda name, text: "else"), "a b")


async def test_experts_of_different_tokenizers_are_refused_by_name() -> None:
    words = FakeAsker(cut=lambda name, text: text.split(" ") if name == "bob" else text)
    with pytest.raises(BadParameterError, match=r"'bob' cuts text 1 into.*'ann'") as refused:
        await scored(words, "a", "abc")
    assert refused.value.param == "prompt"


async def test_pieces_of_characters_take_no_room() -> None:
    pieces = FakeAsker(cut=lambda name, text: [*text.replace("é", "\ufffd\ufffd")])
    for text, offsets in (("aéb", [0, 1, 1, 2]), ("abé", [0, 1, 2, 2])):
        [answer], _ = await scored(pieces, text)
        told = completion_logprobs(answer.prompt, text, answer.tokens)
        assert told["text_offset"] == offsets


@pytest.fixture(scope="module")
def address(second: World, url: str) -> Iterator[str]:
    """Another service, whose merges ask the experts of the first one over HTTP."""
    there = f"{url}/v1"
    one, two = (served_expert(name, there) for name in ("one", "two"))
    gone = served_expert("gone", "http://127.0.0.1:9/v1")
    variant = served_expert("variant", there, "two", system=SYSTEM)
    against = served_expert("against", there, "two")
    merges = {
        "mixed": (one, two, gone, against),
        "variants": (one, variant),
        "away": (gone,),
    }
    for name, experts in merges.items():
        names = tuple(expert.name for expert in experts)
        beta = tuple(BETA.get(each, 0.3) for each in names)
        merge = OutputMerge("scored_text", "cross_entropy", names, (1.0,) * len(names), beta)
        task = Task("scored_text", "cross_entropy")
        job = StoredOutput(merge, task, experts)
        add_merge(second, f"mj_{name}", name, "output", job.write)
    with running(second.settings) as address:
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=address, api_key="none", max_retries=0) as client:
        yield client


def own_logprobs(url: str, model: str, text: str) -> list[float]:
    """What an expert itself is served with, but for the first token."""
    response = httpx.post(
        f"{url}/v1/completions",
        json={"model": model, "prompt": text, **SCORE},
        headers={"Authorization": "Bearer sk-right"},
        timeout=60,
    )
    return response.json()["choices"][0]["logprobs"]["token_logprobs"][1:]


def mixture(weights: Sequence[float], rows: Sequence[Sequence[float]]) -> list[float]:
    """log of the weighted mean of probabilities, token by token."""
    return [
        math.log(sum(w * math.exp(p) for w, p in zip(weights, at, strict=True)) / sum(weights))
        for at in zip(*rows, strict=True)
    ]


def test_a_mixture_over_http_is_that_of_its_experts_own_numbers(client: OpenAI, url: str) -> None:
    said = client.completions.create(model="mixed", prompt=list(TEXTS), **SCORE)
    for text, choice in zip(TEXTS, said.choices, strict=True):
        assert (choice.text, choice.finish_reason) == (text, "length")
        told = choice.logprobs
        assert told is not None
        assert told.tokens == list(text)
        assert told.text_offset == list(range(len(text)))
        first, *rest = told.token_logprobs or []
        own = [own_logprobs(url, name, text) for name in ("one", "two")]
        assert first is None
        assert rest == pytest.approx(mixture([0.6, 0.2], own), abs=ROUNDING)
        tops = [{token: p} for token, p in zip(text[1:], rest, strict=True)]
        assert told.top_logprobs == [None, *tops]
    report = said.model_extra["evomerge"]
    assert report["asked"] == ["one", "two", "gone"]
    assert [(one["expert"], one["index"]) for one in report["failed"]] == [("gone", 0), ("gone", 1)]
    weights = {"one": pytest.approx(0.75), "two": pytest.approx(0.25)}
    assert report["answers"] == [{"index": n, "weights": weights} for n in range(2)]
    assert said.usage is not None
    # Each of the two that answered counts them.
    assert said.usage.prompt_tokens == 2 * sum(map(len, TEXTS))
    assert said.usage.completion_tokens == 0


def test_a_system_prompt_stands_before_the_text(client: OpenAI, url: str) -> None:
    [text, _] = TEXTS
    said = client.completions.create(model="variants", prompt=text, **SCORE)
    whole = own_logprobs(url, "two", f"{SYSTEM}\n\n{text}")
    own = [own_logprobs(url, "one", text), whole[-len(text) + 1 :]]
    assert said.choices[0].logprobs is not None
    found = said.choices[0].logprobs.token_logprobs or []
    assert found[0] is None
    assert found[1:] == pytest.approx(mixture([0.6, 0.3], own), abs=ROUNDING)


def test_lm_eval_finds_the_mixtures_log_likelihood(
    client: OpenAI, address: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    # Token ids mean nothing to experts elsewhere: texts are to be sent.
    lm = LocalCompletionsAPI(
        base_url=f"{address}/completions",
        model="mixed",
        tokenizer=str(world.base),
        tokenized_requests=False,
        max_retries=1,
    )
    asked = [("Berlin is in", " Germany"), ("a", " b")]
    found = lm.loglikelihood(
        [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(asked)], disable_tqdm=True
    )
    for (context, rest), (total, _) in zip(asked, found, strict=True):
        said = client.completions.create(model="mixed", prompt=context + rest, **SCORE)
        assert said.choices[0].logprobs is not None
        numbers = (said.choices[0].logprobs.token_logprobs or [])[len(context) :]
        assert total == pytest.approx(sum(numbers), abs=ROUNDING)


def test_a_stream_brings_the_scores_and_then_the_report(client: OpenAI) -> None:
    whole = client.completions.create(model="mixed", prompt="a b", **SCORE)
    chunks = list(client.completions.create(model="mixed", prompt="a b", stream=True, **SCORE))
    assert chunks[0].choices[0].text == "a b"
    said, told = chunks[0].choices[0].logprobs, whole.choices[0].logprobs
    assert said is not None
    assert told is not None
    assert (said.tokens, said.text_offset) == (told.tokens, told.text_offset)
    assert said.token_logprobs == pytest.approx(told.token_logprobs, abs=ROUNDING)
    assert chunks[-1].model_extra["evomerge"] == whole.model_extra["evomerge"]


@pytest.mark.parametrize(
    ("param", "changed"),
    [
        ("max_tokens", {"max_tokens": 2}),
        ("max_tokens", {"max_tokens": None}),
        ("echo", {"echo": False}),
        ("logprobs", {"logprobs": None}),
        ("n", {"n": 2}),
        ("prompt", {"prompt": [97, 98]}),
        ("prompt", {"prompt": ""}),
        ("choices", {"extra_body": {"choices": ["a", "b"]}}),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(
    client: OpenAI, param: str, changed: dict[str, Any]
) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.completions.create(**{"model": "mixed", "prompt": "a b", **SCORE, **changed})
    assert refused.value.param == param
    assert param in json.dumps(refused.value.body)


def test_it_says_what_it_can_do_instead_of_writing(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match=r"writes no answers.*echo=true.*max_tokens=0"):
        client.completions.create(model="mixed", prompt="a b", max_tokens=5)
    with pytest.raises(BadRequestError, match="writes no answers") as chat:
        client.chat.completions.create(model="mixed", messages=[{"role": "user", "content": "hi"}])
    assert chat.value.param == "messages"
    with pytest.raises(InternalServerError, match="no expert answers") as away:
        client.completions.create(model="away", prompt="a b", **SCORE)
    assert away.value.status_code == 503
