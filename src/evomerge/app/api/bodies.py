"""Bodies that come as JSON or as a multipart form, told apart by their content type."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from json import JSONDecodeError
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from evomerge.app.schemas.base import Body

M = TypeVar("M", bound=BaseModel)

FORM = "multipart/form-data"
JSON = "application/json"


def is_form(request: Request) -> bool:
    """Whether the body is a multipart form."""
    return request.headers.get("content-type", "").startswith(FORM)


async def json_body(request: Request, model: type[M]) -> M:
    """The body as JSON.

    Raises:
        RequestValidationError: it is not JSON, or not what the model asks.
        HTTPException: it is announced as something else.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != JSON:
        raise HTTPException(415, f"Content-Type {kind[:80]!r} must be {JSON} or {FORM}")
    try:
        body = await request.json()
    except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestValidationError([{"type": "json_invalid", "loc": ("body",)}]) from error
    return _validated(model, body)


@asynccontextmanager
async def form_body(
    request: Request, model: type[M], files: Sequence[str]
) -> AsyncIterator[tuple[M, dict[str, UploadFile]]]:
    """The text fields of a form under a model, and its files by name.

    Files lie in temporary ones that are gone at the end of the block.

    Raises:
        RequestValidationError: a file is missing, or fields are not what the model asks.
    """
    async with request.form(max_files=len(files), max_fields=8) as form:
        given = {name: value for name, value in form.items() if isinstance(value, UploadFile)}
        missing = [
            {"type": "missing", "loc": ("body", name), "msg": "Field required", "input": None}
            for name in files
            if name not in given
        ]
        if missing:
            raise RequestValidationError(missing, body={})
        yield _validated(model, _fields(form, files)), {name: given[name] for name in files}


def documented(
    json_model: type[BaseModel], form_model: type[Body], files: Mapping[str, str]
) -> dict[str, Any]:
    """What OpenAPI says of such a body.

    Args:
        files: what each file is, by its field.
    """
    schema = _whole(json_model.model_json_schema())
    fields = form_model.model_json_schema()["properties"]
    parts = {
        name: {"type": "string", "format": "binary", "description": text}
        for name, text in files.items()
    }
    example = {name: f"<{text}>" for name, text in files.items()}
    form = {
        "type": "object",
        "title": f"{form_model.__name__}Upload",
        "required": list(files),
        "properties": {**parts, **fields, "metadata": _METADATA},
        "additionalProperties": False,
        "example": {**example, "name": schema["examples"][0]["name"]},
    }
    content = {
        JSON: {"schema": schema, "example": schema["examples"][0]},
        FORM: {"schema": form, "example": form["example"]},
    }
    return {"requestBody": {"required": True, "content": content}}


_METADATA = {
    "type": "string",
    "description": "Up to 16 pairs of your own, as a JSON object.",
    "contentMediaType": JSON,
}


def _whole(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with what it refers to in its place: its own definitions are not the document's."""
    definitions = schema.pop("$defs", {})
    schema.pop("discriminator", None)

    def filled(part: Any) -> Any:
        if isinstance(part, list):
            return [filled(one) for one in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            beside = {key: value for key, value in part.items() if key != "$ref"}
            return filled({**definitions[part["$ref"].rpartition("/")[2]], **beside})
        return {key: filled(value) for key, value in part.items()}

    whole: dict[str, Any] = filled(schema)
    return whole


def _fields(form: FormData, files: Sequence[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: value for name, value in form.items() if name not in files}
    text = fields.get("metadata")
    if isinstance(text, str):
        try:
            fields["metadata"] = json.loads(text)
        except (ValueError, RecursionError):
            fields["metadata"] = text  # refused by the model, which names it
    return fields


def _validated(model: type[M], body: object) -> M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
        raise RequestValidationError(faults, body=body) from error
