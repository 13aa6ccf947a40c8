"""Validation errors in words: the field's dotted path, what is wrong, the bad value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evomerge.app.errors import Detail
from evomerge.evaluation.errors import short

_SOURCES = frozenset({"body", "query", "path", "header"})
_MESSAGES = {"missing": "is missing", "extra_forbidden": "is not a known field"}


def faults(errors: Iterable[Mapping[str, Any]], body: object = None) -> list[Detail]:
    """One detail a fault of a pydantic validation.

    Args:
        errors: as `ValidationError.errors()` gives them.
        body: what was validated; tells the tags of unions, which no user wrote, from fields.
    """
    return [_fault(error, body) for error in errors]


def _fault(error: Mapping[str, Any], body: object) -> Detail:
    error = _of_tag(error)
    field = ".".join(_path(error["loc"], body, missing=error["type"] == "missing")) or None
    message = _MESSAGES.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    given = error.get("input")
    shown = "" if isinstance(given, dict | list) else f", got {short(given)}"
    if error["type"] == "missing":
        shown = ""
    return Detail(f"{field}: {message}{shown}" if field else f"{message}{shown}", field)


def _of_tag(error: Mapping[str, Any]) -> Mapping[str, Any]:
    """A fault of the field that tells the members of a union apart, placed at that field."""
    if error["type"] not in ("union_tag_not_found", "union_tag_invalid"):
        return error
    name = error["ctx"]["discriminator"].strip("'")
    place = {"loc": (*error["loc"], name), "type": "missing", "input": None}
    if error["type"] == "union_tag_not_found":
        return {**error, **place}
    message = f"must be one of {error['ctx']['expected_tags']}"
    return {**error, **place, "type": "literal", "msg": message, "input": error["ctx"]["tag"]}


def _path(location: Sequence[str | int], body: object, *, missing: bool) -> list[str]:
    """The location as the user sees it; its last part is not in the body where it is `missing`."""
    if location and location[0] in _SOURCES:
        location = location[1:]
    parts = []
    here = body
    for number, part in enumerate(location):
        absent = missing and number == len(location) - 1
        if isinstance(here, dict) and part not in here and not absent:
            continue  # the tag of a union
        parts.append(str(part))
        here = _below(here, part)
    return parts


def _below(here: object, part: str | int) -> object:
    if isinstance(here, dict):
        return here.get(part)
    if isinstance(here, list) and isinstance(part, int) and part < len(here):
        return here[part]
    return None
