"""Texts written by an ensemble: what a plain mixture, without a cache or company, would give."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from tests.support.forests import mixed

from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.engine import Engine
from evomerge.connectors.local.engine_single import SingleModel
from evomerge.connectors.local.engine_text import Speller
from evomerge.connectors.local.engine_values import (
    Ask,
    Draw,
    Ended,
    EngineFailedError,
    Failed,
    Piece,
    Scored,
    TokenScore,
    Told,
    Weights,
)
from evomerge.connectors.local.forest.ensemble import Mixing
from evomerge.connectors.local.forest.generation import EnsembleModel
from evomerge.merging.forest.prior import Prior, moving_average

TEXTS = ["Berlin is in", "a", "The capital of the largest country of Europe is", "2+2="]
PRIOR = np.array([0.2, 0.5, 0.3])
MIXINGS = {
    "full": Mixing(Prior.cached(PRIOR)),
    "previous": Mixing(Prior.cached(PRIOR), "previous"),
    "two a token": Mixing(Prior.cached(PRIOR), top_k=2),
    "one a token": Mixing(Prior.cached(PRIOR), top_k=1),
    "two": Mixing(Prior.cached(PRIOR), top_k=2, top_k_kind="static"),
    "one": Mixing(Prior.cached(PRIOR), top_k=1, top_k_kind="static"),
    "without one": Mixing(Prior.cached(np.array([0.4, 0.0, 0.6]))),
    "fixed": Mixing(Prior.cached(PRIOR), fixed=True),
}


@dataclass
class Heard:
    """What was told of one request."""

    queue: queue.SimpleQueue[Told] = field(default_factory=queue.SimpleQueue)
    told: list[Told] = field(default_factory=list)

    def __call__(self, told: Told) -> None:
        self.queue.put(told)

    def wait(self) -> Heard:
        while not (self.told and isinstance(self.told[-1], Ended)):
            self.told.append(self.queue.get(timeout=60))
            if isinstance(last := self.told[-1], Failed):
                raise last.error
        return self

    @property
    def text(self) -> str:
        return "".join(one.text for one in self.told if isinstance(one, Piece))

    @property
    def prompt(self) -> list[TokenScore]:
        return [token for one in self.told if isinstance(one, Scored) for token in one.tokens]

    @property
    def tokens(self) -> list[TokenScore]:
        return [token for one in self.told if isinstance(one, Piece) for token in one.tokens]

    @property
    def weights(self) -> list[Weights]:
        return [one.weights for one in self.told if not isinstance(one, Failed)]


def model(elms: Sequence[BaseModel], mixing: Mixing) -> EnsembleModel:
    return EnsembleModel([elms[place] for place in mixing.running], mixing)


@pytest.fixture(params=MIXINGS)
def mixing(request: pytest.FixtureRequest) -> Mixing:
    return MIXINGS[request.param]


@pytest.fixture
def engine(elms: list[BaseModel], mixing: Mixing) -> Iterator[Engine]:
    engine = Engine(model(elms, mixing), batch_tokens=200, rows=3)
    yield engine
    engine.close()


def answers(engine: Engine, asks: Sequence[Ask]) -> list[Heard]:
    heard = [Heard() for _ in asks]
    engine.start(asks, None, heard)
    return [each.wait() for each in heard]


def ids(base: BaseModel, text: str) -> tuple[int, ...]:
    return tuple(base.tokenizer(text).input_ids)


def plainly(
    elms: Sequence[BaseModel], mixing: Mixing, tokens: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    some = [elms[place] for place in mixing.running]
    return mixed(
        some,
        mixing.running_prior.weights,
        tokens,
        history=mixing.history,
        top_k=mixing.token_top_k,
        fixed=mixing.fixed,
    )


def generated(base: BaseModel, said: Heard) -> list[int]:
    """Every token has bytes of its own here."""
    spell = Speller(base.tokenizer).token
    numbers = {spell(number).data: number for number in range(257)}
    return [numbers[score.token.data] for score in said.tokens]


@pytest.mark.parametrize("alternatives", [0, 3])
def test_every_token_is_as_likely_as_in_a_plain_mixture_and_the_likeliest_is_chosen(
    engine: Engine, elms: list[BaseModel], mixing: Mixing, alternatives: int
) -> None:
    asks = [
        Ask(ids(elms[0], text), 6 + n, alternatives=alternatives, echo=True)
        for n, text in enumerate(TEXTS)
    ]
    for ask, said in zip(asks, answers(engine, asks), strict=True):
        scores = [*said.prompt, *said.tokens]
        tokens = [*ask.prompt, *generated(elms[0], said)]
        assert len(tokens) == len(scores)
        expected, _ = plainly(elms, mixing, tokens)
        assert scores[0].logprob is None
        for place, score in enumerate(scores[1:]):
            row = np.log(expected[place])
            assert score.logprob == pytest.approx(row[tokens[place + 1]], abs=1e-3)
            best = np.sort(row)[::-1][:alternatives].tolist()
            assert [value for _, value in score.alternatives] == pytest.approx(best, abs=1e-3)
            if place + 1 >= len(ask.prompt):
                assert score.logprob == pytest.approx(row.max(), abs=1e-3)


def test_the_posterior_is_told_as_it_stands(
    engine: Engine, elms: list[BaseModel], mixing: Mixing
) -> None:
    ask = Ask(ids(elms[0], TEXTS[0]), 6, alternatives=0)
    [said] = answers(engine, [ask])
    tokens = generated(elms[0], said)
    expected = [
        plainly(elms, mixing, [*ask.prompt, *tokens[:count]])[1] for count in range(len(tokens) + 1)
    ]
    assert said.weights[0] == pytest.approx(expected[0], abs=1e-4)
    assert said.weights[-1] == pytest.approx(expected[-1], abs=1e-4)
    told = 0
    for one in said.told:
        if isinstance(one, Piece):  # which may tell of earlier tokens, held until they were whole
            told += len(one.tokens)
            assert any(one.weights == pytest.approx(each, abs=1e-4) for each in expected[told:])
        assert not isinstance(one, Failed)
        assert sum(one.weights) == pytest.approx(1)


@pytest.mark.parametrize("mixing", ["full", "two a token"], indirect=True)
def test_a_seed_draws_the_same_answer_alone_and_in_company(engine: Engine) -> None:
    base = engine.model
    hot = Draw(temperature=1.5, top_p=0.9, seed=11)
    asks = [Ask(tuple(base.tokenizer(text).input_ids), 10, hot) for text in TEXTS]
    together = [said.text for said in answers(engine, asks)]
    assert together == [answers(engine, [ask])[0].text for ask in asks]
    other = [Ask(ask.prompt, 10, Draw(temperature=1.5, top_p=0.9, seed=12)) for ask in asks]
    assert together != [said.text for said in answers(engine, other)]


def test_one_elm_writes_as_it_does_alone(elms: list[BaseModel]) -> None:
    draw = Draw(temperature=0.8, top_p=0.95, seed=3)
    asks = [Ask(ids(elms[0], text), 12, draw) for text in TEXTS]
    said = []
    for one in (SingleModel(elms[1]), model(elms, MIXINGS["one"])):
        engine = Engine(one)
        said.append([each.text for each in answers(engine, asks)])
        engine.close()
    assert said[0] == said[1]


def test_elms_that_do_not_run_read_nothing(elms: list[BaseModel]) -> None:
    ran: list[str] = []
    hooks = [
        base.decoder.register_forward_hook(lambda *_, name=base.name: ran.append(name))  # type: ignore[misc]
        for base in elms
    ]
    engine = Engine(model(elms, MIXINGS["one"]))
    answers(engine, [Ask((1, 2, 3), 4)])
    engine.close()
    for hook in hooks:
        hook.remove()
    assert ran == ["bob"] * 4


def test_an_updated_prior_moves_as_texts_end(elms: list[BaseModel]) -> None:
    updating = model(elms, Mixing(Prior.updating(PRIOR, 0.3)))
    engine = Engine(updating)
    ask = Ask(ids(elms[0], TEXTS[0]), 5)
    [first] = answers(engine, [ask])
    [scored] = answers(engine, [Ask(ids(elms[0], TEXTS[2]), 0, alternatives=0, echo=True)])
    [again] = answers(engine, [ask])
    engine.close()
    moved = moving_average(np.array([first.weights[-1]]), 0.3, PRIOR)
    _, posterior = mixed(elms, moved, ids(elms[0], TEXTS[2]))
    np.testing.assert_allclose(scored.weights[-1], posterior, atol=1e-4)
    moved = moving_average(np.array([scored.weights[-1]]), 0.3, moved)
    _, posterior = mixed(elms, moved, ask.prompt)
    np.testing.assert_allclose(again.weights[0], posterior, atol=1e-4)


def test_broken_weights_are_told_of(elms: list[BaseModel], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(model(elms, MIXINGS["full"]))
    whole = BaseModel.logits

    def broken(self: BaseModel, states: torch.Tensor) -> torch.Tensor:
        logits = whole(self, states)
        return logits * float("nan") if self.name == "cyd" else logits

    with monkeypatch.context() as patched:
        patched.setattr(BaseModel, "logits", broken)
        for ask in (Ask((1, 2), 3), Ask((1, 2), 0, alternatives=2, echo=True)):
            with pytest.raises(EngineFailedError, match="NaN"):
                answers(engine, [ask])
    assert answers(engine, [Ask((1, 2), 3)])
    engine.close()


def test_models_are_those_that_run(elms: list[BaseModel]) -> None:
    with pytest.raises(ValueError, match="3 models, 2 run"):
        EnsembleModel(elms, MIXINGS["two"])
