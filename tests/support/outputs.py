"""API experts and their answers, as values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evomerge.connectors.expert import ApiExpert, Capabilities
from evomerge.connectors.question import Answer, Completion, Endpoint, Finish, Token

ENDPOINT = Endpoint("openai", "http://server:8000/v1", "small", credential="main")
CHAT = Capabilities(interface="chat")
ALTERNATIVES = Capabilities(interface="chat", alternatives=5)
ECHOING = Capabilities(
    interface="completions", alternatives=1, prompt_logprobs=True, zero_tokens=True, batches=True
)


def expert(name: str = "ann", capabilities: Capabilities = CHAT, **fields: Any) -> ApiExpert:
    return ApiExpert(name, ENDPOINT, capabilities=capabilities, **fields)


def said(*texts: str, finish: Finish = "stop") -> Answer:
    """An answer in words."""
    return Answer(tuple(Completion(text, finish) for text in texts), 10, len(texts))


def labelled(first: Token, text: str | None = None) -> Answer:
    """An answer of one token with its alternatives."""
    return Answer((Completion(first.text if text is None else text, "length", (first,)),), 10, 1)


def echoed(*rows: Sequence[tuple[str, float | None]]) -> Answer:
    """An answer whose prompts came back with log-probabilities."""
    tokens = [tuple(Token(text, logprob) for text, logprob in row) for row in rows]
    return Answer(tuple(Completion("", "length", (), row) for row in tokens), 10, 0)
