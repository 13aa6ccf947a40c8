"""How fast one server may be asked: at once, in requests a minute, in tokens a minute."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiolimiter import AsyncLimiter

from evomerge.connectors.wire import Timeouts


@dataclass(frozen=True)
class EndpointLimits:
    """What one origin is asked to bear.

    Attributes:
        concurrency: requests under way at once.
        requests_per_minute: None for no limit.
        tokens_per_minute: estimated input tokens and the most that may be generated.
        connect_seconds: longest wait for a connection.
        read_seconds: longest silence on it.
        deadline_seconds: longest time of one request from start to end, however lively.
        attempts: how often one request is sent at most.
    """

    concurrency: int = 16
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    deadline_seconds: float = 300.0
    attempts: int = 5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value!r} must be above 0")

    @property
    def timeouts(self) -> Timeouts:
        return Timeouts(
            connect=self.connect_seconds, read=self.read_seconds, write=self.read_seconds
        )


class Gate:
    """Lets requests to one origin through, as its limits allow."""

    def __init__(self, limits: EndpointLimits) -> None:
        self._places = asyncio.Semaphore(limits.concurrency)
        self._requests = _limiter(limits.requests_per_minute, burst=1.0)
        # A tenth of a minute's tokens may go at once, or large requests would wait for themselves.
        self._tokens = _limiter(limits.tokens_per_minute, burst=6.0)

    @asynccontextmanager
    async def passed(self, tokens: int) -> AsyncIterator[None]:
        """Hold a place while the block runs, once the rates allow a request of `tokens`."""
        async with self._places:
            if self._requests is not None:
                await self._requests.acquire()
            if self._tokens is not None:
                await _take(self._tokens, tokens)
            yield


def _limiter(per_minute: float | None, *, burst: float) -> AsyncLimiter | None:
    """Even over the minute: at most `burst` seconds' worth at once (and at least 1)."""
    if per_minute is None:
        return None
    most = max(1.0, per_minute * burst / 60.0)
    return AsyncLimiter(most, most * 60.0 / per_minute)


async def _take(limiter: AsyncLimiter, amount: float) -> None:
    """Take more than fits at once, piece by piece."""
    while amount > 0:
        piece = min(amount, limiter.max_rate)
        await limiter.acquire(piece)
        amount -= piece
