from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.responses import JSONResponse, Response
from tests.support.fake_bmm import FakeBmm
from tests.support.loopback import serving
from tests.support.remote import calling, server, tiny_pool
from tests.support.tiny_model import TinyModel, read_factors

from evomerge.connectors.bmm import (
    BmmEvaluator,
    candidate_body,
    read_folder,
    read_loss,
    read_presets,
    read_session,
    session_body,
    their_dataset,
)
from evomerge.connectors.errors import (
    AskError,
    CredentialError,
    ProviderDownError,
    QuestionRefusedError,
    UnusableAnswerError,
)
from evomerge.connectors.http_errors import BadAnswerError
from evomerge.optimizers.candidate import Candidate, base, one_hot, uniform

SIGNED = Candidate(np.array([[0.5, 1.0]]), np.array([[-0.7, 1.2]]))
OWN = (their_dataset(""),)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeBmm, str]]:
    weights, adapters = tiny_pool(Path(tmp_path_factory.mktemp("bmm")))
    texts = {"own": "Berlin is in Germany", "books": "a b c"}
    fake = FakeBmm(TinyModel(weights), [read_factors(one) for one in adapters], texts)
    with serving(fake.app()) as url:
        yield fake, url


@pytest.fixture
def fake(ground: tuple[FakeBmm, str]) -> FakeBmm:
    """The server's state, as new."""
    one, _ = ground
    one.sessions.clear()
    one.asked.clear()
    one.fault = lambda body: None
    return one


async def test_alpha_and_beta_travel_and_one_loss_comes_back(
    ground: tuple[FakeBmm, str], fake: FakeBmm
) -> None:
    async with calling() as caller:
        evaluator = BmmEvaluator(server(caller, "bmm", ground[1]), "films", 2)
        scores = await evaluator.score([SIGNED, base(2)], [*OWN, their_dataset("books")])
    assert scores.losses.shape == (2, 2)
    assert np.isfinite(scores.losses).all()
    assert scores.weights.tolist() == [1.0, 1.0]
    assert (scores.usage.tokens, scores.usage.requests) == (0, 2 * 2 + 4)
    assert fake.asked[0] == {"alpha": [0.5, 1.0], "beta": [-0.7, 1.2], "tag": "evomerge"}
    queries = [one["query_plus"] for one in fake.sessions.values()]
    assert queries == [{"dataset": "own"}, {"dataset": "books"}]


async def test_a_session_that_the_server_forgot_is_opened_again(
    ground: tuple[FakeBmm, str], fake: FakeBmm
) -> None:
    async with calling() as caller:
        evaluator = BmmEvaluator(server(caller, "bmm", ground[1]), "films", 2)
        first = await evaluator.score([SIGNED], OWN)
        fake.sessions.clear()
        again = await evaluator.score([SIGNED], OWN)
    assert np.array_equal(first.losses, again.losses)


async def test_an_unknown_preset_is_named_with_those_that_there_are(
    ground: tuple[FakeBmm, str], fake: FakeBmm
) -> None:
    async with calling() as caller:
        evaluator = BmmEvaluator(server(caller, "bmm", ground[1]), "film", 2)
        with pytest.raises(QuestionRefusedError, match="no preset 'film'; it has 'films'") as told:
            await evaluator.score([SIGNED], OWN)
    assert told.value.param == "remote.model"


async def test_another_number_of_adapters_is_found_out_before_anything_is_scored(
    ground: tuple[FakeBmm, str], fake: FakeBmm
) -> None:
    async with calling() as caller:
        evaluator = BmmEvaluator(server(caller, "bmm", ground[1]), "films", 3)
        with pytest.raises(QuestionRefusedError, match="has 2 adapters, the job weighs 3") as told:
            await evaluator.score([one_hot(0, 3)], OWN)
    assert told.value.param == "remote.adapters"
    assert not fake.asked


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (JSONResponse({"detail": "CUDA error"}, 500), ProviderDownError),
        (JSONResponse({"error": {"message": "no", "code": "forbidden"}}, 403), CredentialError),
        (
            JSONResponse({"error": {"message": "used up", "code": "insufficient_quota"}}, 429),
            CredentialError,
        ),
        (JSONResponse({"detail": [{"loc": ["body", "alpha"], "msg": "?"}]}, 422), AskError),
        (JSONResponse({"adapter_dir": "x"}), UnusableAnswerError),
        (Response("<html>"), UnusableAnswerError),
    ],
)
async def test_refusals_have_their_kinds(
    ground: tuple[FakeBmm, str], fake: FakeBmm, answer: Response, error: type[AskError]
) -> None:
    fake.fault = lambda body: answer
    async with calling() as caller:
        evaluator = BmmEvaluator(server(caller, "bmm", ground[1]), "films", 2)
        with pytest.raises(error):
            await evaluator.score([SIGNED], OWN)


async def test_a_candidate_that_broke_has_no_loss(
    ground: tuple[FakeBmm, str], fake: FakeBmm
) -> None:
    fake.fault = lambda body: Response('{"loss": NaN, "adapter_dir": "x"}')
    async with calling() as caller:
        evaluator = BmmEvaluator(server(caller, "bmm", ground[1]), "films", 2)
        scores = await evaluator.score([SIGNED], OWN)
    assert np.isnan(scores.losses).all()


async def test_materializing(ground: tuple[FakeBmm, str], fake: FakeBmm) -> None:
    async with calling() as caller:
        evaluator = BmmEvaluator(server(caller, "bmm", ground[1]), "films", 2)
        assert await evaluator.materialize(SIGNED, "books") == "/srv/bmm/best"


def test_a_query_goes_whole_or_not_at_all() -> None:
    assert session_body("p", {}, "") == {"preset_id": "p"}
    query = {"template": "llama3", "cutoff_len": 512}
    assert session_body("p", query, "x")["query_plus"] == {**query, "dataset": "x"}
    assert session_body("p", query, "")["query_plus"] == query


def test_layer_groups_cannot_travel() -> None:
    with pytest.raises(ValueError, match="groups=2"):
        candidate_body(uniform(2, groups=2))


@pytest.mark.parametrize("session_id", ["", "../x", "a/b", ".x", 7, None, "x" * 200])
def test_a_session_id_that_could_lead_elsewhere_is_refused(session_id: object) -> None:
    with pytest.raises(BadAnswerError):
        read_session({"session_id": session_id, "adapter_count": 2})


@pytest.mark.parametrize("answer", [[], {}, {"items": {}}, {"items": [{}]}])
def test_presets_of_another_shape_are_refused(answer: object) -> None:
    with pytest.raises(BadAnswerError):
        read_presets(answer)


def test_losses_are_numbers() -> None:
    assert read_loss({"loss": 1}) == 1.0
    assert math.isnan(read_loss({"loss": None}))
    assert math.isnan(read_loss({"loss": math.inf}))
    for answer in ({}, {"loss": "1"}, {"loss": True}, []):
        with pytest.raises(BadAnswerError):
            read_loss(answer)
    with pytest.raises(BadAnswerError):
        read_folder({"adapter_dir": 1})
