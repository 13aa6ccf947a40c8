"""What every body has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:\-]*$",
        description="A name: letters, digits, dot, underscore, colon and dash.",
    ),
]

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16, description="Up to 16 pairs of your own."),
]


class Body(BaseModel):
    """A request body: unknown fields are errors, so that a typing slip is never ignored."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=False)


class Resource(BaseModel):
    """A response body."""

    model_config = ConfigDict(from_attributes=True)
