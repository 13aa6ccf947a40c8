"""A worker process: settings in, jobs done until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import platform
from importlib.metadata import PackageNotFoundError, version

from evomerge import migrations
from evomerge.app import event_loop
from evomerge.app.connections import connectors
from evomerge.app.db.engine import Database, SyncDatabase
from evomerge.app.settings import Settings
from evomerge.app.worker.benches import LoraBenches
from evomerge.app.worker.checkpoint_benches import CheckpointBenches
from evomerge.app.worker.dispatch import Dispatch, warm_up
from evomerge.app.worker.loop import Rhythm, Worker, owner_name
from evomerge.app.worker.preparing import Preparer
from evomerge.version import __version__

logger = logging.getLogger(__name__)

_COMPUTING = (
    "numpy",
    "cma",
    "torch",
    "transformers",
    "safetensors",
    "tokenizers",
    "accelerate",
)


async def work(settings: Settings, stopping: asyncio.Event) -> None:
    """Run jobs until `stopping` is set; the job in hand is then given back to the queue.

    Raises:
        SchemaError: the database is not at this version's schema.
        sqlalchemy.exc.SQLAlchemyError: the database is away at the start.
    """
    migrations.require_head(settings.url)
    database, heartbeats = Database(settings.url), SyncDatabase(settings.url)
    computing = versions()
    async with connectors(settings) as ask:
        adapters, forests = LoraBenches(settings), CheckpointBenches(settings)
        adapters.warm_up()
        forests.warm_up()
        warm_up()
        event_loop.spare_the_collector()
        pools = Preparer(settings, database, ask, adapters, forests)
        dispatch = Dispatch(settings, pools.prepare, computing, stopping)
        worker = Worker(
            database, heartbeats, dispatch.run, rhythm(settings), stopping, owner_name()
        )
        logger.info("worker %s begins", worker.owner)
        try:
            await worker.work()
        finally:
            await database.dispose()
            heartbeats.dispose()
    logger.info("worker %s ends", worker.owner)


def rhythm(settings: Settings) -> Rhythm:
    """The lease's times out of the settings."""
    return Rhythm(
        lease=settings.lease_seconds,
        beat=settings.beat_seconds,
        poll=settings.poll_seconds,
        max_attempts=settings.max_attempts,
    )


def versions() -> dict[str, str]:
    """Versions of everything whose change could change a result."""
    found = {"evomerge": __version__, "python": platform.python_version()}
    for name in _COMPUTING:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
