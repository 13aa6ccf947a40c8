"""What a probe believes, of servers that keep to the protocol and of servers that do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.connectors import Waits, connectors, endpoint
from tests.support.dialects import OpenAI, anthropic, refusal
from tests.support.provider import Answer, Hang, Provider, Request, Send, provider

from evomerge.connectors import probe as probing
from evomerge.connectors.errors import (
    AskError,
    CredentialError,
    ProviderDownError,
    UnknownModelError,
    UnusableAnswerError,
)
from evomerge.connectors.expert import Capabilities
from evomerge.connectors.hosts import HostPolicy
from evomerge.connectors.probe import LONG_PROMPT, PROMPT, probe
from evomerge.connectors.question import Endpoint, Interface, Sampling
from evomerge.connectors.registry import Connectors

RECORDED = Path(__file__).parent / "recorded"
SILENT = Send({"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]})
SAMPLING = Sampling(64, 0.0, top_p=0.9, seed=7)


async def probed(
    answer: Answer, interface: Interface | None = "completions", **limits: float
) -> tuple[Capabilities, Provider]:
    """What a probe finds, and the server that it asked."""
    kind = "anthropic" if answer is anthropic else "openai"
    async with provider(answer) as server, connectors(**limits) as asked:
        where = endpoint(kind, server.base_url)
        found = await probe(asked.of(kind), where, interface, SAMPLING, lambda: 5.0)
    return found, server


async def test_a_server_that_can_everything() -> None:
    found, server = await probed(OpenAI())
    each = (len(LONG_PROMPT) - len(PROMPT)) / (len(LONG_PROMPT.split()) - len(PROMPT.split()))
    assert found.overhead_tokens <= 1
    assert replace(found, overhead_tokens=0) == Capabilities(
        interface="completions",
        alternatives=10,
        prompt_logprobs=True,
        zero_tokens=True,
        batches=True,
        samples=True,
        bytes_per_token=round(each, 4),
        checked_at=5.0,
    )
    assert len(server.requests) <= 8
    assert all(request.body["max_tokens"] <= 4 for request in server.requests)


async def test_chat_is_taken_where_there_is_a_choice() -> None:
    found, _ = await probed(OpenAI(), None)
    assert (found.interface, found.alternatives, found.samples) == ("chat", 10, True)
    assert not any((found.prompt_logprobs, found.zero_tokens, found.batches))
    assert found.overhead_tokens >= 7


async def test_completions_where_there_is_no_chat() -> None:
    found, _ = await probed(OpenAI(chat=False), None)
    assert (found.interface, found.prompt_logprobs) == ("completions", True)
    assert any("no chat" in note for note in found.notes)


async def test_an_echo_shifted_by_one_is_not_believed_and_zero_is_not_tried() -> None:
    found, server = await probed(OpenAI(echo="shifted", zero="many"))
    assert not any((found.prompt_logprobs, found.zero_tokens))
    assert any("echo is not believed" in note for note in found.notes)
    assert all(request.body["max_tokens"] > 0 for request in server.requests)


@pytest.mark.parametrize("echo", ["ignored", "refused"])
async def test_an_echo_that_is_none_is_not_believed(echo: str) -> None:
    found, _ = await probed(OpenAI(echo=echo))
    assert not found.prompt_logprobs
    assert found.alternatives == 10
    assert any("no echo" in note for note in found.notes)


@pytest.mark.parametrize("zero", ["one", "many"])
async def test_zero_tokens_that_generate_all_the_same_are_not_believed(zero: str) -> None:
    found, _ = await probed(OpenAI(zero=zero))
    assert found.prompt_logprobs
    assert not found.zero_tokens


async def test_zero_tokens_that_never_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "ZERO_SECONDS", 0.2)
    normal = OpenAI()

    def answer(request: Request) -> Send | Hang:
        return Hang() if request.body["max_tokens"] == 0 else normal(request)

    async with provider(answer) as server, connectors() as asked:
        where = endpoint("openai", server.base_url)
        found = await probe(asked.of("openai"), where, "completions", SAMPLING, lambda: 5.0)
        await server.left.wait()
    assert found.prompt_logprobs
    assert not found.zero_tokens
    assert any("went on generating" in note for note in found.notes)


@pytest.mark.parametrize(
    ("server", "given"),
    [
        (OpenAI(alternatives=5), 5),
        (OpenAI(alternatives=1), 1),
        (OpenAI(alternatives=3, strict=False), 3),
        (OpenAI(alternatives=None), None),
        (OpenAI(chat_shaped=True), 10),
    ],
)
async def test_as_many_alternatives_as_come(server: OpenAI, given: int | None) -> None:
    for interface in ("chat", "completions"):
        found, _ = await probed(server, interface)  # type: ignore[arg-type]
        assert found.alternatives == given


async def test_batches_and_samples_that_lose_answers_are_not_believed() -> None:
    found, _ = await probed(OpenAI(batches=False, samples=False))
    assert not any((found.batches, found.samples))
    assert found.prompt_logprobs


async def test_what_is_refused_is_reported_and_never_sent_again() -> None:
    words = {
        name: f"Unsupported parameter: '{name}' is not supported with this model."
        for name in ("max_tokens", "seed", "top_p", "temperature")
    }
    async with provider(OpenAI(refused=words)) as server, connectors() as asked:
        where = endpoint("openai", server.base_url)
        found = await probe(asked.of("openai"), where, "chat", SAMPLING, lambda: 5.0)
    assert found.token_limit == "max_completion_tokens"
    assert found.unsupported == ("max_tokens", "seed", "temperature", "top_p")
    assert sum(len(set(words) & set(request.body)) > 0 for request in server.requests) == 4


async def test_tokens_that_are_not_counted_keep_the_usual_estimate() -> None:
    found, _ = await probed(OpenAI(usage=False), "chat")
    assert found.bytes_per_token == pytest.approx(4.0, abs=0.1)
    assert found.overhead_tokens <= 1


async def test_zero_tokens_are_not_believed_where_nothing_is_counted() -> None:
    found, _ = await probed(OpenAI(usage=False, zero="many"))
    assert not found.zero_tokens


async def test_anthropic() -> None:
    found, server = await probed(anthropic, None)
    assert found.interface == "chat"
    assert found.alternatives is None
    assert not any((found.prompt_logprobs, found.batches, found.samples))
    assert found.overhead_tokens >= 7
    assert len(server.requests) <= 4


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda _: refusal(401, "no key"), CredentialError),
        (lambda _: refusal(404, "no model"), UnknownModelError),
        (lambda _: refusal(503, "down"), ProviderDownError),
        (lambda _: SILENT, UnusableAnswerError),
    ],
)
async def test_what_does_not_generate_is_an_error(answer: Any, kind: type[AskError]) -> None:
    with pytest.raises(kind):
        await probed(answer, None)


async def test_a_model_that_thinks_first_is_noted() -> None:
    said = {"content": None, "reasoning_content": "Hm"}
    body = {"choices": [{"index": 0, "message": said, "finish_reason": "length"}]}
    found, _ = await probed(lambda _: Send(body), "chat")
    assert any("think first" in note for note in found.notes)


@pytest.mark.parametrize("interface", ["chat", "completions"])
async def test_the_verdict_on_a_real_server(interface: Interface) -> None:
    """llama-cpp-python, recorded: its echo is shifted, it takes no batch and no n."""
    recorded = json.loads((RECORDED / f"llama_cpp_python_{interface}.json").read_text())
    calls = recorded["calls"]

    def replay(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        call = next(call for call in calls if call["request"] == asked)
        return httpx.Response(call["status"], json=call["response"])

    async with Connectors(
        HostPolicy.of(["127.0.0.1"], ["127.0.0.0/8"]),
        retries=Waits().retries(),
        transport=httpx.MockTransport(replay),
    ) as asked:
        where = Endpoint("openai", "http://127.0.0.1:8000/v1", calls[0]["request"]["model"])
        found = await probe(asked.of("openai"), where, interface, Sampling(), lambda: 5.0)
    notes = " ".join(found.notes)
    assert replace(found, notes=()) == Capabilities(
        interface=interface,
        alternatives=20,
        bytes_per_token=4.7551,
        overhead_tokens=30 if interface == "chat" else 0,
        checked_at=5.0,
    )
    assert ("'.' was generated at -0.3762, echoed at -18.1444" in notes) is (
        interface == "completions"
    )
