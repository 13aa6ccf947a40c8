"""OpenAI's bodies as requests to models: what cannot be done is refused, by its name."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.app.errors import Detail
from evomerge.app.schemas.completions import ChatCompletionRequest, CompletionRequest, ModelRequest
from evomerge.app.schemas.faults import faults
from evomerge.app.serving.errors import BadParameterError, UnsupportedParameterError
from evomerge.app.serving.protocol import Prompt, Request
from evomerge.connectors.local.engine_values import Draw
from evomerge.evaluation.errors import short

# OpenAI's own, for the completions endpoint.
_COMPLETION_TOKENS = 16
# What chat templates and other providers call it.
_ROLES = {"developer": "system"}
# Parameters of several types, and what they may be.
_SEVERAL = {
    "prompt": "a text, a list of up to 2048 texts, token ids, or lists of token ids",
    "stop": "a text, or a list of up to 16 texts, of 1 to 256 characters each",
    "content": "a text, or a list of parts of type text",
}
_SHOWN = 10
# Answers of one request at most.
_MAX_ANSWERS = 4096


def completion_request(body: CompletionRequest) -> Request:
    """A request to continue texts.

    Raises:
        BadParameterError: something is asked that no model here does.
    """
    _refuse(body, best_of=body.n or 1, suffix="")
    prompts = _prompts(body)
    samples = body.n or 1
    if len(prompts) * samples > _MAX_ANSWERS:
        raise BadParameterError(
            f"n={samples}: {len(prompts)} prompts with {samples} answers each are more than "
            f"{_MAX_ANSWERS}",
            "n",
        )
    return Request(
        draw=_draw(body),
        max_tokens=_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens,
        prompts=prompts,
        samples=samples,
        alternatives=body.logprobs,
        echo=bool(body.echo),
        choices=tuple(body.choices or ()),
    )


def chat_request(body: ChatCompletionRequest) -> Request:
    """A request to answer a chat.

    Raises:
        BadParameterError: something is asked that no model here does.
    """
    _refuse(
        body,
        response_format={"type": "text"},
        tools=[],
        tool_choice="none",
        functions=[],
        function_call="none",
    )
    asked = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    return Request(
        draw=_draw(body),
        max_tokens=asked,
        messages=tuple((_ROLES.get(turn.role, turn.role), turn.text) for turn in body.messages),
        samples=body.n or 1,
        alternatives=(body.top_logprobs or 0) if body.logprobs else None,
        choices=tuple(body.choices or ()),
    )


def malformed(errors: Sequence[Mapping[str, Any]], body: object) -> BadParameterError:
    """What is wrong with a body, by the parameter's name.

    A field that may be of several types is told of once, and not once a type.
    """
    details: dict[str | None, Detail] = {}
    for error, detail in zip(errors, faults(errors, body), strict=True):
        where = [str(part) for part in error["loc"] if part != "body"]
        kinds = [n for n, part in enumerate(where) if part in _SEVERAL]
        if kinds:
            name = ".".join(where[: kinds[0] + 1])
            detail = Detail(f"{name}: must be {_SEVERAL[where[kinds[0]]]}", name)
        if detail.param is None:  # of several fields: the message begins with the one to blame
            field, _, _ = detail.message.partition(":")
            detail = Detail(detail.message, field if field.isidentifier() else None)
        details.setdefault(detail.param, detail)
    told = list(details.values())
    message = "; ".join(detail.message for detail in told[:_SHOWN])
    return BadParameterError(message, told[0].param, details=told if len(told) > 1 else ())


def _draw(body: ModelRequest) -> Draw:
    seed = secrets.randbits(63) if body.seed is None else body.seed % 2**64
    return Draw(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=seed,
        stop=body.stops,
    )


def _prompts(body: CompletionRequest) -> tuple[Prompt, ...]:
    prompt = body.prompt
    if isinstance(prompt, str):
        return (prompt,)
    tokens = [one for one in prompt if isinstance(one, int)]
    if tokens:
        return (tuple(tokens),)
    return tuple(one if isinstance(one, str) else tuple(one) for one in prompt)  # type: ignore[arg-type]


def _refuse(body: ModelRequest, **harmless: Any) -> None:
    """Refuse what is set to anything but null and the value that changes nothing."""
    harmless |= {"presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}}
    for name, value in harmless.items():
        given = getattr(body, name)
        if given is not None and given != value:
            raise UnsupportedParameterError(name, f"must be {value!r}, got {short(given)}")
