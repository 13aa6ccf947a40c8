"""JSON as the database keeps it: as Python's own module has it, at a fraction of its time."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json


def written(value: Any) -> str:
    """`value` as JSON text.

    Raises:
        ValueError: a number is not finite: NaN is not JSON, and Postgres refuses it; better an
            error here than a row that none can read.
        TypeError: something has no JSON.
    """
    try:
        text = to_json(value, inf_nan_mode="constants", fallback=_refused)
    except PydanticSerializationError:
        # Half of a surrogate pair, which Python can write, or what nobody can.
        return _slowly(value)
    # The words may as well stand in a text: Python's own module knows.
    return _slowly(value) if b"NaN" in text or b"Infinity" in text else text.decode()


def read(text: str | bytes) -> Any:
    """What `written` wrote."""
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)


def _slowly(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _refused(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} has no JSON")
