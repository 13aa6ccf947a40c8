"""One job over a forest from its claim to its end, whatever it does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.app.schemas.forest_specs import (
    AnyForestSpec,
    AverageSpec,
    BranchTrainSpec,
    ClusterSpec,
    TrainSeedSpec,
)
from evomerge.app.settings import Settings
from evomerge.app.worker import scratch
from evomerge.app.worker.average_run import AverageRun
from evomerge.app.worker.cluster_run import ClusterRun
from evomerge.app.worker.errors import StoppedError
from evomerge.app.worker.evaluate_run import EvaluateRun
from evomerge.app.worker.forest_order import ForestOrder, understood
from evomerge.app.worker.ledger import Ledger
from evomerge.app.worker.train_run import TrainRun


@dataclass(frozen=True)
class ForestRun:
    """The run of one claimed job.

    What it keeps on disk meanwhile goes when it succeeds or is cancelled; a pause, a failure and
    a worker's death leave it to whoever takes the job up again.

    Attributes:
        ledger: its books.
        settings: of the deployment.
        versions: of what computes, for the result.
        stopping: set when the worker is to end.
    """

    ledger: Ledger
    settings: Settings
    versions: Mapping[str, str]
    stopping: asyncio.Event

    async def run(self) -> None:
        """Do what was asked, and end the job well; or give it back where it is to stop.

        Raises:
            LeaseLostError: another worker has the job.
            JobError, ConnectorError, MergingError, ForestError, EvaluationError, OSError: the job
                cannot succeed.
        """
        order = understood(await self.ledger.open())
        data_dir, lease = self.settings.data_dir, self.ledger.lease
        self.ledger.note(f"Attempt {order.attempt} begins.", attempt=order.attempt)
        home = await asyncio.to_thread(scratch.take, data_dir, lease)
        try:
            await self._work(order, home).run()
        except StoppedError:
            if await self.ledger.release() != "cancelled":
                return
        await asyncio.to_thread(scratch.remove, data_dir, lease.job_id)

    def _work(
        self, order: ForestOrder[AnyForestSpec], home: Path
    ) -> TrainRun | ClusterRun | AverageRun | EvaluateRun:
        parts: Any = (self.ledger, order, home, self.settings, self.versions, self.stopping)
        spec = order.spec
        if isinstance(spec, TrainSeedSpec | BranchTrainSpec):
            return TrainRun(*parts)
        if isinstance(spec, ClusterSpec):
            return ClusterRun(*parts)
        if isinstance(spec, AverageSpec):
            return AverageRun(*parts)
        return EvaluateRun(*parts)
