"""The event loop of the service and its workers: uvloop where it is installed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, on the fastest event loop that there is.

    uvloop comes with uvicorn's standard extra, but not on Windows.
    """
    with asyncio.Runner(loop_factory=factory()) as runner:
        return runner.run(work)


def factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop; None for Python's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def spare_the_collector() -> None:
    """Keep what is loaded by now out of the garbage collector's sight: it stays in any case.

    An answer with log-probabilities brings hundreds of small objects; to search all that a process
    has loaded each time that enough of them have come costs more than to make them.
    """
    gc.collect()
    gc.freeze()
