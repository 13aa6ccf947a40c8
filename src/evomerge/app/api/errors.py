"""Every refusal in one envelope, with no word of the service's inside."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from evomerge.app.db.errors import UnknownCursorError
from evomerge.app.db.retry import is_away
from evomerge.app.errors import ApiError, Detail, InvalidRequestError, UnavailableError
from evomerge.app.schemas.faults import faults
from evomerge.evaluation.errors import short

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2
_SHOWN_FAULTS = 10
_KINDS = {
    HTTPStatus.BAD_REQUEST: ("invalid_request_error", "bad_request"),
    HTTPStatus.UNAUTHORIZED: ("authentication_error", "invalid_api_key"),
    HTTPStatus.NOT_FOUND: ("invalid_request_error", "unknown_route"),
    HTTPStatus.METHOD_NOT_ALLOWED: ("invalid_request_error", "method_not_allowed"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("invalid_request_error", "body_too_large"),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: ("invalid_request_error", "unsupported_media_type"),
}


def envelope(
    status: int,
    message: str,
    type: str,
    code: str,
    param: str | None = None,
    details: Sequence[Detail] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A refusal in the form of `schemas.errors.Error`."""
    error: dict[str, Any] = {"message": message, "type": type, "param": param, "code": code}
    if details:
        error["details"] = [vars(detail) for detail in details]
    return JSONResponse({"error": error}, status, dict(headers or {}))


def install(app: FastAPI) -> None:
    """Answer every exception in the envelope."""
    app.exception_handler(ApiError)(_refused)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(UnknownCursorError)(_unknown_cursor)
    app.exception_handler(DBAPIError)(_database)
    app.exception_handler(PoolTimeoutError)(_database)
    app.exception_handler(Exception)(_unexpected)


def refusal(error: ApiError) -> JSONResponse:
    """A refusal of our own."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if isinstance(error, UnavailableError) else {}
    return envelope(
        error.status, error.message, error.type, error.code, error.param, error.details, headers
    )


async def _refused(request: Request, error: ApiError) -> JSONResponse:
    return refusal(error)


async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    if any(fault["type"] == "json_invalid" for fault in error.errors()):
        return _no_json()
    details = faults(error.errors(), error.body)
    message = "; ".join(detail.message for detail in details[:_SHOWN_FAULTS])
    if len(details) > _SHOWN_FAULTS:
        message += f"; and {len(details) - _SHOWN_FAULTS} more"
    several = details if len(details) > 1 else ()
    return envelope(
        422, message, "invalid_request_error", "invalid_value", details[0].param, several
    )


def _no_json() -> JSONResponse:
    return envelope(400, "the body is not valid JSON", "invalid_request_error", "invalid_json")


async def _http(request: Request, error: HTTPException) -> JSONResponse:
    if isinstance(error.__cause__, UnicodeDecodeError | RecursionError):
        return _no_json()
    kind, code = _KINDS.get(HTTPStatus(error.status_code), ("api_error", "error"))
    message = str(error.detail)
    if error.status_code in (404, 405):
        shown = request.url.path[:200]
        message = {404: f"no route {shown}", 405: f"{shown} does not take {request.method}"}[
            error.status_code
        ]
    return envelope(error.status_code, message, kind, code, headers=error.headers)


async def _unknown_cursor(request: Request, error: UnknownCursorError) -> JSONResponse:
    message = f"after: there is no {short(error.after)} to go on behind"
    return refusal(InvalidRequestError(message, param="after"))


async def _database(request: Request, error: Exception) -> JSONResponse:
    if not is_away(error):
        return await _unexpected(request, error)
    reason = str(error.__cause__ or error).strip().partition("\n")[0]
    logger.warning("%s %s: the database is away: %s", request.method, request.url.path, reason)
    return refusal(
        UnavailableError("the database cannot be reached; try again", code="database_unavailable")
    )


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    number = secrets.token_hex(8)
    logger.error("error %s: %s %s", number, request.method, request.url.path, exc_info=error)
    message = f"something went wrong here; the service's log tells more of error {number}"
    return envelope(500, message, "api_error", "internal_error")
