"""Keeps a lease alive while its job computes."""

from __future__ import annotations

import asyncio
import logging
import threading
from types import TracebackType
from typing import Self

from sqlalchemy.exc import DBAPIError

from evomerge.app.db.engine import SyncDatabase
from evomerge.app.db.repositories.queue import Lease, beat
from evomerge.app.db.retry import is_away

logger = logging.getLogger(__name__)


class Heartbeat:
    """Prolongs a lease every `beat_seconds` while the `async with` block runs.

    It lives in a thread with a connection of its own, because a forward may hold the event loop
    for longer than a lease. While the database is away it keeps trying: nobody else can claim
    the job meanwhile. When the lease is lost it stops; the worker learns of it at its next
    write, which is refused.
    """

    def __init__(
        self, database: SyncDatabase, lease: Lease, lease_seconds: float, beat_seconds: float
    ) -> None:
        self._database = database
        self._lease = lease
        self._statement = beat(lease, lease_seconds)
        self._beat_seconds = beat_seconds
        self._ending = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"heartbeat-{lease.job_id}", daemon=True
        )
        self.lost = False

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ending.set()
        # Not joined here and now: its last beat may wait for a lock that this event loop holds.
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while not self.lost and not self._ending.wait(self._beat_seconds):
            try:
                self.lost = not self._beat()
            except DBAPIError as error:
                if not is_away(error):
                    raise
                logger.warning("job %s: a heartbeat was missed", self._lease.job_id)

    def _beat(self) -> bool:
        with self._database.write() as connection:
            return connection.execute(self._statement).rowcount == 1
