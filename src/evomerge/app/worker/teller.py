"""How a thread that computes tells of its progress, and learns that it is to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from evomerge.app.worker.errors import StoppedError
from evomerge.app.worker.ledger import Note
from evomerge.app.worker.order import Desk


class Teller:
    """Writes to a job's books from a thread, while the event loop that they belong to goes on.

    Made on that event loop. Each method may raise `LeaseLostError`, and errors of the database.

    Args:
        desk: the books.
        every: seconds between two writes, so that fast steps do not wait for the database.
        clock: seconds.
    """

    def __init__(
        self, desk: Desk, every: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._desk = desk
        self._every = every
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._told: float | None = None
        self.stopping = False

    def passes(self, progress: Mapping[str, Any]) -> None:
        """Note where the work is, if it is time. Raises StoppedError: it is to stop."""
        if self.tell(progress):
            raise StoppedError

    @property
    def seconds(self) -> float:
        """Running time of the job so far, over all attempts."""
        return self._desk.ledger.seconds

    def tell(self, progress: Mapping[str, Any], metrics: Note | None = None) -> bool:
        """Note where the work is, if it is time or there are metrics; whether it is to stop."""
        now = self._clock()
        if metrics is None and self._told is not None and now - self._told < self._every:
            return self.stopping
        asked = asyncio.run_coroutine_threadsafe(
            self._desk.ledger.record(progress=progress, metrics=metrics), self._loop
        ).result()
        self._told = self._clock()
        self.stopping = asked is not None or self._desk.stopping.is_set()
        return self.stopping
