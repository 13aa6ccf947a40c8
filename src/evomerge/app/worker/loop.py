"""A worker: claim a job, run it, release it, again and again."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from evomerge.app.db.engine import Database, SyncDatabase
from evomerge.app.db.errors import LeaseLostError
from evomerge.app.db.repositories import queue
from evomerge.app.db.repositories.queue import Lease
from evomerge.app.db.retry import is_away
from evomerge.app.worker.errors import JobError, StoppedError
from evomerge.app.worker.heartbeat import Heartbeat
from evomerge.app.worker.ledger import Ledger
from evomerge.connectors.base import ConnectorError
from evomerge.connectors.local.training.errors import TrainingError
from evomerge.evaluation import EvaluationError
from evomerge.evaluation.corpus import CorpusError
from evomerge.merging.errors import MergingError
from evomerge.merging.forest.errors import ForestError
from evomerge.optimizers import OptimizerError

logger = logging.getLogger(__name__)

# Seconds that a job in hand waits for a database that is away before its worker lets it go.
PATIENCE_SECONDS = 60.0
# The first that an error is one of.
_CODES: dict[type[Exception], str] = {
    TrainingError: "training_failed",
    CorpusError: "invalid_corpus",
    ForestError: "ensemble_failed",
    OptimizerError: "search_failed",
    EvaluationError: "evaluation_failed",
    ConnectorError: "model_failed",
    MergingError: "merge_failed",
}


@dataclass(frozen=True)
class Rhythm:
    """Seconds of the lease, and how often a job may be tried; see `Settings`."""

    lease: float = 5.0
    beat: float = 1.0
    poll: float = 0.5
    max_attempts: int = 5
    patience: float = PATIENCE_SECONDS


Runner = Callable[[Ledger], Awaitable[None]]


@dataclass(frozen=True)
class Worker:
    """Runs jobs one at a time until `stopping` is set.

    Several workers may share a database: each job is in one's hands at a time.

    Attributes:
        runner: runs the job of a ledger to its success.
        owner: a name for the lease, for people.
    """

    database: Database
    heartbeats: SyncDatabase
    runner: Runner
    rhythm: Rhythm
    stopping: asyncio.Event
    owner: str

    async def work(self) -> None:
        """Claim and run until `stopping` is set. Outlives an absence of the database."""
        while not self.stopping.is_set():
            lease = await self._claim()
            if lease is None:
                await self._wait(self.rhythm.poll)
            else:
                await self._run(lease)

    async def _claim(self) -> Lease | None:
        try:
            async with self.database.write() as session:
                return await queue.claim(
                    session, self.owner, self.rhythm.lease, self.rhythm.max_attempts
                )
        except SQLAlchemyError as error:
            if not is_away(error):
                raise
            logger.warning("no job can be claimed, the database is away: %s", _first_line(error))
            await self._wait(2 * self.rhythm.poll)
            return None

    async def _run(self, lease: Lease) -> None:
        logger.info("job %s: claimed, token %d", lease.job_id, lease.token)
        ledger = Ledger(self.database, lease, self.rhythm.patience)
        beats = Heartbeat(self.heartbeats, lease, self.rhythm.lease, self.rhythm.beat)
        try:
            async with beats:
                await self._run_to_an_end(ledger)
        except LeaseLostError as error:
            logger.warning("%s", error)
        except SQLAlchemyError as error:
            if not is_away(error):
                raise
            logger.error("job %s: let go, the database is away", lease.job_id)
        else:
            logger.info("job %s: out of hand", lease.job_id)

    async def _run_to_an_end(self, ledger: Ledger) -> None:
        try:
            await self.runner(ledger)
        except StoppedError:
            await ledger.release()
        except JobError as error:
            await ledger.fail(error.code, str(error), error.param)
        except OSError as error:
            await ledger.fail(*_of_the_disk(error))
        except tuple(_CODES) as error:
            code = next(name for kind, name in _CODES.items() if isinstance(error, kind))
            await ledger.fail(code, str(error))
        except (LeaseLostError, SQLAlchemyError):
            raise
        except Exception as error:
            # A fault of ours: the job says so, and the process ends with the traceback.
            await ledger.fail("internal_error", f"{type(error).__name__}: {error}")
            raise

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)


def owner_name() -> str:
    """This process, for people who look at a lease."""
    return f"{socket.gethostname()[:80]}:{os.getpid()}:{secrets.token_hex(4)}"


def _of_the_disk(error: OSError) -> tuple[str, str]:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            "disk_full",
            f"the disk is full: {error}. Nothing that was scored is lost: free some space and "
            "resume the job.",
        )
    return "input_output_error", f"{type(error).__name__}: {error}"


def _first_line(error: SQLAlchemyError) -> str:
    return str(error).partition("\n")[0]
