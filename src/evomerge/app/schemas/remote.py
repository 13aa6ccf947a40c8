"""Who merges, in the remote space."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from evomerge.app.schemas.api_experts import PriceFields
from evomerge.app.schemas.base import Body, Name, Reference, Text
from evomerge.app.schemas.sessions import QueryPlus

AdapterId = Annotated[Text, Field(min_length=1, max_length=255)]


class Remote(Body):
    """Who merges, in the remote space: the candidate travels to this provider."""

    provider: Literal["vllm", "lorax", "llama_cpp", "bmm"]
    base_urls: list[Text] = Field(
        min_length=1, max_length=64, description="The server; with vllm every replica of it."
    )
    model: Text | None = Field(
        None, max_length=255, description="Base model's name there; the preset's id with bmm."
    )
    credential: Reference | None = Field(None, description="Name of a credential.")
    adapters: list[AdapterId] | int | None = Field(
        None,
        description="Adapters that the server holds, by its ids, instead of pool or experts; a "
        "number stands for 0, 1, 2 and so on. With bmm the preset holds them: their number, or "
        "names of your own.",
    )
    adapter_dir: Text | None = Field(
        None,
        max_length=4096,
        description="With vllm and lorax: a folder that this service and the server both see "
        "under this path; candidates are written there.",
    )
    rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = Field(
        16,
        description="Largest rank that the server loads (vllm's --max-lora-rank); candidates "
        "above it are compressed by SVD.",
    )
    end_of_text: Text | None = Field(
        None,
        max_length=64,
        description="With lorax: how the base spells its end of text; that of a base which is "
        "here is known.",
    )
    query_plus: QueryPlus | None = Field(
        None, description="With bmm: sent with every session, but for its dataset."
    )
    held_out: list[Name] | None = Field(
        None,
        max_length=64,
        description="With bmm: the server's datasets that prove the winner, one for each of "
        "objective.datasets; without them nothing is proven.",
    )
    price: PriceFields = Field(
        default_factory=PriceFields, description="What the server's tokens cost."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if isinstance(self.adapters, int) and not 1 <= self.adapters <= 4096:
            raise ValueError(f"adapters={self.adapters} must lie in [1, 4096]")
        if isinstance(self.adapters, list):
            if not 1 <= len(self.adapters) <= 4096:
                raise ValueError(f"adapters: {len(self.adapters)} of them, must be 1 to 4096")
            for name in self.adapters:
                if self.adapters.count(name) > 1:
                    raise ValueError(f"adapters: {name!r} stands more than once")
        return self

    @property
    def adapter_ids(self) -> list[str]:
        """The server's ids, in the candidates' order; empty where the pool is ours."""
        if isinstance(self.adapters, int):
            return [str(number) for number in range(self.adapters)]
        return list(self.adapters or ())

    def query(self) -> dict[str, Any]:
        """`query_plus` as it is sent, whole, or empty where none was given."""
        if self.query_plus is None:
            return {}
        return self.query_plus.model_dump(mode="json", exclude={"dataset"}, exclude_none=True)
