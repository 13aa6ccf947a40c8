"""The one model that sessions are scored on: candidates take turns, and not too many wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from evomerge.app.errors import NotPossibleError, OverloadedError
from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.settings import Settings
from evomerge.app.worker.benches import LoraBenches, Recent
from evomerge.app.worker.inputs import Side, read_data
from evomerge.app.worker.workbench import Workbench

_READY = 4


@dataclass(frozen=True)
class Ready:
    """A session's pool, loaded, and the examples that it is scored on."""

    bench: Workbench
    side: Side


class Engine:
    """Holds the last base and pool in memory; one candidate runs at a time, in a thread.

    Args:
        settings: the service's.
    """

    def __init__(self, settings: Settings) -> None:
        self._benches = LoraBenches(settings)
        self._ready: Recent[str, Ready] = Recent(_READY)
        self._most = settings.shared_waiting
        self._waiting = 0
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, key: str, spec: MergeJobSpec, inputs: JobInputs) -> AsyncIterator[Ready]:
        """What a session is scored with, for this block alone.

        Raises:
            OverloadedError: too many wait.
            NotPossibleError: torch is not installed.
            JobError: an input has changed since the session began.
            ConnectorError, MergingError, EvaluationError: an input cannot be read.
        """
        if self._waiting >= self._most:
            raise OverloadedError(
                f"{self._waiting} candidates wait already; try again", code="queue_full"
            )
        self._waiting += 1
        try:
            async with self._turn:
                yield await asyncio.to_thread(self._get, key, spec, inputs)
        finally:
            self._waiting -= 1

    def _get(self, key: str, spec: MergeJobSpec, inputs: JobInputs) -> Ready:
        try:
            return self._ready.get(key, lambda: self._make(spec, inputs))
        except ModuleNotFoundError as error:
            raise NotPossibleError(
                f"sessions need {error.name}, which is not installed: "
                "pip install 'evo-merging[local]'"
            ) from error

    def _make(self, spec: MergeJobSpec, inputs: JobInputs) -> Ready:
        side = read_data(spec, inputs.datasets).search
        bench = self._benches.bench(spec, inputs)
        bench.check(spec.objective.metric, side.examples)
        return Ready(bench, side)
