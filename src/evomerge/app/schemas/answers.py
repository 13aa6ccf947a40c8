"""Answers of models, in OpenAI's shapes."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import ConfigDict, Field

from evomerge.app.schemas.base import Resource

Finish = Literal["stop", "length", "content_filter"]

_HEAD: dict[str, Any] = {"created": 1764002900, "model": "film-merged"}
_USAGE: dict[str, Any] = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def _stream(head: dict[str, Any], *choices: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI shows of a stream."""
    events = "".join(f"data: {json.dumps({**head, 'choices': [one]})}\n\n" for one in choices)
    return {"schema": {"type": "string"}, "example": events + "data: [DONE]\n\n"}


class Usage(Resource):
    """Tokens read and written; a prompt counts once, however many answers it gets."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(Resource):
    """Log-probabilities of tokens, before temperature and top_p."""

    tokens: list[str]
    token_logprobs: list[float | None] = Field(description="Null for a prompt's first token.")
    top_logprobs: list[dict[str, float] | None] = Field(
        description="The likeliest tokens, and the token itself."
    )
    text_offset: list[int] = Field(description="Characters of `text` before each token.")


class CompletionChoice(Resource):
    """One continued text."""

    index: int = Field(description="By prompt and then by answer.")
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Finish


class Completion(Resource):
    """Continued texts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "cmpl-6f0c2a9d81b34e77a6c0d1e2",
                    "object": "text_completion",
                    **_HEAD,
                    "choices": [
                        {
                            "index": 0,
                            "text": " title: Alien",
                            "logprobs": {
                                "tokens": [" title", ":", " Alien"],
                                "token_logprobs": [-0.1, -0.01, -0.2],
                                "top_logprobs": [{" title": -0.1}, {":": -0.01}, {" Alien": -0.2}],
                                "text_offset": [0, 6, 7],
                            },
                            "finish_reason": "length",
                        }
                    ],
                    "usage": _USAGE,
                }
            ]
        }
    )

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    evomerge: dict[str, Any] | None = Field(
        None, description="What a merge of answers adds: who was asked, who failed, the weights."
    )


class TokenLogprob(Resource):
    """One token in a place."""

    token: str
    logprob: float
    bytes: list[int]


class ChatToken(TokenLogprob):
    """One token of the message."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(Resource):
    """Log-probabilities of a message's tokens, before temperature and top_p."""

    content: list[ChatToken]
    refusal: None = None


class AssistantMessage(Resource):
    """What the model says."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(Resource):
    """One answer."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatCompletion(Resource):
    """An answered chat."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "chatcmpl-6f0c2a9d81b34e77a6c0d1e2",
                    "object": "chat.completion",
                    **_HEAD,
                    "choices": [
                        {
                            "index": 0,
                            "message": {
                                "role": "assistant",
                                "content": "title: Alien",
                                "refusal": None,
                            },
                            "logprobs": None,
                            "finish_reason": "stop",
                        }
                    ],
                    "usage": _USAGE,
                }
            ]
        }
    )

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    evomerge: dict[str, Any] | None = Field(
        None, description="What a merge of answers adds: who was asked, who failed, the weights."
    )


COMPLETION_STREAM = _stream(
    {"id": "cmpl-6f0c2a9d81b34e77a6c0d1e2", "object": "text_completion", **_HEAD},
    {"index": 0, "text": " title: Alien", "logprobs": None, "finish_reason": None},
    {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"},
)
CHAT_STREAM = _stream(
    {"id": "chatcmpl-6f0c2a9d81b34e77a6c0d1e2", "object": "chat.completion.chunk", **_HEAD},
    {
        "index": 0,
        "delta": {"role": "assistant", "content": "", "refusal": None},
        "logprobs": None,
        "finish_reason": None,
    },
    {
        "index": 0,
        "delta": {"content": "title: Alien"},
        "logprobs": None,
        "finish_reason": None,
    },
    {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"},
)
