"""What every served model does, whatever it was merged of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.asked import VOTES, FakeAsker, stored
from tests.support.tiny import make_adapter, make_base

from evomerge.app.serving.answers import gather
from evomerge.app.serving.engines import Engines
from evomerge.app.serving.errors import BadParameterError, UnsupportedParameterError
from evomerge.app.serving.local import ChatForm
from evomerge.app.serving.output import OutputModel
from evomerge.app.serving.protocol import Request, ServedModel
from evomerge.app.serving.remote import RemoteModel
from evomerge.app.settings import Settings
from evomerge.connectors.local.engine_values import Draw, Ended, Scored
from evomerge.connectors.question import Sampling
from evomerge.connectors.remote_answers import Written
from evomerge.connectors.shapes import cut

PATIENCE = 60
PROMPTS = Request(draw=Draw(seed=3), max_tokens=5, prompts=("one and", "two"))
CHAT = Request(draw=Draw(seed=3), max_tokens=5, messages=(("user", "one and"),))


class Rote:
    """A provider that says its prompt and seed."""

    async def write(self, prompt: str, sampling: Sampling) -> Written:
        text, _, finish = cut(f"{prompt} {sampling.seed}", (), "length", sampling.stop)
        return Written(text, finish, len(prompt), len(text))


@pytest.fixture(params=["adapter", "base", "choices", "words", "items", "remote"])
async def model(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ServedModel]:
    if request.param in VOTES:
        yield OutputModel(stored(request.param), FakeAsker())
        return
    if request.param == "remote":
        yield RemoteModel(Rote(), ChatForm())
        return
    base = make_base(tmp_path / "tiny")
    engines = Engines(Settings(bases={"tiny": base}, threads=1, device="cpu"))
    adapter = make_adapter(tmp_path / "adapter", base) if request.param == "adapter" else None
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
