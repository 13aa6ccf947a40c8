"""Merges by outputs: who is asked, and what happens when some are down."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai import BadRequestError, InternalServerError, OpenAI
from tests.support.asked import NAMES, SAYS, FakeAsker, served_expert, stored
from tests.support.served import World, add_merge, running

from evomerge.app.outputs import StoredOutput
from evomerge.app.serving.answers import gather
from evomerge.app.serving.errors import BadParameterError, ModelUnavailableError
from evomerge.app.serving.output import OutputModel
from evomerge.app.serving.protocol import Request, Run
from evomerge.connectors.errors import CredentialError, ProviderDownError
from evomerge.connectors.local.engine_values import Draw
from evomerge.connectors.output.fused import fused
from evomerge.connectors.output.task import Task
from evomerge.connectors.question import Answer, Completion
from evomerge.evaluation.example import Example
from evomerge.merging.output.merge import OutputMerge

CANARY = "sk-canary-in-a-providers-message"
ASKED = Request(draw=Draw(), messages=(("user", "Which?"),))


def down(*names: str) -> Callable[[str], None]:
    def fail(name: str) -> None:
        if name in names:
            raise ProviderDownError(name, f"connection reset {CANARY}")

    return fail


async def answered(model: OutputModel, request: Request = ASKED) -> tuple[str, dict[str, Any]]:
    run: Run = await model.start(request)
    [answer] = await gather(run, 1)
    return answer.text, run.report


async def test_only_kept_experts_are_asked_and_all_at_once() -> None:
    asker = FakeAsker()
    text, report = await answered(OutputModel(stored("choices"), asker))
    assert sorted(asker.asked) == ["ann", "bob", "cy"]
    assert asker.most_under_way == 3
    assert text == "paris"
    assert report["asked"] == ["ann", "bob", "cy"]
    assert report["failed"] == []
    [answer] = report["answers"]
    assert answer["weights"] == pytest.approx(
        {"ann": 0.6 / 1.1, "bob": 0.5 / 1.1, "cy": -0.2 / 1.1}
    )
    assert sum(one["probability"] for one in answer["choices"]) == pytest.approx(1)


@pytest.mark.parametrize("kind", SAYS)
async def test_answers_are_those_of_the_searchs_own_fusion(kind: str) -> None:
    merge = stored(kind)
    text, report = await answered(OutputModel(merge, FakeAsker()))
    example = Example("Which?", merge.merge.choices[0] if merge.merge.choices else "")
    if merge.merge.choices:
        example = Example("Which?", merge.merge.choices[0], merge.merge.choices)
    given = [
        (Answer((Completion(SAYS[kind][name], "stop"),), 1, 1),) if name in SAYS[kind] else ()
        for name in NAMES
    ]
    experts = [one.expert for one in merge.experts]
    assert text == fused(merge.merge, experts, example, given, merge.task).text
    assert report.get("threshold") == merge.merge.threshold


async def test_one_that_is_down_is_left_out_and_told_of() -> None:
    model = OutputModel(stored("choices"), FakeAsker(fails=down("ann", "bob")))
    # Against a single negative voice nobody speaks: without positive ones the others say all.
    _, report = await answered(model)
    assert {one["expert"] for one in report["failed"]} == {"ann", "bob"}
    assert report["answers"][0]["weights"] == {"cy": pytest.approx(-0.2)}
    assert CANARY not in json.dumps(report)

    text, report = await answered(OutputModel(stored("words"), FakeAsker(fails=down("ann"))))
    assert text == SAYS["words"]["bob"]
    assert report["failed"] == [{"expert": "ann", "index": 0, "reason": "it cannot be reached"}]
    assert report["answers"][0]["weights"] == {"bob": 1.0, "cy": pytest.approx(-0.2 / 0.5)}


async def test_without_anybody_there_is_no_answer() -> None:
    def refused(name: str) -> None:
        raise CredentialError(name, f"401 {CANARY}")

    model = OutputModel(stored("choices"), FakeAsker(fails=refused))
    with pytest.raises(ModelUnavailableError, match=r"no expert answers.*ann: its cred") as told:
        await answered(model)
    assert told.value.status == 503
    assert CANARY not in str(told.value)


async def test_options_come_with_the_request_or_with_the_merge() -> None:
    asker = FakeAsker()
    open_ = OutputModel(stored("choices", choices=None), asker)
    with pytest.raises(BadParameterError, match="give the options") as refused:
        await open_.start(ASKED)
    assert refused.value.param == "choices"
    chosen = Request(draw=Draw(), messages=ASKED.messages, choices=("tea", "milk"))
    assert (await answered(open_, chosen))[0] == "milk"


async def test_token_ids_are_refused() -> None:
    with pytest.raises(BadParameterError, match="token ids"):
        await OutputModel(stored("words"), FakeAsker()).start(Request(Draw(), prompts=((1, 2),)))


@pytest.fixture(scope="module")
def votes(second: World, url: str) -> Any:
    """Another service, whose merge asks the experts of the first one over HTTP; its client."""
    task = Task("choice", "choice_accuracy")
    names = ("one", "two", "gone")
    merge = OutputMerge("choice", "choice_accuracy", names, (1.0,) * 3, (0.7, 0.4, 0.5))
    away = OutputMerge("choice", "choice_accuracy", ("gone",), (1.0,), (0.5,))
    one, two = (served_expert(name, f"{url}/v1") for name in ("one", "two"))
    gone = served_expert("gone", "http://127.0.0.1:9/v1")
    merges = {
        "mj_votes": StoredOutput(merge, task, (one, two, gone)),
        "mj_away": StoredOutput(away, task, (gone,)),
    }
    for job, stored_ in merges.items():
        add_merge(second, job, job.removeprefix("mj_"), "output", stored_.write)
    with (
        running(second.settings) as address,
        OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def test_a_merge_over_http_chooses_as_its_experts_numbers_say(votes: OpenAI, url: str) -> None:
    options = ["Germany", "France"]
    said = votes.chat.completions.create(
        model="votes",
        messages=[{"role": "user", "content": "Berlin is in"}],
        extra_body={"choices": options},
    )
    report = said.model_extra["evomerge"]
    [answer] = report["answers"]
    assert said.choices[0].message.content in options
    assert [one["expert"] for one in report["failed"]] == ["gone"]
    assert report["asked"] == ["one", "two", "gone"]

    scores = {name: _log_likelihoods(url, name, options) for name in ("one", "two")}
    pooled = [
        0.7 * scores["one"][n] / len(option) + 0.4 * scores["two"][n] / len(option)
        for n, option in enumerate(options)
    ]
    by_probability = max(answer["choices"], key=lambda one: one["probability"])
    assert by_probability["text"] == options[pooled.index(max(pooled))]
    assert by_probability["text"] == said.choices[0].message.content


def test_what_is_read_elsewhere_has_no_tokens_here(votes: OpenAI) -> None:
    root = str(votes.base_url).removesuffix("/v1/")
    response = httpx.post(f"{root}/tokenize", json={"model": "votes", "prompt": "a"}, timeout=60)
    assert response.status_code == 501
    error = response.json()["error"]
    assert error["param"] == "model"
    assert "no tokenizer here" in error["message"]


def _log_likelihoods(url: str, model: str, options: list[str]) -> list[float]:
    """Of the options behind the prompt, asked of an expert directly."""
    prompt = "Berlin is in"
    body = {
        "model": model,
        "prompt": [f"{prompt} {option}" for option in options],
        "max_tokens": 0,
        "echo": True,
        "logprobs": 1,
    }
    headers = {"Authorization": "Bearer sk-right"}
    response = httpx.post(f"{url}/v1/completions", json=body, headers=headers, timeout=60)
    choices = response.json()["choices"]
    return [sum(one["logprobs"]["token_logprobs"][len(prompt) :]) for one in choices]


def test_a_stream_ends_with_the_report(votes: OpenAI) -> None:
    chunks = list(
        votes.completions.create(
            model="mj_votes", prompt="Berlin is in", stream=True, extra_body={"choices": ["a", "b"]}
        )
    )
    assert "".join(one.choices[0].text for one in chunks if one.choices) in ("a", "b")
    assert chunks[-1].model_extra["evomerge"]["asked"]


def test_what_it_cannot_do_is_refused_over_http(votes: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "votes", "prompt": "a", "extra_body": {"choices": ["a", "b"]}}
    for param, value in {"logprobs": 1, "echo": True, "n": 2}.items():
        with pytest.raises(BadRequestError) as refused:
            votes.completions.create(**asked, **{param: value})
        assert refused.value.param == param
    with pytest.raises(InternalServerError) as away:
        votes.completions.create(**{**asked, "model": "away"})
    assert away.value.status_code == 503
    assert away.value.response.headers["retry-after"]
