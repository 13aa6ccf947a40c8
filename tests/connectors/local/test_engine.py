"""The engine: what it writes is what one prompt alone, without a cache, would give."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge.connectors.local.adapters import adapted
from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.engine import Engine
from evomerge.connectors.local.engine_layers import EngineAdapter, load_engine_adapter
from evomerge.connectors.local.engine_single import SingleModel
from evomerge.connectors.local.engine_text import Speller
from evomerge.connectors.local.engine_values import (
    Ask,
    Draw,
    Ended,
    EngineBusyError,
    EngineFailedError,
    Failed,
    Piece,
    PromptTooLongError,
    Scored,
    Ticket,
    TokenScore,
    Told,
    UnknownTokenError,
)
from evomerge.connectors.local.forward import answer_nll
from evomerge.connectors.local.generation import greedy_answers
from evomerge.connectors.local.rows import Row
from evomerge.merging.lora.adapter import read_adapter
from evomerge.merging.lora.artifact import MergedAdapter
from evomerge.merging.lora.population import Population

TEXTS = ["Berlin is in", "a", "The capital of the largest country of Europe is", "2+2=", "x" * 90]
PATIENCE = 60.0


@dataclass
class Heard:
    """What was told of one request."""

    queue: queue.SimpleQueue[Told] = field(default_factory=queue.SimpleQueue)

    def __call__(self, told: Told) -> None:
        self.queue.put(told)

    def next(self) -> Told:
        return self.queue.get(timeout=PATIENCE)

    def all(self) -> Whole:
        whole = Whole()
        while True:
            match told := self.next():
                case Scored(tokens):
                    whole.prompt = list(tokens)
                case Piece(text, tokens):
                    whole.pieces.append(text)
                    whole.tokens += tokens
                case Ended():
                    whole.end = told
                    return whole
                case Failed(error):
                    raise error


@dataclass
class Whole:
    """A finished answer."""

    prompt: list[TokenScore] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    tokens: list[TokenScore] = field(default_factory=list)
    end: Ended | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@pytest.fixture
def engine(base: BaseModel) -> Iterator[Engine]:
    engine = Engine(SingleModel(base), batch_tokens=200, rows=4)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def adapters(base: BaseModel, experts: list[Path]) -> list[EngineAdapter]:
    return [load_engine_adapter(folder, base) for folder in experts]


def start(
    engine: Engine, asks: Sequence[Ask], adapter: EngineAdapter | None = None
) -> tuple[list[Heard], list[Ticket]]:
    heard = [Heard() for _ in asks]
    return heard, engine.start(asks, adapter, heard)


def answers(
    engine: Engine, asks: Sequence[Ask], adapter: EngineAdapter | None = None
) -> list[Whole]:
    return [heard.all() for heard in start(engine, asks, adapter)[0]]


def ids(base: BaseModel, text: str) -> tuple[int, ...]:
    return tuple(base.tokenizer(text).input_ids)


def asks(base: BaseModel, **draw: object) -> list[Ask]:
    return [Ask(ids(base, text), 12, Draw(**draw)) for text in TEXTS]  # type: ignore[arg-type]


def population(folder: Path) -> Population:
    return MergedAdapter(read_adapter(folder).modules).population()


def logits_without_cache(base: BaseModel, folder: Path, tokens: Sequence[int]) -> Tensor:
    """(length, vocabulary), of one whole forward."""
    with base.running(), adapted(base, population(folder)):
        return base.logits(base.hidden(torch.tensor([list(tokens)])))[0]


def test_answers_of_many_adapters_beside_each_other_are_the_evaluators(
    engine: Engine, base: BaseModel, experts: list[Path], adapters: list[EngineAdapter]
) -> None:
    under_way = [start(engine, asks(base), adapter)[0] for adapter in [*adapters, None]]
    prompts = [ids(base, text) for text in TEXTS]
    for folder, heard in zip([*experts, None], under_way, strict=True):
        some = Population(1, {}) if folder is None else population(folder)
        [expected] = greedy_answers(base, some, prompts, max_new_tokens=12, batch_tokens=1)
        said = [each.all() for each in heard]
        assert [each.text.strip() for each in said] == [each.text for each in expected]
        assert [each.end and each.end.tokens for each in said] == [e.tokens for e in expected]


def test_with_the_cache_every_token_is_as_likely_as_without(
    engine: Engine, base: BaseModel, experts: list[Path], adapters: list[EngineAdapter]
) -> None:
    wanted = [
        Ask(ids(base, text), 8 + n, alternatives=3, echo=True) for n, text in enumerate(TEXTS)
    ]
    for ask, said in zip(wanted, answers(engine, wanted, adapters[0]), strict=True):
        scores = [*said.prompt, *said.tokens]
        tokens = [*ask.prompt, *_generated(base, said)]
        assert len(tokens) == len(scores)
        reference = logits_without_cache(base, experts[0], tokens).log_softmax(1)
        assert scores[0].logprob is None
        for position, score in enumerate(scores[1:]):
            row = reference[position]
            assert score.logprob == pytest.approx(float(row[tokens[position + 1]]), abs=1e-3)
            best = row.topk(3).values.tolist()
            assert [value for _, value in score.alternatives] == pytest.approx(best, abs=1e-3)


def _generated(base: BaseModel, said: Whole) -> list[int]:
    """Every token has bytes of its own here."""
    spell = Speller(base.tokenizer).token
    numbers = {spell(number).data: number for number in range(257)}
    return [numbers[score.token.data] for score in said.tokens]


def test_an_echoed_prompt_alone_is_scored_as_the_evaluator_scores_it(
    engine: Engine, base: BaseModel, experts: list[Path], adapters: list[EngineAdapter]
) -> None:
    wanted = [Ask(ids(base, text), 0, alternatives=0, echo=True) for text in TEXTS if len(text) > 1]
    said = answers(engine, wanted, adapters[1])
    rows = [Row(ask.prompt, 1) for ask in wanted]
    nll = answer_nll(base, population(experts[1]), rows, batch_tokens=4096)[0]
    for each, expected in zip(said, nll, strict=True):
        assert -sum(score.logprob or 0 for score in each.prompt) == pytest.approx(expected)
        assert each.text == ""
        assert each.end == Ended("length", 0)


def test_a_seed_draws_the_same_answer_alone_and_in_company(
    engine: Engine, base: BaseModel, adapters: list[EngineAdapter]
) -> None:
    hot = asks(base, temperature=1.5, top_p=0.9, seed=11)
    together = [said.text for said in answers(engine, hot, adapters[0])]
    alone = [answers(engine, [ask], adapters[0])[0].text for ask in hot]
    assert together == alone
    others = answers(engine, asks(base, temperature=1.5, top_p=0.9, seed=12), adapters[0])
    assert together != [said.text for said in others]


def test_a_stop_ends_an_answer_across_the_borders_of_tokens(
    engine: Engine, base: BaseModel, adapters: list[EngineAdapter]
) -> None:
    [free] = answers(engine, asks(base)[:1], adapters[0])
    assert len(free.text) > 6
    stop = free.text[3:6]
    cut = free.text.index(stop)
    wanted = Ask(ids(base, TEXTS[0]), 12, Draw(stop=("never", stop)), alternatives=0)
    [said] = answers(engine, [wanted], adapters[0])
    assert said.text == free.text[:cut]
    assert said.end is not None
    assert said.end.finish == "stop"
    spelt = b"".join(score.token.data for score in said.tokens).decode(errors="replace")
    assert said.text in spelt
    assert stop not in spelt


def test_what_nobody_waits_for_is_dropped_and_others_go_on(
    engine: Engine, base: BaseModel, adapters: list[EngineAdapter]
) -> None:
    long = Ask(ids(base, "a"), 200, Draw(temperature=3.0, seed=1))
    (first, second), (ticket, _) = start(engine, [long, long], adapters[0])
    assert isinstance(first.next(), Scored)
    ticket.cancel()
    assert second.all().end is not None
    while not first.queue.empty():
        assert not isinstance(first.next(), Ended)


class Gate:
    """Holds the engine's thread at the first thing it tells."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, told: Told) -> None:
        self.reached.set()
        assert self.open.wait(PATIENCE)


def test_no_more_wait_than_may(base: BaseModel) -> None:
    engine = Engine(SingleModel(base), rows=1, waiting=2)
    gate = Gate()
    ask = Ask((1, 2), 2)
    engine.start([ask], None, [gate])
    assert gate.reached.wait(PATIENCE)
    heard, _ = start(engine, [ask, ask])
    with pytest.raises(EngineBusyError, match="2 requests are waiting"):
        start(engine, [ask])
    gate.open.set()
    assert [each.all().end for each in heard]
    engine.close()


def test_rows_wait_for_room_in_the_cache(base: BaseModel) -> None:
    engine = Engine(SingleModel(base), cache_tokens=100)
    order: queue.SimpleQueue[tuple[int, Told]] = queue.SimpleQueue()

    def tell(number: int) -> Callable[[Told], None]:
        return lambda told: order.put((number, told))

    hot = Draw(temperature=3.0, seed=2)
    # Two of the short ones fit beside each other; the long one runs alone.
    wanted = [Ask((1,), 40, hot), Ask((2,), 40, hot), Ask((3,), 200, hot), Ask((4,), 1)]
    engine.start(wanted, None, [tell(number) for number in range(4)])
    heard: list[tuple[int, Told]] = []
    while sum(isinstance(told, Ended) for _, told in heard) < 4:
        heard.append(order.get(timeout=PATIENCE))
    engine.close()
    begun = [number for number, told in heard if isinstance(told, Scored)]
    ended = [number for number, told in heard if isinstance(told, Ended)]
    assert begun == [0, 1, 2, 3]
    at = {(number, type(told)): place for place, (number, told) in enumerate(heard)}
    assert at[1, Scored] < at[ended[0], Ended]
    assert max(at[0, Ended], at[1, Ended]) < at[2, Scored]
    assert at[2, Ended] < at[3, Scored]


def test_requests_that_cannot_be_answered_are_refused_at_once(engine: Engine) -> None:
    with pytest.raises(PromptTooLongError, match=r"256 tokens.*260.*250 of the prompt, 10 of"):
        start(engine, [Ask((1,) * 250, 10)])
    with pytest.raises(UnknownTokenError, match="token 257 is not one of"):
        start(engine, [Ask((257,), 1)])


def test_closing_fails_what_is_under_way(base: BaseModel) -> None:
    engine = Engine(SingleModel(base), rows=1)
    gate = Gate()
    engine.start([Ask((1,), 9)], None, [gate])
    assert gate.reached.wait(PATIENCE)
    [waiting], _ = start(engine, [Ask((1,), 2)])
    closing = threading.Thread(target=engine.close)
    closing.start()
    while not engine.closed:
        pass
    gate.open.set()
    closing.join()
    assert isinstance(waiting.next(), Failed)
    with pytest.raises(EngineFailedError, match="closed"):
        start(engine, [Ask((1,), 1)])


def test_a_retired_engine_answers_what_came_and_takes_no_more(base: BaseModel) -> None:
    engine = Engine(SingleModel(base), rows=1)
    gate = Gate()
    engine.start([Ask((1,), 3)], None, [gate])
    assert gate.reached.wait(PATIENCE)
    [waiting], _ = start(engine, [Ask((1,), 2)])
    engine.retire()
    assert engine.closed
    with pytest.raises(EngineFailedError, match="closed"):
        start(engine, [Ask((1,), 1)])
    gate.open.set()
    assert waiting.all().end == Ended("length", 2)
    engine.close()


def test_a_retired_engine_that_is_idle_ends(base: BaseModel) -> None:
    engine = Engine(SingleModel(base))
    engine.retire()
    engine._thread.join(PATIENCE)
    assert not engine._thread.is_alive()


def test_a_failing_forward_fails_its_requests_and_not_the_next(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(SingleModel(base))
    broken: Callable[..., Tensor] = _broken
    with monkeypatch.context() as patched:
        patched.setattr("evomerge.connectors.local.engine_single.prefill", broken)
        [heard], _ = start(engine, [Ask((1,), 1)])
        told = heard.next()
        assert isinstance(told, Failed)
        assert "out of memory" in str(told.error)
    assert answers(engine, [Ask((1,), 1)])[0].end is not None
    engine.close()


def _broken(*args: object, **more: object) -> Tensor:
    raise RuntimeError("out of memory")


def test_broken_weights_are_told_of(engine: Engine, adapters: list[EngineAdapter]) -> None:
    modules = {name: (a * float("nan"), b) for name, (a, b) in adapters[0].modules.items()}
    [heard], _ = start(engine, [Ask((1,), 4)], EngineAdapter("broken", modules))
    assert isinstance(heard.next(), Scored)
    told = heard.next()
    assert isinstance(told, Failed)
    assert "NaN" in str(told.error)


def test_the_base_is_left_as_it_was(base: BaseModel, adapters: list[EngineAdapter]) -> None:
    before = {name: base.model.get_submodule(name) for name in base.linears}
    engine = Engine(SingleModel(base))
    answers(engine, asks(base), adapters[0])
    engine.close()
    assert all(base.model.get_submodule(name) is layer for name, layer in before.items())
    assert np.isfinite(answer_nll(base, Population(1, {}), [Row((1, 2), 1)], batch_tokens=9)).all()
