"""What every served model does, whatever it was merged of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.asked import VOTES, FakeAsker, stored
from tests.support.forests import forest_rows, make_forest
from tests.support.tiny import make_adapter, make_base

from evomerge.app.serving.answers import gather
from evomerge.app.serving.engines import Engines
from evomerge.app.serving.errors import BadParameterError, UnsupportedParameterError
from evomerge.app.serving.forest import Forests
from evomerge.app.serving.local import ChatForm
from evomerge.app.serving.output import OutputModel
from evomerge.app.serving.protocol import Request, ServedModel
from evomerge.app.serving.remote import RemoteModel
from evomerge.app.serving.scoring import ScoringModel
from evomerge.app.settings import Settings
from evomerge.connectors.local.engine_values import Draw, Ended, Scored
from evomerge.connectors.question import Sampling
from evomerge.connectors.remote_answers import Written
from evomerge.connectors.shapes import cut

PATIENCE = 60
PROMPTS = Request(draw=Draw(seed=3), max_tokens=5, prompts=("one and", "two"))
SCORED = replace(PROMPTS, max_tokens=0, alternatives=0, echo=True)
CHAT = Request(draw=Draw(seed=3), max_tokens=5, messages=(("user", "one and"),))


class Rote:
    """A provider that says its prompt and seed."""

    async def write(self, prompt: str, sampling: Sampling) -> Written:
        text, _, finish = cut(f"{prompt} {sampling.seed}", (), "length", sampling.stop)
        return Written(text, finish, len(prompt), len(text))


@pytest.fixture(params=["adapter", "base", "forest", "choices", "words", "items", "remote"])
async def model(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ServedModel]:
    if request.param in VOTES:
        yield OutputModel(stored(request.param), FakeAsker())
        return
    if request.param == "remote":
        yield RemoteModel(Rote(), ChatForm())
        return
    async with local(request.param, tmp_path) as model:
        yield model


@asynccontextmanager
async def local(name: str, folder: Path) -> AsyncIterator[ServedModel]:
    if name == "forest":
        forests = Forests(Settings(threads=1, device="cpu"))
        yield await forests.model(*forest_rows(make_forest(folder / "forest")))
        await forests.close()
        return
    base = make_base(folder / "tiny")
    engines = Engines(Settings(bases={"tiny": base}, threads=1, device="cpu"))
    adapter = make_adapter(folder / "adapter", base) if name == "adapter" else None
    yield await engines.model("tiny", adapter, ChatForm())
    await engines.close()


async def told(model: ServedModel, request: Request) -> list[list[object]]:
    """What was told of each answer, in order."""
    run = await model.start(request)
    answers = max(1, len(request.prompts)) * request.samples
    parts: list[list[object]] = [[] for _ in range(answers)]
    async for part in run.parts:
        parts[part.index].append(part.told)
    return parts


@pytest.mark.parametrize("request_", [PROMPTS, CHAT], ids=["prompts", "chat"])
async def test_every_answer_begins_once_and_ends_once(
    model: ServedModel, request_: Request
) -> None:
    for parts in await told(model, request_):
        assert [isinstance(one, Scored) for one in parts] == [True] + [False] * (len(parts) - 1)
        assert [isinstance(one, Ended) for one in parts] == [False] * (len(parts) - 1) + [True]


async def test_the_same_request_gets_the_same_answer(model: ServedModel) -> None:
    first = await gather(await model.start(PROMPTS), 2)
    again = await gather(await model.start(PROMPTS), 2)
    assert [one.text for one in first] == [one.text for one in again]
    assert all(one.finish in ("stop", "length") for one in first)


async def test_tokens_are_counted(model: ServedModel) -> None:
    run = await model.start(PROMPTS)
    answers = await gather(run, 2)
    assert run.prompt_tokens > 0
    assert all(answer.count > 0 for answer in answers)


@pytest.fixture(params=["adapter", "base", "forest", "texts"])
async def scorer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ServedModel]:
    if request.param in VOTES:
        yield ScoringModel(stored(request.param), FakeAsker())
        return
    async with local(request.param, tmp_path) as model:
        yield model


async def test_texts_are_scored_token_by_token(scorer: ServedModel) -> None:
    assert {"echo", "logprobs"} <= scorer.abilities
    run = await scorer.start(SCORED)
    assert run.prompts == SCORED.prompts
    for prompt, answer in zip(SCORED.prompts, await gather(run, 2), strict=True):
        assert "".join(one.token.text for one in answer.prompt.tokens) == prompt
        first, *rest = answer.prompt.tokens
        assert first.logprob is None
        assert all(one.logprob is not None and one.logprob <= 0 for one in rest)
        assert [one.offset for one in answer.prompt.tokens] == list(range(len(str(prompt))))
        assert (answer.text, answer.tokens, answer.finish) == ("", [], "length")
    assert run.prompt_tokens > 0


async def test_one_token_more_stands_behind_the_scores(scorer: ServedModel) -> None:
    """As lm-eval asks, which drops the last."""
    plain = await gather(await scorer.start(SCORED), 2)
    more = await gather(await scorer.start(replace(SCORED, max_tokens=1)), 2)
    for with_, without in zip(more, plain, strict=True):
        assert len(with_.tokens) == 1
        assert [one.logprob for one in with_.prompt.tokens] == pytest.approx(
            [one.logprob for one in without.prompt.tokens]
        )


async def test_scores_that_are_left_hinder_no_others(scorer: ServedModel) -> None:
    run = await scorer.start(SCORED)
    assert isinstance((await anext(run.parts)).told, Scored)
    await run.parts.aclose()
    async with asyncio.timeout(PATIENCE):
        assert await gather(await scorer.start(SCORED), 2)


NEEDS: dict[str, tuple[Callable[[Request], Request], str]] = {
    "logprobs": (lambda r: replace(r, alternatives=2), "logprobs"),
    "echo": (lambda r: replace(r, echo=True), "echo"),
    "sampling": (lambda r: replace(r, samples=2), "n"),
}


@pytest.mark.parametrize("need", NEEDS)
async def test_what_it_cannot_do_is_refused_by_name(model: ServedModel, need: str) -> None:
    change, param = NEEDS[need]
    asked = change(PROMPTS)
    if need in model.abilities:
        assert len(await told(model, asked)) == 2 * asked.samples
        return
    with pytest.raises(UnsupportedParameterError) as refused:
        await model.start(asked)
    assert refused.value.param == param


async def test_options_are_for_models_that_choose(model: ServedModel) -> None:
    asked = replace(CHAT, choices=("yes", "no"))
    if "choices" in model.abilities:
        assert (await gather(await model.start(asked), 1))[0].text in ("yes", "no")
        return
    with pytest.raises(BadParameterError) as refused:
        await model.start(asked)
    assert refused.value.param == "choices"


async def test_a_stop_ends_the_answer_and_is_no_part_of_it(model: ServedModel) -> None:
    [whole] = await gather(await model.start(CHAT), 1)
    assert len(whole.text) > 1
    stop = whole.text[1:]
    asked = replace(CHAT, draw=replace(CHAT.draw, stop=(stop,)))
    [cut] = await gather(await model.start(asked), 1)
    assert cut.text == whole.text[: whole.text.index(stop)].rstrip()
    assert cut.finish == "stop"


async def test_an_answer_that_is_left_hinders_no_other(model: ServedModel) -> None:
    run = await model.start(replace(CHAT, max_tokens=100))
    await anext(run.parts)
    await run.parts.aclose()
    async with asyncio.timeout(PATIENCE):
        assert await gather(await model.start(CHAT), 1)


async def test_many_requests_at_once_get_what_each_gets_alone(model: ServedModel) -> None:
    asked = [replace(CHAT, messages=(("user", "x" * n),)) for n in range(1, 20)]
    alone = [await gather(await model.start(one), 1) for one in asked]
    runs = [await model.start(one) for one in asked]
    together = await asyncio.gather(*(gather(run, 1) for run in runs))
    assert [one.text for [one] in together] == [one.text for [one] in alone]
