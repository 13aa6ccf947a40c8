"""Patience with a database that is away for a while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

logger = logging.getLogger(__name__)

T = TypeVar("T")
FIRST_DELAY = 0.1
LONGEST_DELAY = 2.0


def is_away(error: BaseException) -> bool:
    """Whether an error says that the database cannot be reached, rather than that we erred."""
    if isinstance(error, OperationalError | InterfaceError | PoolTimeoutError):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


async def retrying(work: Callable[[], Awaitable[T]], patience: float) -> T:
    """Do a whole unit of work, again and again while the database is away.

    A commit whose answer was lost may have happened all the same, so `work` must bear being
    done twice.

    Args:
        work: opens its own transaction.
        patience: seconds after which the error is let through.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database stayed away, or another error.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + patience
    delay = FIRST_DELAY
    while True:
        try:
            return await work()
        except (DBAPIError, PoolTimeoutError) as error:
            if not is_away(error) or clock() + delay > deadline:
                raise
            reason = str(error.__cause__ or error).strip().partition("\n")[0]
            logger.warning("the database is away (%s); trying again in %.1f s", reason, delay)
        await asyncio.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)
