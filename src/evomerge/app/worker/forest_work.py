"""What the runs of all jobs over forests begin with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from evomerge.app.schemas.forest_specs import AnyForestSpec
from evomerge.app.settings import Settings
from evomerge.app.worker.forest_order import ForestOrder
from evomerge.app.worker.ledger import Ledger
from evomerge.app.worker.order import Desk
from evomerge.app.worker.teller import Teller

S = TypeVar("S", bound=AnyForestSpec)


@dataclass(frozen=True)
class ForestWork(Generic[S]):
    """The work of one claimed job.

    Attributes:
        ledger: its books.
        order: what was asked, and of what.
        scratch: its folder until it ends.
        settings: of the deployment.
        versions: of what computes, for the result.
        stopping: set when the worker is to end.
    """

    ledger: Ledger
    order: ForestOrder[S]
    scratch: Path
    settings: Settings
    versions: Mapping[str, str]
    stopping: asyncio.Event

    async def begin(self, **progress: object) -> tuple[Desk, Teller]:
        """The books, for this event loop and for threads, once the first stage is told.

        Raises:
            StoppedError: a stop was asked for.
            LeaseLostError: another worker has the job.
        """
        desk = Desk(self.ledger, self.stopping)
        await desk.passes({"stage": "loading", **progress})
        return desk, Teller(desk, self.settings.beat_seconds)
