"""Models that answer, as they are listed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from evomerge.app.schemas.base import Resource

MODEL_EXAMPLE: dict[str, Any] = {
    "id": "film-merged",
    "object": "model",
    "created": 1764002800,
    "owned_by": "evomerge",
    "evomerge": {
        "kind": "merge",
        "space": "lora",
        "base": "smollm2-135m",
        "merge_job_id": "mj_0b54a3c2d1e0f9a8b7c6d5e4",
    },
}


class Model(Resource):
    """A finished merge or average, a forest, or an expert, that can be called."""

    model_config = ConfigDict(json_schema_extra={"examples": [MODEL_EXAMPLE]})

    id: str = Field(description="What `model` is to be in a request.")
    object: Literal["model"] = "model"
    created: int = Field(description="Seconds since the epoch.")
    owned_by: Literal["evomerge"] = "evomerge"
    evomerge: dict[str, Any] = Field(description="What it is: its kind, and where it comes from.")


class ModelList(Resource):
    """Every model, merges with names first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"object": "list", "data": [MODEL_EXAMPLE]}]}
    )

    object: Literal["list"] = "list"
    data: list[Model]
