"""The ELMs of a forest, in and out."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from evomerge.app.schemas.base import Body, Name, Page, Resource, Text
from evomerge.app.schemas.jobs import example, page_example

ELM_EXAMPLE: dict[str, Any] = {
    "id": "elm_0a1b2c3d4e5f60718293a4b5",
    "object": "forest.elm",
    "forest_id": "forest_3d9b17e2c4a85f60718293a4",
    "name": "python",
    "domain": "python",
    "content_hash": "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9",
    "lineage": {
        "seed_hash": "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
        "domain": "python",
        "parents": [
            {
                "content_hash": "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
                "weight": 1.0,
            }
        ],
        "tokens": 25000000,
        "own_tokens": 5000000,
        "corpus_hash": "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        "optimizer": "continue",
    },
    "tokens": 25000000,
    "own_tokens": 5000000,
    "job_id": None,
    "created_at": 1764000021.5,
}


class ElmCreate(Body):
    """An ELM that is there already: a checkpoint of the forest's lineage, or the seed itself."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"path": "/forests/manuals/python", "name": "python"},
                {"seed": True, "domain": "everything"},
            ]
        }
    )

    path: Text | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Folder of a checkpoint with its elm.json, below one of the service's roots.",
    )
    seed: Literal[True] | None = Field(None, description="The forest's seed, as it is.")
    name: Name | None = Field(None, description="By default its domain.")
    domain: Text | None = Field(
        None,
        min_length=1,
        max_length=128,
        description="What it is expert in. By default what its elm.json says.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.seed is None):
            raise ValueError("give either path or seed")
        if self.seed and self.domain is None:
            raise ValueError("a seed needs a domain to be an ELM of")
        return self


class Parent(Resource):
    """A model that an ELM began as, or as a part of."""

    content_hash: str
    weight: float


class Lineage(Resource):
    """Where a checkpoint comes from: what its elm.json says."""

    seed_hash: str | None = Field(description="Content hash of its seed; null: it is one.")
    domain: str | None
    parents: list[Parent] = Field(description="What it began as; the weights sum to one.")
    tokens: int = Field(description="Tokens seen in training, its seed's included.")
    own_tokens: int = Field(description="Tokens of its own training.")
    corpus_hash: str | None
    optimizer: Literal["reset", "continue"] | None = Field(
        description="What its training did with the state of its parent's optimizer."
    )


class Elm(Resource):
    """One expert language model of a forest."""

    model_config = example(ELM_EXAMPLE)

    id: str
    object: Literal["forest.elm"] = "forest.elm"
    forest_id: str
    name: str
    domain: str
    content_hash: str = Field(description="SHA-256 of its config, tokenizer and weights.")
    lineage: Lineage
    tokens: int = Field(description="Tokens seen in training, its seed's included.")
    own_tokens: int = Field(description="Tokens of its own training.")
    job_id: str | None = Field(description="The job that trained it here, if one did.")
    created_at: float


class ElmPage(Page[Elm]):
    """Some ELMs of a forest, in order."""

    model_config = page_example(ELM_EXAMPLE)
