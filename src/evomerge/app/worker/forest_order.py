"""A claimed job over a forest, understood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from evomerge.app.db.models import Job
from evomerge.app.schemas.forest_inputs import ForestInput, ForestJobInputs
from evomerge.app.schemas.forest_specs import AnyForestSpec, ForestJobSpec
from evomerge.app.worker.errors import JobError

S = TypeVar("S", bound=AnyForestSpec)


@dataclass(frozen=True)
class ForestOrder(Generic[S]):
    """A claimed job, understood.

    Attributes:
        job_id, attempt: which job, and the how manieth attempt at it.
        spec, inputs: what was asked, and of what.
        progress: where an earlier attempt left it.
    """

    job_id: str
    attempt: int
    spec: S
    inputs: ForestJobInputs
    progress: Mapping[str, Any]

    @property
    def forest(self) -> ForestInput:
        """The forest that the job is over.

        Raises:
            JobError: it is over none.
        """
        if self.inputs.forest is None:
            raise JobError("spec_not_understood", "the job's inputs name no forest")
        return self.inputs.forest


def understood(job: Job) -> ForestOrder[AnyForestSpec]:
    """Read a job's row.

    Raises:
        JobError: the row was written by another version, and cannot be understood.
    """
    try:
        spec = ForestJobSpec.model_validate(job.spec)
        inputs = ForestJobInputs.model_validate(job.inputs)
    except ValidationError as error:
        raise JobError("spec_not_understood", f"spec or inputs of the job: {error}") from error
    return ForestOrder(job.id, job.attempts, spec.root, inputs, job.progress)
