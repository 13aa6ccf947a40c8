from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from fastapi.responses import JSONResponse, Response
from tests.support import remote
from tests.support.fake_llama_cpp import FakeLlamaCpp
from tests.support.remote import LABELLED, Ground, calling, server

from evomerge.connectors.errors import (
    AskError,
    ProviderDownError,
    QuestionRefusedError,
    UnusableAnswerError,
)
from evomerge.connectors.http_errors import BadAnswerError
from evomerge.connectors.llama_cpp import (
    LlamaCppMerger,
    all_scales,
    label_logprobs,
    read_adapters,
    read_alternatives,
    read_tokens,
)
from evomerge.connectors.local.base_model import load_base
from evomerge.connectors.local.evaluator import LocalEvaluator
from evomerge.connectors.lorax import Texts
from evomerge.connectors.remote import RemoteEvaluator
from evomerge.evaluation.example import Example
from evomerge.merging.lora.space import LoraSpace
from evomerge.optimizers.candidate import Candidate, base, one_hot, uniform

SIGNED = Candidate(np.ones((1, 2)), np.array([[-0.7, 1.2]]))
CANDIDATES = [base(2), uniform(2), SIGNED, one_hot(0, 2)]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground[FakeLlamaCpp]]:
    with remote.llama_cpp(tmp_path_factory.mktemp("llama_cpp")) as made:
        yield made


@pytest.fixture
def fake(ground: Ground[FakeLlamaCpp]) -> FakeLlamaCpp:
    """The server's state, as new."""
    (one,) = ground.servers
    one.fault, one.name = lambda body: None, "completion_probabilities"
    one.asked.clear()
    return one


@pytest.mark.parametrize("metric", ["cross_entropy", "choice_accuracy"])
@pytest.mark.parametrize("name", ["completion_probabilities", "probs"])
async def test_losses_are_those_of_a_local_evaluation(
    ground: Ground[FakeLlamaCpp], fake: FakeLlamaCpp, metric: str, name: str
) -> None:
    local = LocalEvaluator(
        load_base(ground.weights, threads=1),
        LoraSpace(ground.pool, "exact"),
        metric,
        answer_prefix="",
        end_of_text=False,
    )
    expected = await local.score(CANDIDATES, LABELLED)
    fake.name = name
    async with calling() as caller:
        found = await RemoteEvaluator(ground.merger(caller), metric).score(CANDIDATES, LABELLED)
    np.testing.assert_allclose(found.losses, expected.losses, atol=1e-3)
    assert np.array_equal(found.weights, expected.weights)


async def test_every_request_lists_every_adapter_and_shuns_the_cache(
    ground: Ground[FakeLlamaCpp], fake: FakeLlamaCpp
) -> None:
    async with calling() as caller:
        evaluator = RemoteEvaluator(ground.merger(caller), "choice_accuracy")
        await evaluator.score([base(2), SIGNED], LABELLED)
    assert len(fake.asked) == 6  # one a row, whatever its options
    for body in fake.asked:
        assert [one["id"] for one in body["lora"]] == [0, 1, 2]
        assert body["lora"][2]["scale"] == 0.0
        assert body["cache_prompt"] is False
    assert {body["lora"][0]["scale"] for body in fake.asked} == {0.0, -0.7}


async def test_an_adapter_that_the_server_lacks_is_found_out_before_anything_is_asked(
    ground: Ground[FakeLlamaCpp], fake: FakeLlamaCpp
) -> None:
    async with calling() as caller:
        merger = LlamaCppMerger(server(caller, "llama_cpp", ground.url), Texts(), [0, 7])
        with pytest.raises(QuestionRefusedError, match="no adapter 7; it has 0, 1, 2") as refusal:
            await RemoteEvaluator(merger).score([SIGNED], LABELLED)
    assert refusal.value.param == "remote.adapters"
    assert not fake.asked


async def test_an_answer_of_several_tokens_is_refused_with_its_row(
    ground: Ground[FakeLlamaCpp], fake: FakeLlamaCpp
) -> None:
    rows = [*LABELLED, Example("Paris is in", "France", row=4)]
    async with calling() as caller:
        with pytest.raises(QuestionRefusedError, match="row 4: answer 'France' is not one token"):
            await RemoteEvaluator(ground.merger(caller)).score([SIGNED], rows)
    assert not fake.asked


async def test_raw_text_is_refused(ground: Ground[FakeLlamaCpp]) -> None:
    async with calling() as caller:
        with pytest.raises(QuestionRefusedError, match="row 0"):
            RemoteEvaluator(ground.merger(caller)).check([Example("", "text")])


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (JSONResponse({"error": {"code": 500, "message": "failed"}}, 500), ProviderDownError),
        (JSONResponse({"error": {"code": 400, "message": "bad lora"}}, 400), QuestionRefusedError),
        (JSONResponse({"content": "x"}), UnusableAnswerError),
        (Response("<html>"), UnusableAnswerError),
    ],
)
async def test_refusals_have_their_kinds(
    ground: Ground[FakeLlamaCpp], fake: FakeLlamaCpp, answer: Response, error: type[AskError]
) -> None:
    fake.fault = lambda body: answer
    async with calling() as caller:
        with pytest.raises(error):
            await RemoteEvaluator(ground.merger(caller)).score([SIGNED], LABELLED)


def test_a_missing_label_has_at_most_what_is_left() -> None:
    found = {1: math.log(0.6), 2: math.log(0.3)}
    assert label_logprobs(found, [2, 1]) == [found[2], found[1]]
    assert label_logprobs(found, [1, 3]) == pytest.approx([found[1], math.log(0.1)])
    assert label_logprobs(found, [3, 4]) == pytest.approx([math.log(0.05)] * 2)
    assert label_logprobs({1: math.log(0.05)}, [3])[0] == pytest.approx(math.log(0.05))
    assert math.isfinite(label_logprobs({1: 0.0}, [3])[0])


def test_scales_are_signed_and_alpha_does_not_travel() -> None:
    assert all_scales([0, 1, 2], [2, 0], SIGNED) == [
        {"id": 0, "scale": 1.2},
        {"id": 1, "scale": 0.0},
        {"id": 2, "scale": -0.7},
    ]
    with pytest.raises(ValueError, match="alpha"):
        all_scales([0, 1], [0, 1], replace(SIGNED, alpha=np.array([[0.5, 1.0]])))


@pytest.mark.parametrize("answer", [{}, [{}], [{"id": "a"}]])
def test_adapters_of_another_shape_are_refused(answer: object) -> None:
    with pytest.raises(BadAnswerError):
        read_adapters(answer)


@pytest.mark.parametrize("answer", [{}, [], {"tokens": "x"}, {"tokens": ["x"]}])
def test_tokens_of_another_shape_are_refused(answer: object) -> None:
    with pytest.raises(BadAnswerError):
        read_tokens(answer)


def test_tokens_with_their_pieces_are_read_too() -> None:
    assert read_tokens({"tokens": [{"id": 1, "piece": "a"}, {"id": 2, "piece": "b"}]}) == [1, 2]


@pytest.mark.parametrize(
    "answer",
    [
        {"completion_probabilities": []},
        {"completion_probabilities": [{"token": "a", "prob": 0.5}]},
        {"completion_probabilities": ["a"]},
        [],
    ],
)
def test_probabilities_of_another_shape_are_refused(answer: object) -> None:
    with pytest.raises(BadAnswerError):
        read_alternatives(answer)
