"""Tokens counted without generating: whose word is taken, and what happens where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.connectors import connectors, endpoint
from tests.support.dialects import OpenAI, refusal, tokens_of
from tests.support.provider import Action, Provider, Request, Reset, Send, provider

from evomerge.connectors.expert import ApiExpert, Capabilities, Tokenizes
from evomerge.connectors.probe import probe
from evomerge.connectors.question import Interface, Message, Question, Sampling
from evomerge.connectors.tokenize import token_counts

TEXTS = ("The river rises.", "It ends in the grey sea.", "So")
FORMS: list[Tokenizes] = ["vllm", "llama_cpp"]
FAULTS: list[Action] = [refusal(404, "no"), refusal(500, "down"), Send({"count": "3"}), Reset()]


async def probed(server: OpenAI, interface: Interface) -> Capabilities:
    async with provider(server) as running, connectors() as asked:
        where = endpoint("openai", running.base_url)
        connector = asked.of("openai")
        return await probe(connector, where, interface, Sampling(), lambda: 5.0, asked.caller)


async def counted(
    running: Provider, form: Tokenizes | None, interface: Interface
) -> list[int] | None:
    known = Capabilities(interface=interface, tokenizes=form, overhead_tokens=7)
    where = endpoint("openai", running.base_url)
    if interface == "chat":
        asked = [Question(where, (Message("user", text),)) for text in TEXTS]
    else:
        known = replace(known, overhead_tokens=0)
        asked = [Question(where, prompts=(TEXTS[0], TEXTS[1])), Question(where, prompts=TEXTS[2:])]
    async with connectors() as connected:
        return await token_counts(
            connected.caller, ApiExpert("e", where, capabilities=known), asked
        )


@pytest.mark.parametrize("interface", ["chat", "completions"])
@pytest.mark.parametrize("form", FORMS)
async def test_a_server_whose_counts_agree_is_believed(
    form: Tokenizes, interface: Interface
) -> None:
    found = await probed(OpenAI(tokenizes=form), interface)
    assert found.tokenizes == form
    if form == "llama_cpp":
        assert found.overhead_tokens == (7 if interface == "chat" else 0)
    assert Capabilities.from_json(found.to_json()) == found


@pytest.mark.parametrize("interface", ["chat", "completions"])
@pytest.mark.parametrize("form", [*FORMS, None])
async def test_a_server_that_counts_otherwise_is_not(
    form: Tokenizes | None, interface: Interface
) -> None:
    found = await probed(OpenAI(tokenizes=form, miscounts=1), interface)
    assert found.tokenizes is None


@pytest.mark.parametrize("form", FORMS)
async def test_every_text_is_counted_and_none_is_generated(form: Tokenizes) -> None:
    sizes = [len(tokens_of(text)) for text in TEXTS]
    async with provider(OpenAI(tokenizes=form)) as running:
        assert await counted(running, form, "chat") == [size + 7 for size in sizes]
        assert await counted(running, form, "completions") == [sizes[0] + sizes[1], sizes[2]]
        assert {request.path for request in running.requests} == {"/tokenize"}
        assert len(running.requests) == 6


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("form", FORMS)
async def test_a_fault_ends_the_counting_and_is_not_asked_again(
    form: Tokenizes, fault: Action
) -> None:
    def answer(request: Request) -> Action:
        return fault

    async with provider(answer) as running:
        assert await counted(running, form, "chat") is None
        assert len(running.requests) == 1


async def test_one_fault_among_the_counts_is_enough() -> None:
    async with provider(OpenAI(tokenizes="vllm")) as running:
        good = OpenAI(tokenizes="vllm")

        def answer(request: Request) -> Action:
            return refusal(500, "down") if len(running.requests) == 2 else good(request)

        running.answer = answer
        assert await counted(running, "vllm", "chat") is None


async def test_who_does_not_tokenize_is_not_asked() -> None:
    async with provider(OpenAI()) as running:
        assert await counted(running, None, "chat") is None
        assert not running.requests
