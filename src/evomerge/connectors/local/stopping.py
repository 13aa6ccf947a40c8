"""Long computations on a thread of their own, which can be asked to stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
# Asked between two batches: whether to stop.
Stopped = Callable[[], bool]


def never() -> bool:
    """A question whether to stop, always answered no."""
    return False


async def in_thread(work: Callable[[Stopped], T]) -> T:
    """What `work` returns, computed on another thread; when cancelled, `work` is told to stop.

    Raises:
        CancelledError: once `work` has ended.
    """
    stop = threading.Event()
    running = asyncio.create_task(asyncio.to_thread(work, stop.is_set))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        # Wait for the batch that runs, so that nobody else finds the model still busy;
        # however it ends, being cancelled is what the caller hears of.
        await asyncio.gather(running, return_exceptions=True)
        raise
