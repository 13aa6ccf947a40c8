"""What a job is made of, fixed when it is created: ids, hashes and paths.

Written to `Job.inputs` by the API and read by the worker, which checks every hash again before
it starts. So a pool or dataset that is renamed or deleted later changes no job.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class _Fixed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExpertInput(_Fixed):
    """One expert, in the order of the job's candidates."""

    id: str
    name: str
    path: Path
    content_hash: str


class DatasetInput(_Fixed):
    """One dataset of the objective, in the order of the spec: a file in normal form."""

    id: str
    name: str
    path: Path
    content_hash: str
    rows: int
    weight: float = 1.0


class JobInputs(_Fixed):
    """Everything that a merge job reads. `base` is a name in the settings' `bases`."""

    base: str
    experts: list[ExpertInput] = Field(min_length=1)
    datasets: list[DatasetInput] = Field(min_length=1)
    pool_id: str | None = None
