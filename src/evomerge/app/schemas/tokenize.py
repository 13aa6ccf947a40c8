"""Tokens without an answer, in vLLM's shapes."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator

from evomerge.app.schemas.base import Body, Resource
from evomerge.app.schemas.completions import ChatMessage

TOKENIZE_REQUESTS: list[dict[str, Any]] = [
    {"model": "film-merged", "prompt": "Find the films: Alien is late."},
    {"model": "film-merged", "messages": [{"role": "user", "content": "Is Alien a film?"}]},
]


class TokenizeRequest(Body):
    """A text or a chat to tokenize."""

    model_config = ConfigDict(json_schema_extra={"examples": [*TOKENIZE_REQUESTS]})

    model: Annotated[
        str, Field(min_length=1, max_length=128, description="As in a request for an answer.")
    ]
    prompt: str | None = Field(None, description="A text, as it would be continued.")
    messages: list[ChatMessage] | None = Field(
        None,
        min_length=1,
        max_length=2048,
        description="A chat up to where it would be answered, the model's template included.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("prompt: give either this or messages")
        return self


class Tokenized(Resource):
    """What a model reads."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"count": 3, "max_model_len": 8192, "tokens": [7575, 260, 4518]}]
        }
    )

    count: int = Field(description="How many tokens there are.")
    max_model_len: int = Field(description="Tokens that prompt and answer may have together.")
    tokens: list[int] = Field(description="Their ids.")
