"""How OpenAPI tells of refusals."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from evomerge.app.schemas.errors import Error

Responses = dict[int | str, dict[str, Any]]


def refusal(description: str) -> dict[str, Any]:
    """One status that a request may be refused with."""
    return {"model": Error, "description": description}


NOT_FOUND: Responses = {404: refusal("Nothing has this id or name.")}
CONFLICT: Responses = {409: refusal("It does not fit the state of things.")}
REFUSED: Responses = {
    400: refusal("The body is not JSON, or no form."),
    409: refusal("The name is taken, or the idempotency key was used with another body."),
    413: refusal("The body is too large."),
    415: refusal("The body is of another type."),
    422: refusal("A field is wrong; the message names it and its value."),
}
STORED: Responses = {
    501: refusal("A library that this needs is not installed."),
    507: refusal("The disk is full; nothing was stored."),
}
# Of every route below /v1.
ALWAYS: Responses = {
    401: refusal("The service asks for an API key."),
    422: refusal("A field is wrong; the message names it and its value."),
    503: refusal("The database cannot be reached; try again after Retry-After seconds."),
}


def existed(model: type[BaseModel]) -> Responses:
    """The answer of a POST that finds what it was to make."""
    return {200: {"model": model, "description": "The very same was there already."}}


def binary(media_type: str, description: str) -> Responses:
    """An answer that is a file."""
    schema = {"type": "string", "format": "binary"}
    content = {media_type: {"schema": schema, "example": "<bytes>"}}
    return {200: {"description": description, "content": content}}
