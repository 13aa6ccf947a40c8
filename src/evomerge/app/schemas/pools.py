"""Pools, in and out."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from evomerge.app.schemas.base import Body, Metadata, Name, Page, Reference, Resource, Text

POOL_EXAMPLE: dict[str, Any] = {
    "id": "pool_77d0f3b2c9e84a15b6d7e8f9",
    "object": "pool",
    "name": "ie-experts",
    "base": "smollm2-135m",
    "experts": [
        {"id": "ex_5f0c2a9d81b34e77a6c0d1e2", "name": "ner-movies"},
        {"id": "ex_c1d2e3f4a5b60718293a4b5c", "name": "re-news"},
    ],
    "metadata": {},
    "created_at": 1764000001.5,
}


class PoolCreate(Body):
    """A pool of registered experts, or of every adapter below a pattern of folders."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "ie-experts", "experts": ["ner-movies", "re-news"]},
                {"name": "everything", "folders": "/pools/ie/*", "base": "smollm2-135m"},
            ]
        }
    )

    name: Name
    experts: list[Reference] | None = Field(
        None, min_length=1, description="Ids or names of experts, in order."
    )
    folders: Text | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="A pattern of folders below one of the service's roots, such as /pools/ie/*. "
        "Each is registered as an expert under its folder's name; all of them or none.",
    )
    base: Reference | None = Field(
        None, description="With folders: the base model's name; by default as for one expert."
    )
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.experts is None) == (self.folders is None):
            raise ValueError("give either experts or folders")
        if self.base is not None and self.folders is None:
            raise ValueError("base goes with folders; experts have theirs already")
        return self


class PoolMember(Resource):
    """One place in a pool."""

    id: str
    name: str


class Pool(Resource):
    """A named list of experts of one kind, over one base model where they have one."""

    model_config = ConfigDict(json_schema_extra={"examples": [POOL_EXAMPLE]})

    id: str
    object: Literal["pool"] = "pool"
    name: str
    base: str | None
    experts: list[PoolMember] = Field(description="In order.")
    metadata: dict[str, str]
    created_at: float


class PoolPage(Page[Pool]):
    """Some pools, newest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"object": "list", "data": [POOL_EXAMPLE], "has_more": False}]
        }
    )
