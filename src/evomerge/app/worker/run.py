"""One merge job from its claim to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evomerge.app.db.models import Job
from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.result import ArtifactResult, JobResult
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.worker import artifacts, report
from evomerge.app.worker.budget import Allowance
from evomerge.app.worker.errors import JobError, StoppedError
from evomerge.app.worker.inputs import Data, metrics, read_data
from evomerge.app.worker.ledger import Ledger
from evomerge.app.worker.method import build_optimizer
from evomerge.app.worker.progress import Progress
from evomerge.app.worker.proof import Trial, contenders
from evomerge.app.worker.search import Found, Search, Target
from evomerge.app.worker.workbench import StoredModel, Workbench

# Loads a base and a pool; slow, so it runs in a thread.
BenchMaker = Callable[[MergeJobSpec, JobInputs], Workbench]


@dataclass(frozen=True)
class Order:
    """A claimed job, understood.

    Attributes:
        job_id, attempt: which job, and the how manieth attempt at it.
        spec, inputs: what was asked, and of what.
        progress: where an earlier attempt left it.
    """

    job_id: str
    attempt: int
    spec: MergeJobSpec
    inputs: JobInputs
    progress: Mapping[str, Any]

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
        return cls(job.id, job.attempts, spec, inputs, job.progress)


@dataclass(frozen=True)
class MergeRun:
    """The run of one claimed job.

    Attributes:
        ledger: its books.
        make_bench: makes its pool ready.
        data_dir: below which its artifacts go.
        versions: of what computes, for the result.
        stopping: set when the worker is to end.
    """

    ledger: Ledger
    make_bench: BenchMaker
    data_dir: Path
    versions: Mapping[str, str]
    stopping: asyncio.Event

    async def run(self) -> None:
        """Search, prove, store, and end the job well.

        Raises:
            StoppedError: a stop was asked for; the job is to be released.
            LeaseLostError: another worker has the job.
            JobError, OptimizerError, EvaluationError, ConnectorError, OSError: the job cannot
                succeed.
        """
        order = Order.of(await self.ledger.open())
        progress = Progress()
        bench, data = await self._prepare(order)
        found, planned = await self._search(order, bench, data, progress)
        stored = await asyncio.to_thread(bench.merge, found.best.candidate)
        outcome = await self._prove(
            order, bench, stored, data, found, progress.snapshot(planned, "held_out")
        )
        await self._pass(progress.snapshot(planned, "storing"))
        finished = await asyncio.to_thread(self._store, order, stored, outcome)
        await self.ledger.succeed(
            finished.model_dump(mode="json"),
            progress.snapshot(found.evaluations, "done"),
            f"The job succeeded: search loss {found.best.loss:.6g}.",
            order.spec.serve_as,
        )

    async def _prepare(self, order: Order) -> tuple[Workbench, Data]:
        """Load everything, and refuse what cannot work before anything is spent."""
        self.ledger.note(f"Attempt {order.attempt} begins.", attempt=order.attempt)
        await self._pass({**order.progress, "stage": "loading"})
        data = await asyncio.to_thread(read_data, order.spec, order.inputs.datasets)
        bench = await asyncio.to_thread(self.make_bench, order.spec, order.inputs)
        await asyncio.to_thread(bench.check, order.spec.objective.metric, data.search.examples)
        for metric in metrics(order.spec):
            await asyncio.to_thread(bench.check, metric, data.held_out.examples)
        return bench, data

    async def _search(
        self, order: Order, bench: Workbench, data: Data, progress: Progress
    ) -> tuple[Found, int]:
        optimizer = build_optimizer(order.spec, len(order.inputs.experts))
        evaluator = bench.evaluator(order.spec.objective.metric)
        search = Search(
            optimizer=optimizer,
            target=Target(evaluator, data.search.examples, data.search.objective),
            allowance=Allowance(order.spec.budget, optimizer.baseline_evaluations),
            ledger=self.ledger,
            progress=progress,
            stopping=self.stopping,
            closed=bool(await self.ledger.proof_log()),
        )
        return await search.run(), optimizer.planned_evaluations

    async def _prove(
        self,
        order: Order,
        bench: Workbench,
        stored: StoredModel,
        data: Data,
        found: Found,
        progress: Mapping[str, Any],
    ) -> JobResult:
        trial = Trial(
            workbench=bench,
            stored=stored,
            contenders=contenders(found.best.candidate, found.best_expert),
            examples=data.held_out.examples,
            objective=data.held_out.objective,
            ledger=self.ledger,
            progress=progress,
            stopping=self.stopping,
        )
        proof = await trial.run(metrics(order.spec), order.spec.seed)
        return report.result(
            order.spec,
            order.inputs,
            found,
            proof,
            search_examples=len(data.search.examples),
            held_out_examples=len(data.held_out.examples),
            seconds=self.ledger.seconds,
            versions=self.versions,
            base_hash=bench.base_hash,
        )

    async def _pass(self, progress: Mapping[str, Any]) -> None:
        """A point where the job may stop, and where a worker that lost it learns so."""
        if await self.ledger.record(progress=progress) or self.stopping.is_set():
            raise StoppedError

    def _store(self, order: Order, stored: StoredModel, outcome: JobResult) -> JobResult:
        files = artifacts.store(
            artifacts.folder_of(self.data_dir, order.job_id),
            stored,
            report.manifest(order.job_id, order.spec, order.inputs, outcome),
            report.model_card(order.spec, order.inputs, outcome),
        )
        listed = [ArtifactResult(**asdict(file)) for file in files]
        return outcome.model_copy(update={"artifacts": listed})
