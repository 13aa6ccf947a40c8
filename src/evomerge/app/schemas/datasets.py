"""Datasets, in and out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from evomerge.app.schemas.base import Body, Metadata, Name, Page, Resource, Text
from evomerge.evaluation import DatasetKind, Format

DATASET_EXAMPLE: dict[str, Any] = {
    "id": "ds_2b8e6c40f1d94c3fa5b6c7d8",
    "object": "dataset",
    "name": "films",
    "kind": "completion",
    "rows": 300,
    "content_hash": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "info": {"format": "jsonl", "bytes": 81234, "prompts": 298},
    "metadata": {},
    "created_at": 1764000002.75,
}


class DatasetFields(Body):
    """What may be said of a dataset, however its file comes."""

    name: Name | None = Field(None, description="By default the name of its file.")
    format: Format | None = Field(None, description="By default by the end of the file's name.")
    metadata: Metadata = Field(default_factory=dict)


class DatasetCreate(DatasetFields):
    """A dataset in a file that the service can read."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"path": "/datasets/films.jsonl", "name": "films"}]}
    )

    path: Text = Field(
        min_length=1,
        max_length=4096,
        description="A JSONL, JSON, CSV or Parquet file below one of the service's roots. Rows "
        "are {prompt, completion}, {messages}, {instruction, input, output}, "
        "{prompt, choices, answer} or {text}. Its rows are copied.",
    )


class Dataset(Resource):
    """Rows to search and to prove on."""

    model_config = ConfigDict(json_schema_extra={"examples": [DATASET_EXAMPLE]})

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    kind: DatasetKind
    rows: int
    content_hash: str = Field(description="SHA-256 of its rows in their normal form.")
    info: dict[str, Any] = Field(
        description="Format it came in, bytes in normal form, number of different prompts."
    )
    metadata: dict[str, str] = Field(validation_alias="meta")
    created_at: float


class DatasetPage(Page[Dataset]):
    """Some datasets, newest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"object": "list", "data": [DATASET_EXAMPLE], "has_more": False}]
        }
    )


class DatasetPreview(Resource):
    """The first rows of a dataset."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "dataset.preview",
                    "id": DATASET_EXAMPLE["id"],
                    "rows": [{"prompt": "A film by Tati?", "completion": "Playtime"}],
                    "total": 300,
                }
            ]
        }
    )

    object: Literal["dataset.preview"] = "dataset.preview"
    id: str
    rows: list[dict[str, Any]] = Field(description="In normal form; long texts are cut with …")
    total: int
