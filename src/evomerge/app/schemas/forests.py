"""Forests, in and out."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from evomerge.app.ensembles import Weighting
from evomerge.app.schemas.base import Body, Metadata, Name, Page, Reference, Resource, Text
from evomerge.app.schemas.forest_elms import ElmCreate, Lineage
from evomerge.app.schemas.jobs import example, page_example
from evomerge.merging.forest.posterior import History
from evomerge.merging.forest.prior import PriorMode
from evomerge.merging.forest.top_k import TopKKind

FOREST_EXAMPLE: dict[str, Any] = {
    "id": "forest_3d9b17e2c4a85f60718293a4",
    "object": "forest",
    "name": "manuals",
    "seed": {
        "content_hash": "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
        "lineage": {
            "seed_hash": None,
            "domain": None,
            "parents": [],
            "tokens": 20000000,
            "own_tokens": 20000000,
            "corpus_hash": None,
            "optimizer": None,
        },
    },
    "vocabulary_hash": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "architecture": {"model_type": "llama", "parameters": 3212288, "vocabulary": 4096},
    "ensemble": {
        "mode": "cached",
        "prior": {"python": 0.75, "perl": 0.25},
        "history": "full",
        "top_k": 2,
        "top_k_kind": "token",
        "weighting": "posterior",
    },
    "router": None,
    "elms": [
        {
            "id": "elm_0a1b2c3d4e5f60718293a4b5",
            "name": "python",
            "domain": "python",
            "cluster": None,
        },
        {"id": "elm_f0e1d2c3b4a5968778695a4b", "name": "perl", "domain": "perl", "cluster": None},
    ],
    "metadata": {},
    "created_at": 1764000020.5,
}

Weight = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
TOP_K_MOST = 4096


class SeedSource(Body):
    """Where a seed is: in a folder, among the settings' bases, or made by a job."""

    path: Text | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Folder of a checkpoint in the Hugging Face safetensors format, below one of "
        "the service's roots.",
    )
    base: Reference | None = Field(
        None, description="Name of a base model in the service's settings."
    )
    job: Reference | None = Field(None, description="Id of a train_seed job that has succeeded.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(given is not None for given in (self.path, self.base, self.job)) != 1:
            raise ValueError("give one of path, base and job")
        return self


class EnsembleSettings(Body):
    """How the ELMs of a forest speak together; what is left out stays as it is."""

    model_config = example({"prior": {"python": 0.75, "perl": 0.25}, "top_k": 2})

    mode: PriorMode | None = Field(
        None,
        description="cached: the prior as it stands; updating: the prior goes on from text to "
        "text; uniform: every ELM weighs the same. At first cached.",
    )
    prior: dict[Name, Weight] | None = Field(
        None,
        min_length=1,
        description="What each ELM weighs before a text, by name; sums to one. What is not named "
        "weighs nothing. Null weighs all the same, as at first.",
    )
    history: History | None = Field(
        None,
        description="What the posterior reads: all tokens before (full), or the last one alone "
        "(previous). At first full.",
    )
    top_k: int | None = Field(
        None,
        ge=1,
        le=TOP_K_MOST,
        description="How many ELMs speak at most, no more than there are. Null: all, as at first.",
    )
    top_k_kind: TopKKind | None = Field(
        None,
        description="static: chosen once, by the prior, and only those run; token: chosen at "
        "each token, by the posterior. At first token.",
    )
    weighting: Weighting | None = Field(
        None,
        description="posterior: ELMs are weighed by how well each foretold the text so far; "
        "router: by the clusters of its words, and those of the router's clusters speak alone. "
        "At first posterior.",
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        for name in ("mode", "history", "top_k_kind", "weighting"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise ValueError(f"{name} must not be null")
        return self


class ForestCreate(Body):
    """A forest over a seed, empty or with ELMs that are there already."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "manuals", "seed": {"path": "/forests/manuals/seed"}},
                {
                    "name": "manuals",
                    "seed": {"base": "smollm2-135m"},
                    "elms": [
                        {"path": "/forests/manuals/python"},
                        {"seed": True, "domain": "everything"},
                    ],
                    "ensemble": {"top_k": 1},
                },
            ]
        }
    )

    name: Name
    seed: SeedSource
    elms: list[ElmCreate] = Field(
        default_factory=list, max_length=TOP_K_MOST, description="In order; all of them or none."
    )
    ensemble: EnsembleSettings = Field(default_factory=EnsembleSettings)
    metadata: Metadata = Field(default_factory=dict)


class ForestUpdate(Body):
    """What may be changed of a forest; what is left out stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"ensemble": {"prior": {"python": 0.75, "perl": 0.25}, "top_k": 2}}]
        }
    )

    ensemble: EnsembleSettings | None = None
    metadata: Metadata | None = Field(None, description="Takes the place of what was there.")


class Seed(Resource):
    """What every ELM of a forest comes from."""

    content_hash: str = Field(description="SHA-256 of its config, tokenizer and weights.")
    lineage: Lineage


class ForestRouter(Resource):
    """What the last cluster job over a forest has fitted."""

    job_id: str
    content_hash: str = Field(description="SHA-256 of the stored router.")
    clusters: list[str] = Field(description="Content hash of each cluster's corpus, in order.")


class Ensemble(Resource):
    """How the ELMs of a forest speak together."""

    mode: PriorMode
    prior: dict[str, float] | None = Field(description="By name of ELM; null: all the same.")
    history: History
    top_k: int | None = Field(description="How many ELMs speak at most; null: all.")
    top_k_kind: TopKKind
    weighting: Weighting = "posterior"


class ForestMember(Resource):
    """One ELM of a forest, in short."""

    id: str
    name: str
    domain: str
    cluster: int | None = Field(
        None, description="Of the forest's router: the one whose documents it was trained on."
    )


class Forest(Resource):
    """Expert language models of one architecture and vocabulary that come from one seed."""

    model_config = example(FOREST_EXAMPLE)

    id: str
    object: Literal["forest"] = "forest"
    name: str
    seed: Seed
    vocabulary_hash: str = Field(description="SHA-256 of what makes tokens of text.")
    architecture: dict[str, Any] = Field(
        description="Type of model, parameters, size of the vocabulary, layers and width."
    )
    ensemble: Ensemble
    router: ForestRouter | None = Field(description="Null before any cluster job.")
    elms: list[ForestMember] = Field(description="In order.")
    metadata: dict[str, str]
    created_at: float


class ForestPage(Page[Forest]):
    """Some forests, newest first."""

    model_config = page_example(FOREST_EXAMPLE)
