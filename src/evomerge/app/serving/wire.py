"""Responses and streams in OpenAI's shapes."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from evomerge.app.errors import ApiError
from evomerge.app.serving.answers import (
    Gathered,
    chat_logprobs,
    completion_logprobs,
    usage,
)
from evomerge.app.serving.protocol import Part, Request, Run
from evomerge.connectors.local.engine_values import Ended, Piece, Scored

Json = dict[str, Any]
DONE = "data: [DONE]\n\n"
# Read of a prompt, where its tokens have gone out already.
_NOTHING = Scored(())


@dataclass(frozen=True)
class Head:
    """What every body of one request begins with."""

    id: str
    created: int
    model: str

    @classmethod
    def new(cls, prefix: str, model: str, now: float) -> Head:
        """A head with an id of its own."""
        return cls(f"{prefix}-{secrets.token_hex(12)}", int(now), model)

    def body(self, object_: str, choices: list[Json], **more: Any) -> Json:
        """A body with these choices."""
        return {
            "id": self.id,
            "object": object_,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            **more,
        }


class Shape(Protocol):
    """How one of the endpoints writes answers."""

    prefix: str
    whole_object: str
    chunk_object: str

    def whole(self, index: int, answer: Gathered) -> Json:
        """A finished choice."""
        ...

    def chunks(self, part: Part) -> list[Json]:
        """The choices of the chunks that a part becomes."""
        ...


@dataclass
class CompletionShape:
    """/v1/completions.

    Args:
        request: what was asked.
        prompts: texts to echo.
    """

    request: Request
    prompts: Sequence[str]
    prefix: str = "cmpl"
    whole_object: str = "text_completion"
    chunk_object: str = "text_completion"

    def whole(self, index: int, answer: Gathered) -> Json:
        """See `Shape`."""
        echoed = self._echoed(index)
        logprobs = None
        if self.request.alternatives is not None:
            logprobs = completion_logprobs(answer.prompt, echoed, answer.tokens)
        return _choice(index, logprobs, answer.finish, text=echoed + answer.text)

    def chunks(self, part: Part) -> list[Json]:
        """See `Shape`."""
        echoed = self._echoed(part.index)
        wanted = self.request.alternatives is not None
        match part.told:
            case Scored() if echoed:
                logprobs = completion_logprobs(part.told, echoed, ()) if wanted else None
                return [_choice(part.index, logprobs, None, text=echoed)]
            case Piece(text, tokens):
                logprobs = completion_logprobs(_NOTHING, echoed, tokens) if wanted else None
                return [_choice(part.index, logprobs, None, text=text)]
            case Ended(finish):
                return [_choice(part.index, None, finish, text="")]
        return []

    def _echoed(self, index: int) -> str:
        return self.prompts[index // self.request.samples] if self.request.echo else ""


@dataclass
class ChatShape:
    """/v1/chat/completions.

    Args:
        request: what was asked.
    """

    request: Request
    prefix: str = "chatcmpl"
    whole_object: str = "chat.completion"
    chunk_object: str = "chat.completion.chunk"

    def whole(self, index: int, answer: Gathered) -> Json:
        """See `Shape`."""
        wanted = self.request.alternatives is not None
        logprobs = chat_logprobs(answer.tokens) if wanted else None
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        return _choice(index, logprobs, answer.finish, message=message)

    def chunks(self, part: Part) -> list[Json]:
        """See `Shape`."""
        match part.told:
            case Scored():
                delta = {"role": "assistant", "content": "", "refusal": None}
                return [_choice(part.index, None, None, delta=delta)]
            case Piece(text, tokens):
                wanted = self.request.alternatives is not None
                logprobs = chat_logprobs(tokens) if wanted else None
                return [_choice(part.index, logprobs, None, delta={"content": text})]
            case Ended(finish):
                return [_choice(part.index, None, finish, delta={})]


def whole(head: Head, shape: Shape, run: Run, answers: Sequence[Gathered]) -> Json:
    """The body of a finished request."""
    choices = [shape.whole(index, answer) for index, answer in enumerate(answers)]
    spent = usage(run.prompt_tokens, sum(answer.count for answer in answers))
    return head.body(shape.whole_object, choices, usage=spent, **_extension(run))


@dataclass
class Stream:
    """A request answered piece by piece.

    Args:
        head, shape, run: of the request.
        include_usage: whether a last chunk is to tell the usage.
        first: what was taken from the run already.
    """

    head: Head
    shape: Shape
    run: Run
    include_usage: bool
    first: Part
    _count: int = field(default=0, init=False)

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events."""
        for event in self._written(self.first):
            yield event
        try:
            async with aclosing(self.run.parts) as parts:
                async for part in parts:
                    for event in self._written(part):
                        yield event
        except ApiError as error:
            # The status has gone out: the error comes as an event, which clients raise.
            body = {"message": error.message, "type": error.type, "code": error.code}
            yield _event({"error": {**body, "param": error.param}})
            return
        if self.include_usage or self.run.report:
            more = _extension(self.run)
            if self.include_usage:
                more["usage"] = usage(self.run.prompt_tokens, self._count)
            yield _event(self.head.body(self.shape.chunk_object, [], **more))
        yield DONE

    def _written(self, part: Part) -> list[str]:
        if isinstance(part.told, Ended):
            self._count += part.told.tokens
        more: Json = {"usage": None} if self.include_usage else {}
        if part.report:
            more["evomerge"] = {"index": part.index, **part.report}
        return [
            _event(self.head.body(self.shape.chunk_object, [choice], **more))
            for choice in self.shape.chunks(part)
        ]


def _choice(index: int, logprobs: Json | None, finish: str | None, **what: Any) -> Json:
    return {"index": index, **what, "logprobs": logprobs, "finish_reason": finish}


def _extension(run: Run) -> Json:
    return {"evomerge": run.report} if run.report else {}


def _event(body: Json) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, allow_nan=False)}\n\n"
