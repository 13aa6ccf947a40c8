"""What the API refuses, each error with the status that it is answered with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Detail:
    """One of several things that are wrong with a request: the field, and what is wrong."""

    message: str
    param: str | None = None


class ApiError(Exception):
    """Root of what a request is refused with.

    Attributes:
        status: the HTTP status.
        type: the class of the error, for programs.
        code: the error itself, for programs.
        param: the field at fault, as a dotted path, if one is.
        details: each single fault where there are several.
    """

    status = 500
    type = "api_error"
    code = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        details: Sequence[Detail] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.details = tuple(details)


class InvalidRequestError(ApiError):
    """A field has a value that cannot be used."""

    status = 422
    type = "invalid_request_error"
    code = "invalid_value"


class NotFoundError(ApiError):
    """Nothing has this id or name."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"

    def __init__(self, what: str, key: str, param: str | None = None) -> None:
        shown = key if len(key) <= 80 else key[:80] + "…"
        super().__init__(f"no {what} {shown!r}", param=param)


class ConflictError(ApiError):
    """The request does not fit the state of things."""

    status = 409
    type = "conflict_error"
    code = "conflict"


class NotPossibleError(ApiError):
    """This installation lacks what the request needs."""

    status = 501
    code = "not_installed"


class UnavailableError(ApiError):
    """Something that the service needs is away; the same request may succeed later."""

    status = 503
    type = "service_unavailable"
    code = "unavailable"


class StorageFullError(ApiError):
    """There is no room left on the disk."""

    status = 507
    code = "disk_full"


class ForbiddenError(ApiError):
    """The key presented may not do this."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class OverloadedError(UnavailableError):
    """Too many ask at once; the same request may succeed soon."""

    status = 429
    type = "rate_limit_error"
    code = "queue_full"


class QuotaError(ApiError):
    """The key presented has used up what it may."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
