"""What a worker does with a claimed job, by its kind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from evomerge.app.db.repositories.jobs import FOREST_KINDS, MERGE
from evomerge.app.settings import Settings
from evomerge.app.worker.errors import JobError
from evomerge.app.worker.forest_run import ForestRun
from evomerge.app.worker.ledger import Ledger
from evomerge.app.worker.run import MergeRun
from evomerge.app.worker.workbench import Prepare


@dataclass(frozen=True)
class Dispatch:
    """Runs jobs of every kind.

    Attributes:
        settings: of the deployment.
        prepare: makes the pools of merge jobs ready.
        versions: of what computes, for results.
        stopping: set when the worker is to end.
    """

    settings: Settings
    prepare: Prepare
    versions: Mapping[str, str]
    stopping: asyncio.Event

    async def run(self, ledger: Ledger) -> None:
        """Run the job of a ledger to its end.

        Raises:
            StoppedError: a stop was asked for; the job is to be released.
            LeaseLostError: another worker has the job.
            JobError: the job is of a kind that this version does not know, or cannot succeed.
            Others: see `MergeRun.run` and `ForestRun.run`.
        """
        kind = (await ledger.open()).kind
        if kind == MERGE:
            await MergeRun(
                ledger, self.prepare, self.settings.data_dir, self.versions, self.stopping
            ).run()
        elif kind in FOREST_KINDS:
            await ForestRun(ledger, self.settings, self.versions, self.stopping).run()
        else:
            raise JobError("kind_not_understood", f"jobs of kind {kind!r} are of another version")


def warm_up() -> None:
    """Import what the first training will need, where it is installed; see `LoraBenches`."""
    with suppress(ModuleNotFoundError):
        import evomerge.connectors.local.training.run  # noqa: F401
