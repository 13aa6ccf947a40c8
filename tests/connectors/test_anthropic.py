"""Anthropic's wire format."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.connectors import connectors, endpoint
from tests.support.dialects import anthropic, anthropic_refusal, message
from tests.support.provider import Provider, Send, provider

from evomerge.connectors.errors import QuestionRefusedError, TooLongError
from evomerge.connectors.question import Finish, Message, Question, Sampling


def question(server: Provider, *messages: Message, **sampling: Any) -> Question:
    chat = messages or (Message("user", "Where?"),)
    return Question(endpoint("anthropic", server.base_url), chat, sampling=Sampling(**sampling))


async def test_system_apart_and_roles_merged() -> None:
    chat = (
        Message("system", "Be short."),
        Message("user", "One."),
        Message("user", "Two."),
        Message("assistant", "Well,"),
        Message("system", "Be kind."),
        Message("user", "Three."),
    )
    async with provider(anthropic) as server, connectors() as asked:
        await asked.ask(
            question(server, *chat, max_tokens=3, top_p=0.9, stop=("\n", "END"), seed=7)
        )
    assert server.requests[0].path == "/v1/messages"
    assert server.requests[0].body == {
        "model": "m",
        "max_tokens": 3,
        "messages": [
            {"role": "user", "content": "One.\n\nTwo."},
            {"role": "assistant", "content": "Well,"},
            {"role": "user", "content": "Three."},
        ],
        "system": "Be short.\n\nBe kind.",
        "temperature": 0.0,
        "top_p": 0.9,
        "stop_sequences": ["END"],
    }


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("tool_use", "other"),
        ("pause_turn", "other"),
        (None, "other"),
    ],
)
async def test_why_it_ended(reason: Any, finish: Finish) -> None:
    async with provider(lambda _: Send(message("Here.", reason))) as server, connectors() as asked:
        answer = await asked.ask(question(server))
    assert (answer.completions[0].text, answer.completions[0].finish) == ("Here.", finish)
    assert (answer.input_tokens, answer.output_tokens) == (9, 4)


async def test_text_blocks_are_joined_thoughts_left_out_and_cached_tokens_counted() -> None:
    said = message("", "end_turn") | {
        "content": [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "By the"},
            {"type": "text", "text": " sea."},
        ],
        "usage": {"input_tokens": 3, "cache_read_input_tokens": 40, "output_tokens": 2},
    }
    async with provider(lambda _: Send(said)) as server, connectors() as asked:
        answer = await asked.ask(question(server))
    assert answer.completions[0].text == "By the sea."
    assert answer.input_tokens == 43


async def test_a_blank_stop_is_obeyed_here() -> None:
    said = Send(message("First.\nSecond.", "end_turn"))
    async with provider(lambda _: said) as server, connectors() as asked:
        answer = await asked.ask(question(server, stop=("\n",)))
    assert answer.completions[0].text == "First."
    assert "stop_sequences" not in server.requests[0].body


async def test_samples_are_requests() -> None:
    async with provider(anthropic) as server, connectors() as asked:
        answer = await asked.ask(replace(question(server, max_tokens=2), samples=3))
    assert (len(answer.completions), answer.requests, answer.output_tokens) == (3, 3, 6)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"echo": True}, "echo"),
        ({"alternatives": 0}, "logprobs"),
        ({"messages": (), "prompts": ("The river",)}, "prompt"),
        ({"messages": (Message("assistant", "Well,"),)}, "messages"),
        ({"messages": (Message("system", "Be short."),)}, "messages"),
    ],
)
async def test_what_it_cannot_do_is_refused_unasked(change: dict[str, Any], param: str) -> None:
    async with provider(anthropic) as server, connectors() as asked:
        with pytest.raises(QuestionRefusedError) as caught:
            await asked.ask(replace(question(server), **change))
    assert server.requests == []
    assert (caught.value.param, caught.value.requests) == (param, 0)


async def test_overloaded_inside_a_200_is_asked_again() -> None:
    async with provider(anthropic) as server, connectors() as asked:
        server.faults.append(anthropic_refusal(200, "Overloaded", "overloaded_error"))
        assert (await asked.ask(question(server))).requests == 2


async def test_a_long_prompt_is_told_apart() -> None:
    async with provider(anthropic) as server, connectors() as asked:
        server.faults.append(
            anthropic_refusal(400, "prompt is too long: 210000 tokens > 200000 maximum")
        )
        with pytest.raises(TooLongError):
            await asked.ask(question(server))
