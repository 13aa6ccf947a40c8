"""The one form of every refusal."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from evomerge.app.schemas.base import Resource


class ErrorDetail(Resource):
    """One of several faults."""

    message: str
    param: str | None = None


class ErrorBody(Resource):
    """What went wrong."""

    message: str = Field(description="In words, with the field and the bad value.")
    type: str = Field(description="The class of the error.")
    param: str | None = Field(None, description="The field at fault, as a dotted path.")
    code: str = Field(description="The error itself, for programs.")
    details: list[ErrorDetail] | None = Field(
        None, description="Each single fault, where there are several."
    )


class Error(Resource):
    """The body of every answer with a status of 400 or more."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "message": "objective.held_out: Input should be less than 1, got 1.5",
                        "type": "invalid_request_error",
                        "param": "objective.held_out",
                        "code": "invalid_value",
                    }
                }
            ]
        }
    )

    error: ErrorBody
