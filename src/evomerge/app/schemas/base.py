"""What every body has in common."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must hold no NUL character")
    return text


Text = Annotated[str, AfterValidator(_storable)]

Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:\-]*$",
        description="A name: letters, digits, dot, underscore, colon and dash.",
    ),
]

Reference = Annotated[
    Text, Field(min_length=1, max_length=128, description="An id, or a name, of what exists.")
]

Metadata = Annotated[
    dict[Annotated[Text, Field(max_length=64)], Annotated[Text, Field(max_length=512)]],
    Field(max_length=16, description="Up to 16 pairs of your own."),
]


class Body(BaseModel):
    """A request body: unknown fields are errors, so that a typing slip is never ignored."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=False)


class Resource(BaseModel):
    """A response body."""

    model_config = ConfigDict(from_attributes=True)


T = TypeVar("T")


class Page(Resource, Generic[T]):
    """A part of a list."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool = Field(description="Whether there is more behind the last one of these.")


class Deleted(Resource):
    """What is gone."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"id": "ex_5f0c2a9d81b34e77a6c0d1e2", "object": "expert", "deleted": True}]
        }
    )

    id: str
    object: str
    deleted: Literal[True] = True
