"""Requests to models, in OpenAI's shapes. Whatever would change an answer is done or refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from evomerge.app.schemas.base import Body

_MAX_PROMPTS = 2048
_Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
_Stop = Annotated[str, Field(min_length=1, max_length=256)]


class StreamOptions(Body):
    """What a stream tells beside its pieces."""

    include_usage: bool | None = Field(None, description="End with a chunk that holds the usage.")
    include_obfuscation: bool | None = Field(None, description="Accepted, and not done.")


class ModelRequest(Body):
    """What both endpoints take."""

    model: Annotated[
        str,
        Field(
            min_length=1,
            max_length=128,
            description="A merge's name (`serve_as`), its job's id, or an expert's name or id "
            "where the service serves experts.",
        ),
    ]
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy. 1 by default.")
    top_p: float | None = Field(
        None, gt=0, le=1, description="Draw from the likeliest tokens that hold this much."
    )
    n: int | None = Field(None, ge=1, le=128, description="Answers to each prompt.")
    seed: int | None = Field(
        None, ge=-(2**63), lt=2**63, description="The same seed draws the same answer."
    )
    stop: _Stop | Annotated[list[_Stop], Field(max_length=16)] | None = Field(
        None, description="Texts that end the answer."
    )
    stream: bool | None = Field(None, description="Server-sent events, piece by piece.")
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = Field(None, description="0 alone.")
    frequency_penalty: float | None = Field(None, description="0 alone.")
    logit_bias: dict[str, float] | None = Field(None, description="Empty alone.")
    user: str | None = Field(None, description="Ignored.")
    choices: list[Annotated[str, Field(min_length=1)]] | None = Field(
        None,
        min_length=2,
        max_length=1000,
        description="An extension: the options to choose from, for merges of choices.",
    )

    @property
    def stops(self) -> tuple[str, ...]:
        """The stops as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @model_validator(mode="after")
    def _streams(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: goes with stream: true")
        return self


COMPLETION_REQUESTS: list[dict[str, Any]] = [
    {"model": "film-merged", "prompt": "Find the films: Alien is late.", "max_tokens": 32},
    {
        "model": "film-merged",
        "prompt": ["Two and two is four", "Two and two is five"],
        "max_tokens": 0,
        "echo": True,
        "logprobs": 1,
    },
]


class CompletionRequest(ModelRequest):
    """Continue texts, or score them."""

    model_config = ConfigDict(json_schema_extra={"examples": [*COMPLETION_REQUESTS]})

    prompt: (
        str
        | _Tokens
        | Annotated[list[str], Field(min_length=1, max_length=_MAX_PROMPTS)]
        | Annotated[list[_Tokens], Field(min_length=1, max_length=_MAX_PROMPTS)]
    ) = Field(description="A text, several texts, token ids, or several lists of token ids.")
    max_tokens: int | None = Field(
        None, ge=0, description="Of each answer; 16 by default. 0 goes with echo."
    )
    logprobs: int | None = Field(
        None, ge=0, le=5, description="Log-probabilities of the tokens, and of so many others."
    )
    echo: bool | None = Field(None, description="Give the prompt back before the answer.")
    best_of: int | None = Field(None, description="As n, or not at all.")
    suffix: str | None = Field(None, description="Empty alone.")


class ContentPart(Body):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[ContentPart], Field(min_length=1)]
    name: str | None = Field(None, description="Ignored.")
    refusal: None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


CHAT_REQUESTS: list[dict[str, Any]] = [
    {
        "model": "film-merged",
        "messages": [{"role": "user", "content": "Find the films: Alien is late."}],
        "max_tokens": 32,
        "temperature": 0,
    },
    {
        "model": "votes-merged",
        "messages": [{"role": "user", "content": "Is it good? The film is a joy."}],
        "choices": ["yes", "no"],
    },
]


class ChatCompletionRequest(ModelRequest):
    """Answer a chat."""

    model_config = ConfigDict(json_schema_extra={"examples": [*CHAT_REQUESTS]})

    messages: list[ChatMessage] = Field(min_length=1, max_length=2048)
    max_tokens: int | None = Field(
        None, ge=1, description="Of each answer. By default what the merge's job allowed."
    )
    max_completion_tokens: int | None = Field(
        None, ge=1, description="The newer name of max_tokens."
    )
    logprobs: bool | None = Field(None, description="Whether the tokens' are wanted.")
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="And of so many others. Goes with logprobs."
    )
    response_format: dict[str, Any] | None = Field(None, description='{"type": "text"} alone.')
    tools: list[Any] | None = Field(None, description="Empty alone.")
    tool_choice: Any = Field(None, description="none alone.")
    functions: list[Any] | None = Field(None, description="Empty alone.")
    function_call: Any = Field(None, description="none alone.")
    parallel_tool_calls: bool | None = Field(None, description="Ignored, as there are no tools.")
    store: bool | None = Field(None, description="Ignored: nothing is stored.")
    metadata: dict[str, str] | None = Field(None, description="Ignored.")
    service_tier: str | None = Field(None, description="Ignored.")

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_completion_tokens: give either this or max_tokens")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: goes with logprobs: true")
        return self
