"""One merge job from its claim to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evomerge.app.schemas.result import ArtifactResult, JobResult
from evomerge.app.worker import artifacts, model_card, ranks, report
from evomerge.app.worker.budget import Allowance
from evomerge.app.worker.inputs import metrics, read_data
from evomerge.app.worker.ledger import Ledger
from evomerge.app.worker.method import build_optimizer
from evomerge.app.worker.order import Desk, Order
from evomerge.app.worker.progress import Progress
from evomerge.app.worker.proof import Proof, Trial, contenders
from evomerge.app.worker.search import Found, Search, Target
from evomerge.app.worker.spending import BudgetReachedError
from evomerge.app.worker.workbench import Prepare, Prepared, StoredModel


@dataclass(frozen=True)
class MergeRun:
    """The run of one claimed job.

    Attributes:
        ledger: its books.
        prepare: makes its pool ready.
        data_dir: below which its artifacts go.
        versions: of what computes, for the result.
        stopping: set when the worker is to end.
    """

    ledger: Ledger
    prepare: Prepare
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
        ready = await self._prepare(order)
        order = order.without(ready.left_out)
        found, planned = await self._search(order, ready, progress)
        stored = await asyncio.to_thread(ready.bench.merge, found.best.candidate)
        outcome = await self._prove(
            order, ready, stored, found, progress.snapshot(planned, "held_out")
        )
        await self.desk.passes(progress.snapshot(planned, "storing"))
        finished = await asyncio.to_thread(self._store, order, stored, outcome)
        if said := ranks.remark(stored.rank):
            self.ledger.note(said, level="warn", rank=stored.rank)
        await self.ledger.succeed(
            finished.model_dump(mode="json"),
            progress.snapshot(found.evaluations, "done"),
            f"The job succeeded: search loss {found.best.loss:.6g}.",
            order.spec.serve_as,
        )

    @property
    def desk(self) -> Desk:
        """What the parts of the run work with."""
        return Desk(self.ledger, self.stopping)

    async def _prepare(self, order: Order) -> Prepared:
        """Load everything, and refuse what cannot work before anything is searched."""
        self.ledger.note(f"Attempt {order.attempt} begins.", attempt=order.attempt)
        await self.desk.passes({**order.progress, "stage": "loading"})
        data = await asyncio.to_thread(read_data, order.spec, order.inputs.datasets)
        ready = await self.prepare(order, data, self.desk)
        bench, data = ready.bench, ready.data
        await asyncio.to_thread(bench.check, order.spec.objective.metric, data.search.examples)
        for metric in metrics(order.spec):
            await asyncio.to_thread(bench.check, metric, data.held_out.examples)
        return ready

    async def _search(self, order: Order, ready: Prepared, progress: Progress) -> tuple[Found, int]:
        bench, side = ready.bench, ready.data.search
        names = [expert.name for expert in order.inputs.experts]
        optimizer = build_optimizer(order.spec, len(names), bench.starts(), names)
        evaluator = bench.evaluator(order.spec.objective.metric)
        search = Search(
            optimizer=optimizer,
            target=Target(evaluator, side.examples, side.objective, ready.free),
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
        ready: Prepared,
        stored: StoredModel,
        found: Found,
        progress: Mapping[str, Any],
    ) -> JobResult:
        held_out = ready.data.held_out
        has_base = ready.bench.base_hash is not None
        trial = Trial(
            workbench=ready.bench,
            stored=stored,
            contenders=contenders(found.best.candidate, found.best_expert, has_base=has_base),
            baselines=ready.baselines,
            examples=held_out.examples,
            objective=held_out.objective,
            ledger=self.ledger,
            progress=progress,
            stopping=self.stopping,
        )
        proof, unproven = await self._proof(order, trial)
        return report.result(
            order.spec,
            order.inputs,
            found,
            proof,
            ready,
            unproven=unproven,
            seconds=self.ledger.seconds,
            versions=self.versions,
        )

    async def _proof(self, order: Order, trial: Trial) -> tuple[Proof, str | None]:
        """What held-out data says, or why there is nothing to be said."""
        seed = order.spec.seed
        if not trial.examples:
            return await trial.run([], seed), report.UNSEEN
        try:
            return await trial.run(metrics(order.spec), seed), None
        except BudgetReachedError as reached:
            # Repeated requests have used up what was held back: the winner is still the winner.
            reason = f"The budget of {reached.budget} was reached before the proof was whole."
            self.ledger.note(reason, level="warn", budget=reached.budget)
            return await trial.run([], seed), reason

    def _store(self, order: Order, stored: StoredModel, outcome: JobResult) -> JobResult:
        files = artifacts.store(
            artifacts.folder_of(self.data_dir, order.job_id),
            stored,
            report.manifest(order.job_id, order.spec, order.inputs, outcome),
            model_card.model_card(order.spec, order.inputs, outcome, ranks.remark(stored.rank)),
        )
        listed = [ArtifactResult(**asdict(file)) for file in files]
        return outcome.model_copy(update={"artifacts": listed})
