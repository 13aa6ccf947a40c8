"""Experts, in and out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, RootModel, model_validator

from evomerge.app.schemas.api_experts import API_EXPERT_EXAMPLE, ApiDefinition, ApiExpertCreate
from evomerge.app.schemas.base import Body, Metadata, Name, Page, Reference, Resource, Text

EXPERT_EXAMPLE: dict[str, Any] = {
    "id": "ex_5f0c2a9d81b34e77a6c0d1e2",
    "object": "expert",
    "name": "ner-movies",
    "kind": "lora",
    "base": "smollm2-135m",
    "content_hash": "9b74c9897bac770ffc029102a200c5de9b74c9897bac770ffc029102a200c5de",
    "info": {"rank": 8, "modules": 210, "parameters": 2442240},
    "metadata": {"task": "ner"},
    "created_at": 1764000000.25,
}


class ExpertFields(Body):
    """What may be said of an expert, however its files come."""

    name: Name | None = Field(None, description="By default the name of its folder.")
    base: Reference | None = Field(
        None,
        description="Name of the base model in the service's settings. By default the one that "
        "adapter_config.json names, or else the only one there is.",
    )
    metadata: Metadata = Field(default_factory=dict)


class AdapterCreate(ExpertFields):
    """An adapter in a folder that the service can read."""

    kind: Literal["lora"] = "lora"
    path: Text = Field(
        min_length=1,
        max_length=4096,
        description="Folder with adapter_config.json and adapter_model.safetensors, below one of "
        "the service's roots.",
    )


class ExpertCreate(
    RootModel[Annotated[AdapterCreate | ApiExpertCreate, Field(discriminator="kind")]]
):
    """An adapter, or a model behind an API."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"path": "/pools/ie/ner-movies", "name": "ner-movies", "base": "smollm2-135m"},
                API_EXPERT_EXAMPLE,
            ]
        }
    )

    @model_validator(mode="before")
    @classmethod
    def _adapter_unless_said(cls, data: Any) -> Any:
        return {"kind": "lora", **data} if isinstance(data, dict) else data


class Expert(Resource):
    """One member of pools."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXPERT_EXAMPLE]})

    id: str
    object: Literal["expert"] = "expert"
    name: str
    kind: str = Field(description="lora: an adapter; api: a model behind an API.")
    base: str | None = Field(description="Name of an adapter's base model.")
    content_hash: str = Field(description="SHA-256 of an adapter's files, or of the definition.")
    info: dict[str, Any] = Field(
        description="An adapter's rank, number of modules and parameters; an API's capabilities, "
        "as its last probe found them."
    )
    definition: ApiDefinition | None = Field(None, description="How an API is called.")
    metadata: dict[str, str] = Field(validation_alias="meta")
    created_at: float


class ExpertPage(Page[Expert]):
    """Some experts, newest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"object": "list", "data": [EXPERT_EXAMPLE], "has_more": False}]
        }
    )
