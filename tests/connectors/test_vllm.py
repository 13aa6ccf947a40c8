from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.responses import JSONResponse, Response
from tests.support import remote
from tests.support.fake_vllm import FakeVllm, Json, refused
from tests.support.remote import EXAMPLES, Ground, calling

from evomerge.connectors.errors import (
    AskError,
    ProviderDownError,
    QuestionRefusedError,
    UnusableAnswerError,
)
from evomerge.connectors.http_errors import BadAnswerError
from evomerge.connectors.local.base_model import load_base
from evomerge.connectors.local.evaluator import LocalEvaluator
from evomerge.connectors.local.rows import Row
from evomerge.connectors.remote import RemoteEvaluator
from evomerge.connectors.vllm import batched, read_probe, read_scores
from evomerge.merging.lora.space import LoraSpace
from evomerge.optimizers.candidate import Candidate, base, one_hot, uniform

SIGNED = Candidate(np.array([[0.5, 1.0]]), np.array([[-0.7, 1.2]]))
CANDIDATES = (base(2), one_hot(1, 2), uniform(2), SIGNED)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground[FakeVllm]]:
    with remote.vllm(tmp_path_factory.mktemp("vllm")) as made:
        yield made


@pytest.fixture
def fakes(ground: Ground[FakeVllm]) -> list[FakeVllm]:
    """The replicas' state, as new."""
    for fake in ground.servers:
        fake.fault, fake.shift = lambda body: None, False
        fake.adapters.clear()
        fake.loaded.clear()
        fake.unloaded.clear()
        fake.asked.clear()
    return list(ground.servers)


def everything_is_gone(ground: Ground[FakeVllm], fakes: list[FakeVllm]) -> bool:
    shelf = list(ground.folder.iterdir()) if ground.folder.exists() else []
    return not shelf and not any(fake.adapters for fake in fakes)


@pytest.mark.parametrize("metric", ["cross_entropy", "choice_accuracy"])
async def test_losses_are_those_of_a_local_evaluation(
    ground: Ground[FakeVllm], fakes: list[FakeVllm], metric: str
) -> None:
    space = LoraSpace(ground.pool, "exact")
    local = LocalEvaluator(load_base(ground.weights, threads=1), space, metric)
    expected = await local.score(CANDIDATES, EXAMPLES)
    async with calling() as caller:
        found = await RemoteEvaluator(ground.merger(caller), metric).score(CANDIDATES, EXAMPLES)
    np.testing.assert_allclose(found.losses, expected.losses, atol=1e-3)
    assert np.array_equal(found.weights, expected.weights)


async def test_every_replica_is_given_the_candidate_and_its_share_of_the_texts(
    ground: Ground[FakeVllm], fakes: list[FakeVllm]
) -> None:
    examples = EXAMPLES * 4
    async with calling() as caller:
        await RemoteEvaluator(ground.merger(caller)).score([SIGNED], examples)
    names = {tuple(fake.loaded) for fake in fakes}
    assert len(names) == 1
    for fake in fakes:
        assert fake.unloaded == fake.loaded
        assert fake.asked.count(fake.loaded[0]) == 6
    assert everything_is_gone(ground, fakes)


async def test_equal_candidates_at_once_do_not_unload_each_other(
    ground: Ground[FakeVllm], fakes: list[FakeVllm]
) -> None:
    async with calling() as caller:
        scores = await RemoteEvaluator(ground.merger(caller)).score([SIGNED] * 4, EXAMPLES)
    assert np.isfinite(scores.losses).all()
    assert everything_is_gone(ground, fakes)


async def test_an_adapter_that_an_earlier_attempt_left_is_used_and_cleared_up(
    ground: Ground[FakeVllm], fakes: list[FakeVllm]
) -> None:
    async with calling() as caller:
        evaluator = RemoteEvaluator(ground.merger(caller))
        expected = await evaluator.score([SIGNED], EXAMPLES)
        fakes[0].adapters[fakes[0].loaded[0]] = {}
        scores = await evaluator.score([SIGNED], EXAMPLES)
    assert scores.losses.shape == expected.losses.shape
    assert everything_is_gone(ground, fakes)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refused(500, "out of memory", "InternalServerError"), ProviderDownError),
        (refused(400, "prompt_logprobs is not supported", "BadRequestError"), QuestionRefusedError),
        (JSONResponse({"choices": []}), UnusableAnswerError),
        (Response("<html>502</html>", media_type="text/html"), UnusableAnswerError),
    ],
)
async def test_a_candidate_is_unloaded_after_a_failure(
    ground: Ground[FakeVllm], fakes: list[FakeVllm], answer: Response, error: type[AskError]
) -> None:
    fakes[0].fault = lambda body: None if body["model"] == "tiny" else answer
    async with calling() as caller:
        with pytest.raises(error):
            await RemoteEvaluator(ground.merger(caller)).score([SIGNED], EXAMPLES * 11)
    assert fakes[0].loaded == fakes[1].loaded != []
    assert everything_is_gone(ground, fakes)


async def test_a_rank_that_one_replica_refuses_is_unloaded_from_the_other(
    ground: Ground[FakeVllm], fakes: list[FakeVllm]
) -> None:
    fakes[1].max_rank = 4
    try:
        async with calling() as caller:
            with pytest.raises(QuestionRefusedError, match="max_lora_rank 4"):
                await RemoteEvaluator(ground.merger(caller)).score([SIGNED], EXAMPLES)
    finally:
        fakes[1].max_rank = 16
    assert everything_is_gone(ground, fakes)


async def test_a_candidate_is_unloaded_after_cancellation(
    ground: Ground[FakeVllm], fakes: list[FakeVllm]
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def wait(body: Json) -> Response | None:
        if body["model"] != "tiny":
            asked.set()
            go_on.wait(60)
        return None

    fakes[0].fault = wait
    async with calling() as caller:
        evaluator = RemoteEvaluator(ground.merger(caller))
        scoring = asyncio.create_task(evaluator.score([SIGNED], EXAMPLES))
        assert await asyncio.to_thread(asked.wait, 60)
        scoring.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await scoring
    assert everything_is_gone(ground, fakes)


async def test_echo_that_is_shifted_by_one_is_not_believed(
    ground: Ground[FakeVllm], fakes: list[FakeVllm]
) -> None:
    fakes[1].shift = True
    async with calling() as caller:
        with pytest.raises(UnusableAnswerError, match="cannot be used"):
            await RemoteEvaluator(ground.merger(caller)).score([SIGNED], EXAMPLES)
    assert not fakes[0].loaded


async def test_a_metric_that_needs_answers_is_refused_by_name(ground: Ground[FakeVllm]) -> None:
    async with calling() as caller:
        with pytest.raises(QuestionRefusedError, match="exact_match") as refusal:
            RemoteEvaluator(ground.merger(caller), "exact_match").check(EXAMPLES)
    assert refusal.value.param == "objective.metric"


ROW = Row((1, 2, 3), 1)


def choice(numbers: list[float | None], index: int = 0) -> Json:
    return {"index": index, "logprobs": {"token_logprobs": numbers}}


def test_the_generated_token_is_dropped_where_there_is_one() -> None:
    (one,) = read_scores({"choices": [choice([None, -1.0, -2.0, -9.0])]}, [ROW])
    (other,) = read_scores({"choices": [choice([None, -1.0, -2.0])]}, [ROW])
    assert one == other
    assert (one.nll, one.scored) == (3.0, 2)


def test_choices_are_told_apart_by_their_index() -> None:
    answer = {"choices": [choice([None, -1.0, -1.0], 1), choice([None, -2.0, -2.0], 0)]}
    assert [said.nll for said in read_scores(answer, [ROW, ROW])] == [4.0, 2.0]


def test_a_missing_number_breaks_the_answer_and_the_floor_does_not() -> None:
    (broken,) = read_scores({"choices": [choice([None, None, -2.0])]}, [ROW])
    (low,) = read_scores({"choices": [choice([None, -9999.0, -2.0])]}, [ROW])
    assert np.isnan(broken.nll)
    assert low.nll == 10001.0


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [choice([None, -1.0])]},
        {"choices": [choice([None, -1.0, -1.0, -1.0, -1.0])]},
        {"choices": [choice([None, -1.0, -1.0]), choice([None, -1.0, -1.0], 1)]},
        {"choices": [{"index": 0, "logprobs": None}]},
        {"choices": [choice([None, "x", -1.0])]},  # type: ignore[list-item]
        {},
        [],
    ],
)
def test_answers_of_another_shape_are_refused(answer: object) -> None:
    with pytest.raises(BadAnswerError):
        read_scores(answer, [ROW])


def test_tokens_told_by_words_verify_nothing() -> None:
    answer = {"choices": [{"logprobs": {"tokens": [" a"], "token_logprobs": [-1.0]}}]}
    with pytest.raises(BadAnswerError, match="ids"):
        read_probe(answer)


def test_batches_keep_the_order_and_are_bounded() -> None:
    rows = [Row(tuple(range(n % 700 + 2)), 1) for n in range(0, 7000, 37)]
    batches = batched(rows)
    assert [row for batch in batches for row in batch] == rows
    assert all(len(batch) <= 32 for batch in batches)
    assert all(sum(len(row.tokens) for row in batch) <= 8192 for batch in batches)
