"""A claimed job, understood, and what its worker works with."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import ValidationError

from evomerge.app.db.models import Job
from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.worker.errors import JobError, StoppedError
from evomerge.app.worker.ledger import Ledger


@dataclass(frozen=True)
class Order:
    """A claimed job, understood.

    Attributes:
        job_id, attempt: which job, and the how manieth attempt at it.
        spec, inputs: what was asked, and of what.
        progress: where an earlier attempt left it.
        gathered: what an earlier attempt had answers for when its search began, if it did.
    """

    job_id: str
    attempt: int
    spec: MergeJobSpec
    inputs: JobInputs
    progress: Mapping[str, Any]
    gathered: Mapping[str, Any] | None

    @classmethod
    def of(cls, job: Job) -> Order:
        """Read a job's row.

        Raises:
            JobError: the row was written by another version, and cannot be understood.
        """
        try:
            spec = MergeJobSpec.model_validate(job.spec)
            inputs = JobInputs.model_validate(job.inputs)
        except ValidationError as error:
            raise JobError("spec_not_understood", f"spec or inputs of the job: {error}") from error
        return cls(job.id, job.attempts, spec, inputs, job.progress, job.gathered)

    def without(self, names: Collection[str]) -> Self:
        """The same over the rest of its experts."""
        experts = [one for one in self.inputs.experts if one.name not in names]
        return replace(self, inputs=self.inputs.model_copy(update={"experts": experts}))


@dataclass(frozen=True)
class Desk:
    """What a worker works with.

    Attributes:
        ledger: the job's books.
        stopping: set when the worker is to end.
    """

    ledger: Ledger
    stopping: asyncio.Event

    async def passes(
        self, progress: Mapping[str, Any], gathered: Mapping[str, Any] | None = None
    ) -> None:
        """A point where the job may stop, and where a worker that lost it learns so.

        Raises:
            StoppedError: it is to stop; what was given is written.
            LeaseLostError: another worker has the job.
        """
        stop = await self.ledger.record(progress=progress, gathered=gathered)
        if stop or self.stopping.is_set():
            raise StoppedError
