"""What a request to a model is refused with."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.app.errors import ApiError, ConflictError, Detail, NotFoundError, UnavailableError


class ModelNotFoundError(NotFoundError):
    """No model has this name."""

    code = "model_not_found"

    def __init__(self, name: str) -> None:
        super().__init__("model", name, param="model")


class ModelNotReadyError(ConflictError):
    """The job of this name has not succeeded."""

    code = "model_not_ready"


class BadParameterError(ApiError):
    """A parameter has a value that this model cannot do."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"

    def __init__(
        self,
        message: str,
        param: str | None,
        *,
        code: str | None = None,
        details: Sequence[Detail] = (),
    ) -> None:
        super().__init__(message, param=param, code=code, details=details)


class UnsupportedParameterError(BadParameterError):
    """A parameter that would change the answer and that no model, or not this one, can do."""

    code = "unsupported_parameter"

    def __init__(self, param: str, reason: str) -> None:
        super().__init__(f"{param}: {reason}", param)


class ContextLengthError(BadParameterError):
    """Prompt and answer do not fit into the model's context."""

    code = "context_length_exceeded"


class BusyError(UnavailableError):
    """Too many requests wait; the same one may be answered later."""

    code = "overloaded"


class ModelUnavailableError(UnavailableError):
    """What the model needs is away: its base, its files, or every expert that it asks."""

    code = "model_unavailable"


class ModelFailedError(ApiError):
    """The model broke while it answered."""

    code = "model_failed"
