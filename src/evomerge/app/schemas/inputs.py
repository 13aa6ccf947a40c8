"""What a job is made of, fixed when it is created: ids, hashes and paths.

Written to `Job.inputs` by the API and read by the worker, which checks every hash again before
it starts. So a pool or dataset that is renamed or deleted later changes no job.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from evomerge.app.outputs import KnownExpert
from evomerge.app.schemas.api_experts import ApiDefinition
from evomerge.connectors.expert import Capabilities


class _Fixed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SeedInput(_Fixed):
    """What the ELMs of a forest come from; `forest` is the forest's name."""

    forest: str
    path: Path
    content_hash: str


class ExpertInput(_Fixed):
    """One expert, in the order of the job's candidates.

    `path` is where an adapter or an ELM is; `definition` is how an API is called, as the expert's
    row has it, and `capabilities` is what its last probe had found.
    """

    id: str
    name: str
    content_hash: str
    kind: Literal["lora", "api", "remote", "elm"] = "lora"
    path: Path | None = None
    definition: dict[str, Any] | None = None
    capabilities: dict[str, Any] | None = None

    @property
    def known(self) -> KnownExpert:
        """An API expert.

        Raises:
            ValueError: it is none.
        """
        if self.definition is None or self.capabilities is None:
            raise ValueError(f"expert {self.name!r} is not known by its API")
        return KnownExpert(
            self.name,
            ApiDefinition.model_validate(self.definition),
            Capabilities.from_json(self.capabilities),
        )


class DatasetInput(_Fixed):
    """One dataset of the objective, in the order of the spec: a file in normal form.

    Without a path its rows are a provider's own, and never seen here.
    """

    id: str
    name: str
    path: Path | None
    content_hash: str
    rows: int
    weight: float = 1.0


class JobInputs(_Fixed):
    """Everything that a merge job reads.

    `base` is a name in the settings' `bases`; None where no expert is an adapter. `base_hash`
    is of its files; jobs of earlier versions have none. `seed` is that of a forest, whose id then
    is `pool_id`.
    """

    base: str | None = None
    base_hash: str | None = None
    seed: SeedInput | None = None
    experts: list[ExpertInput] = Field(min_length=1)
    datasets: list[DatasetInput] = Field(min_length=1)
    pool_id: str | None = None

    @property
    def base_name(self) -> str:
        """The base of white-box experts.

        Raises:
            ValueError: they have none.
        """
        if self.base is None:
            raise ValueError("these experts are over no base model")
        return self.base

    @property
    def folders(self) -> list[Path]:
        """Where the weights of white-box experts are, in order.

        Raises:
            ValueError: an expert has no folder.
        """
        found = [expert.path for expert in self.experts if expert.path is not None]
        if len(found) != len(self.experts):
            raise ValueError("an expert has no folder here")
        return found
