"""When to ask again, and how long to wait before: jitter, and what the server says."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
)

from evomerge.connectors.errors import AskError

T = TypeVar("T")


class AgainError(Exception):
    """This attempt failed in a way that another may not.

    Attributes:
        error: what to raise after the last attempt.
        after: seconds that the server asks to wait, if it says.
    """

    def __init__(self, error: AskError, after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after = after


@dataclass(frozen=True)
class Retries:
    """How long to wait between attempts.

    Attributes:
        first: seconds before the second attempt at most; doubled for each further one.
        longest: no wait is longer, whatever the server says.
        sleep, now, rng: effects; `now` gives seconds since the epoch.
    """

    first: float = 1.0
    longest: float = 60.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    now: Callable[[], float] = time.time
    rng: random.Random = field(default_factory=random.Random, repr=False)

    async def run(self, attempts: int, attempt: Callable[[], Awaitable[T]]) -> T:
        """`attempt` until it succeeds, fails for good, or has been made `attempts` times.

        Raises:
            AskError: what the last attempt failed with.
        """
        try:
            return await attempt()
        except AgainError as again:
            failed = [again]

        async def next_attempt() -> T:
            if failed:
                raise failed.pop()
            return await attempt()

        # Only for what has failed once, which is rare; and one object a run, since tenacity keeps
        # its state by thread, and tasks share a thread.
        retrying = AsyncRetrying(
            stop=stop_after_attempt(attempts),
            wait=self._wait,
            retry=retry_if_exception_type(AgainError),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return await retrying(next_attempt)
        except AgainError as again:
            raise again.error from None

    def after(self, headers: Mapping[str, str]) -> float | None:
        """Seconds that an answer asks to wait (RFC 9110, section 10.2.3), None if it does not."""
        said = headers.get("retry-after", "").strip()
        if not said:
            return None
        try:
            return max(0.0, float(said))
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(said).timestamp() - self.now())
        except ValueError:
            return None

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.after if isinstance(error, AgainError) else None
        most = min(self.longest, self.first * 2.0 ** (state.attempt_number - 1))
        jitter = self.rng.uniform(0.5, 1.0) * most
        if asked is None:
            return jitter
        # Not before the time asked for, and not all in the same instant.
        return min(self.longest, asked + self.rng.uniform(0.0, 0.1) * most)
