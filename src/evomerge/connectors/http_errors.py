"""What can go wrong over HTTP, one tree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from evomerge.connectors.base import ConnectorError


class HttpError(ConnectorError):
    """Root of what can go wrong between here and a server."""


class BadAddressError(HttpError):
    """The address is not one that can be called."""


class UnreachableError(HttpError):
    """No answer: refused, lost, or too slow."""


class NotConnectedError(UnreachableError):
    """No connection came about, so nothing was sent."""


class BadAnswerError(HttpError):
    """An answer that is not what the protocol promises."""


class StatusError(HttpError):
    """The server refused, with a status of 400 or more.

    Attributes:
        status: the HTTP status.
        message: the server's own words.
        param: the field that it names, if it names one.
        code: its machine-readable reason, if it gives one.
        details: each single fault in words, where it tells of several.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        details: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.details = tuple(details)


def parsed(text: str) -> Any:
    """JSON.

    Raises:
        BadAnswerError: it is none.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadAnswerError(f"expected JSON, got {text[:200]!r}") from error


def refusal(status: int, text: str) -> StatusError:
    """The error in an OpenAI-style envelope, or the bare text of another server."""
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return StatusError(status, text[:500].strip() or f"status {status} without a word")
    details = [
        detail["message"]
        for detail in error.get("details") or ()
        if isinstance(detail, dict) and isinstance(detail.get("message"), str)
    ]
    return StatusError(status, error["message"], error.get("param"), error.get("code"), details)
