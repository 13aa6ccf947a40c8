"""What clients see of any job, whatever it does."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from evomerge.app.schemas.base import Resource

Status = Literal[
    "queued",
    "running",
    "pausing",
    "paused",
    "cancelling",
    "succeeded",
    "failed",
    "cancelled",
]


def example(body: dict[str, Any]) -> ConfigDict:
    """The worked example of a model."""
    return ConfigDict(json_schema_extra={"examples": [body]})


def page_example(one: dict[str, Any]) -> ConfigDict:
    """The worked example of a page that holds one thing."""
    return example({"object": "list", "data": [one], "has_more": False})


class JobFailure(Resource):
    """Why a job failed."""

    code: str
    message: str
    param: str | None = None


class AnyJob(Resource):
    """One job: its state, its progress, its times."""

    id: str
    name: str | None
    status: Status
    progress: dict[str, Any]
    error: JobFailure | None
    metadata: dict[str, str]
    attempts: int = Field(description="How often a worker has taken it up.")
    seconds_used: float = Field(description="Running time, over all attempts.")
    created_at: float
    started_at: float | None
    finished_at: float | None


class AnyJobEvent(Resource):
    """One line of a job's history."""

    id: str
    created_at: float
    level: Literal["info", "warn", "error"]
    type: Literal["message", "metrics"]
    message: str
    data: dict[str, Any]
