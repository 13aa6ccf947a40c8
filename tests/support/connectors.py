"""The connectors under the contract, each with what its provider says on the wire."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.support.dialects import OpenAI, anthropic, anthropic_refusal, message, refusal
from tests.support.provider import Answer, Send

from evomerge.connectors.credentials import Credential
from evomerge.connectors.hosts import HostPolicy
from evomerge.connectors.limits import EndpointLimits
from evomerge.connectors.question import Endpoint, Message, Provider, Question, Sampling
from evomerge.connectors.registry import Connectors
from evomerge.connectors.retries import Retries

CANARY = "sk-canary-0123456789abcdef"
NOW = 1_800_000_000.0


@dataclass
class Waits:
    """Stands for the clock: sleeps are noted and over at once."""

    seconds: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)

    def retries(self) -> Retries:
        return Retries(sleep=self.sleep, now=lambda: NOW, rng=random.Random(0))


def connectors(waits: Waits | None = None, **limits: float) -> Connectors:
    """Over loopback, with a planted secret and no wait."""
    return Connectors(
        HostPolicy.of(["127.0.0.1"], ["127.0.0.0/8"]),
        {"planted": Credential(("127.0.0.1",), env="PLANTED")},
        {"127.0.0.1": EndpointLimits(**{"attempts": 3, **limits})},  # type: ignore[arg-type]
        retries=(waits or Waits()).retries(),
        environment={"PLANTED": CANARY},
    )


@dataclass(frozen=True)
class Subject:
    """One connector and its provider.

    Attributes:
        answer: the server when all is well.
        question: a question to it that has a text for an answer.
        refusal: status and message in the provider's envelope.
        empty: a 200 that holds no answer.
        cut_short, filtered: answers that ended by length, and by a filter.
        refused_parameter: a parameter it may refuse, with the provider's words.
        key_header: where the credential is found, and how.
    """

    provider: Provider
    answer: Answer
    question: Callable[[str], Question]
    refusal: Callable[[int, str], Send]
    empty: Send
    cut_short: Send
    filtered: Send
    refused_parameter: tuple[str, Send]
    key_header: tuple[str, str]


def endpoint(provider: Provider, base_url: str) -> Endpoint:
    return Endpoint(provider, base_url, "m", "planted")


def _chat(provider: Provider) -> Callable[[str], Question]:
    return lambda base_url: Question(
        endpoint(provider, base_url),
        (Message("system", "Be short."), Message("user", "Where does it end?")),
        sampling=Sampling(4),
    )


def _choice(text: str, finish: str) -> Send:
    said = {"role": "assistant", "content": text}
    return Send({"choices": [{"index": 0, "message": said, "finish_reason": finish}]})


_SUBJECTS = [
    Subject(
        "openai",
        OpenAI(),
        _chat("openai"),
        refusal,
        Send({"choices": []}),
        _choice("half an ans", "length"),
        _choice("", "content_filter"),
        (
            "temperature",
            refusal(
                400,
                "Unsupported value: 'temperature' does not support 0 with this model.",
                param="temperature",
            ),
        ),
        ("authorization", f"Bearer {CANARY}"),
    ),
    Subject(
        "anthropic",
        anthropic,
        _chat("anthropic"),
        anthropic_refusal,
        Send({"type": "message", "content": None}),
        Send(message("half an ans", "max_tokens")),
        Send(message("", "refusal")),
        (
            "temperature",
            anthropic_refusal(400, "`temperature` is deprecated for this model."),
        ),
        ("x-api-key", CANARY),
    ),
]
SUBJECTS: Mapping[str, Subject] = {subject.provider: subject for subject in _SUBJECTS}
