from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.responses import JSONResponse, Response
from tests.support import remote
from tests.support.fake_lorax import FakeLorax, refused
from tests.support.remote import EXAMPLES, Ground, calling, server
from tests.support.tiny import END_OF_TEXT

from evomerge.connectors.errors import (
    AskError,
    OverloadedError,
    ProviderDownError,
    QuestionRefusedError,
    UnusableAnswerError,
)
from evomerge.connectors.http_errors import BadAnswerError
from evomerge.connectors.local.base_model import load_base
from evomerge.connectors.local.evaluator import LocalEvaluator
from evomerge.connectors.lorax import LoraxMerger, Texts, merged, read_prefill, start
from evomerge.connectors.remote import RemoteEvaluator
from evomerge.connectors.shelf import Shelf
from evomerge.connectors.vllm import RANKS
from evomerge.merging.lora.space import Composition, LoraSpace
from evomerge.merging.lora.writer import AdapterWriter
from evomerge.optimizers.candidate import Candidate, base, one_hot, uniform

SIGNED = Candidate(np.ones((1, 2)), np.array([[-0.7, 1.2]]))
HALF = Candidate(np.ones((1, 2)), np.array([[0.0, 0.5]]))
KEPT = Candidate(np.array([[0.5, 1.0]]), np.array([[-0.7, 1.2]]))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground[FakeLorax]]:
    with remote.lorax(tmp_path_factory.mktemp("lorax")) as made:
        yield made


@pytest.fixture
def fake(ground: Ground[FakeLorax]) -> FakeLorax:
    """The server's state, as new."""
    (one,) = ground.servers
    one.fault, one.first = lambda body: None, None
    one.asked.clear()
    return one


def local(ground: Ground[FakeLorax], composition: Composition, metric: str) -> LocalEvaluator:
    base_model = load_base(ground.weights, threads=1)
    return LocalEvaluator(base_model, LoraSpace(ground.pool, composition), metric)


@pytest.mark.parametrize("metric", ["cross_entropy", "choice_accuracy"])
@pytest.mark.parametrize("first", [None, float("nan")])
async def test_losses_are_those_of_a_local_evaluation_by_composition_factor(
    ground: Ground[FakeLorax], fake: FakeLorax, metric: str, first: float | None
) -> None:
    candidates = [base(2), uniform(2), SIGNED, HALF, one_hot(0, 2)]
    expected = await local(ground, "factor", metric).score(candidates, EXAMPLES)
    fake.first = first
    async with calling() as caller:
        found = await RemoteEvaluator(ground.merger(caller), metric).score(candidates, EXAMPLES)
    np.testing.assert_allclose(found.losses, expected.losses, atol=1e-3)
    assert np.array_equal(found.weights, expected.weights)


async def test_a_folder_travels_where_alpha_or_exactness_must(
    ground: Ground[FakeLorax], fake: FakeLorax, tmp_path: Path
) -> None:
    expected = await local(ground, "exact", "cross_entropy").score([KEPT, HALF], EXAMPLES)
    space = LoraSpace(ground.pool, "exact")
    writer = AdapterWriter(space, "tiny", torch.float32, rank=16, ranks=RANKS)
    shelf = Shelf(tmp_path / "shelf", writer.name, writer.write)
    async with calling() as caller:
        merger = LoraxMerger(
            server(caller, "lorax", ground.url), Texts(end=END_OF_TEXT), shelf=shelf
        )
        found = await RemoteEvaluator(merger).score([KEPT, HALF], EXAMPLES)
    np.testing.assert_allclose(found.losses, expected.losses, atol=1e-3)
    assert list((tmp_path / "shelf").iterdir()) == []


async def test_contexts_are_tokenised_once(ground: Ground[FakeLorax], fake: FakeLorax) -> None:
    async with calling() as caller:
        evaluator = RemoteEvaluator(ground.merger(caller))
        first = await evaluator.score([SIGNED], EXAMPLES)
        second = await evaluator.score([SIGNED], EXAMPLES)
    assert (first.usage.requests, second.usage.requests) == (6, 3)
    assert len(fake.asked) == 9


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refused(429, "Model is overloaded", "overloaded"), OverloadedError),
        (refused(424, "CUDA out of memory", "generation"), ProviderDownError),
        (refused(422, "Input validation error", "validation"), QuestionRefusedError),
        (JSONResponse({"generated_text": "x", "details": {}}), UnusableAnswerError),
        (Response('{"generated_te'), UnusableAnswerError),
    ],
)
async def test_refusals_have_their_kinds(
    ground: Ground[FakeLorax], fake: FakeLorax, answer: Response, error: type[AskError]
) -> None:
    fake.fault = lambda body: answer
    async with calling() as caller:
        with pytest.raises(error):
            await RemoteEvaluator(ground.merger(caller)).score([SIGNED], EXAMPLES)


async def test_an_adapter_that_the_server_lacks_is_named(
    ground: Ground[FakeLorax], fake: FakeLorax
) -> None:
    async with calling() as caller:
        merger = LoraxMerger(server(caller, "lorax", ground.url), Texts(), ["e0", "gone"])
        with pytest.raises(ProviderDownError, match="no adapter gone"):
            await RemoteEvaluator(merger).score([SIGNED], EXAMPLES)


def test_one_kept_adapter_takes_a_second_one_along_to_keep_its_weight() -> None:
    sent = merged(["a", "b", "c"], Candidate(np.ones((1, 3)), np.array([[0.0, 0.5, 0.0]])))
    assert sent["merged_adapters"]["ids"] == ["a", "b"]
    assert sent["merged_adapters"]["weights"] == [0.0, 0.5]
    sent = merged(["a", "b", "c"], Candidate(np.ones((1, 3)), np.array([[-0.5, 0.0, 0.0]])))
    assert sent["merged_adapters"]["weights"] == [-0.5, 0.0]


def test_adapters_without_weight_stay_away() -> None:
    sent = merged(["a", "b", "c"], Candidate(np.ones((1, 3)), np.array([[0.1, 0.0, -1.0]])))
    assert sent["merged_adapters"]["ids"] == ["a", "c"]
    assert merged(["a", "b"], base(2)) == {}


def test_what_cannot_travel_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha"):
        merged(["a", "b"], KEPT)
    with pytest.raises(ValueError, match="ignores the weight"):
        merged(["a"], uniform(1))
    with pytest.raises(ValueError, match="groups=2"):
        merged(["a", "b"], uniform(2, groups=2))


def test_the_answer_begins_where_the_tokens_leave_their_context() -> None:
    assert start([1, 2, 3], [1, 2, 3, 4]) == 3
    assert start([1, 2, 3], [1, 2, 9, 4]) == 2  # the last token of the context grew
    assert start([], [5, 6]) == 1
    assert start([7], [5, 6]) == 1


@pytest.mark.parametrize(
    "answer",
    [{}, [], {"details": None}, {"details": {"prefill": []}}, {"details": {"prefill": [{}]}}],
)
def test_answers_of_another_shape_are_refused(answer: object) -> None:
    with pytest.raises(BadAnswerError):
        read_prefill(answer)
