"""/v1/chat/completions and /v1/completions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute

from evomerge.app.api.models import ModelsDep
from evomerge.app.api.responses import CONFLICT, Responses, refusal
from evomerge.app.schemas.answers import (
    CHAT_STREAM,
    COMPLETION_STREAM,
    ChatCompletion,
    Completion,
)
from evomerge.app.schemas.completions import (
    ChatCompletionRequest,
    CompletionRequest,
    ModelRequest,
)
from evomerge.app.serving import wire
from evomerge.app.serving.answers import gather
from evomerge.app.serving.protocol import Request as Asked
from evomerge.app.serving.protocol import Run
from evomerge.app.serving.registry import Models
from evomerge.app.serving.requests import chat_request, completion_request, malformed

T = TypeVar("T")

_STREAM = "text/event-stream"
# What nginx answers for a client that has gone; nobody reads it.
_GONE = 499
REFUSED: Responses = {
    **CONFLICT,
    400: refusal("A parameter is wrong or not supported; the error names it."),
    404: refusal("No model has this name."),
    413: refusal("The body is too large."),
    500: refusal("The model broke."),
    501: refusal("A library that this model needs is not installed."),
    503: refusal("Too many requests wait, or what the model needs is away; see Retry-After."),
}


def _streamed(content: dict[str, Any]) -> Responses:
    return {200: {"content": {_STREAM: content}, "description": "The answer, or its pieces."}}


class OpenAIRoute(APIRoute):
    """Refuses bodies as OpenAI does: with 400 and the parameter's name."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                if any(fault["type"] == "json_invalid" for fault in error.errors()):
                    raise
                raise malformed(error.errors(), error.body) from error

        return handled


router = APIRouter(prefix="/v1", tags=["models"], route_class=OpenAIRoute)


@router.post(
    "/completions",
    operation_id="create_completion",
    response_model=Completion,
    responses=REFUSED | _streamed(COMPLETION_STREAM),
)
async def create_completion(
    request: Request, body: CompletionRequest, models: ModelsDep
) -> Response:
    """Continue texts by a merge, or score them (echo, logprobs and max_tokens 0)."""
    asked = completion_request(body)
    return await _answered(
        request, models, body, asked, lambda run: wire.CompletionShape(asked, run.prompts)
    )


@router.post(
    "/chat/completions",
    operation_id="create_chat_completion",
    response_model=ChatCompletion,
    responses=REFUSED | _streamed(CHAT_STREAM),
)
async def create_chat_completion(
    request: Request, body: ChatCompletionRequest, models: ModelsDep
) -> Response:
    """Answer a chat by a merge."""
    asked = chat_request(body)
    return await _answered(request, models, body, asked, lambda run: wire.ChatShape(asked))


async def _answered(
    request: Request,
    models: Models,
    body: ModelRequest,
    asked: Asked,
    shape_of: Callable[[Run], wire.Shape],
) -> Response:
    model = await models.get(body.model)
    run = await model.start(asked)
    shape = shape_of(run)
    head = wire.Head.new(shape.prefix, body.model, time.time())
    if not body.stream:
        count = max(1, len(asked.prompts)) * asked.samples
        answers = await _unless_gone(request, gather(run, count))
        if answers is None:
            return Response(status_code=_GONE)
        return JSONResponse(wire.whole(head, shape, run, answers))
    # Until the first part there is a status left to tell of what goes wrong.
    first = await _unless_gone(request, _first(run))
    if first is None:
        return Response(status_code=_GONE)
    options = body.stream_options
    stream = wire.Stream(head, shape, run, bool(options and options.include_usage), first)
    return StreamingResponse(
        stream.events(),
        media_type=_STREAM,
        # Proxies must neither keep nor hold back what is to be seen at once.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _first(run: Run) -> Any:
    return await anext(run.parts)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """What the work gives; None, and the work cancelled, once the client has gone away."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
