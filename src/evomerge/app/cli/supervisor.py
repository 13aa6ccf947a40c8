"""Keeps the worker process that `evomerge serve` starts beside the API."""

from __future__ import annotations

import asyncio
import logging
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

logger = logging.getLogger(__name__)

# A worker that lived this long had started well: the next one starts at once.
HEALTHY_SECONDS = 10.0
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0


@dataclass(frozen=True)
class Supervisor:
    """Starts a command, starts it again when it ends, and ends it when asked to stop.

    The child's standard input is a pipe that is never written to: it closes when this process
    dies, however it dies, so that a worker never outlives its server.

    Attributes:
        command: the program and its arguments.
        environment: all of its environment.
        grace: seconds that it has to end by itself before it is killed.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    grace: float = 15.0

    async def keep(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set and the child has ended."""
        delay = FIRST_DELAY
        clock = asyncio.get_running_loop().time
        while not stop.is_set():
            started = clock()
            process = await self._start()
            logger.info("worker started, process %d", process.pid)
            if await _either(process, stop):
                await self._end(process)
                return
            lived = clock() - started
            delay = FIRST_DELAY if lived >= HEALTHY_SECONDS else min(2 * delay, LONGEST_DELAY)
            logger.warning(
                "worker %d ended with code %s after %.1f s; starting another in %.1f s",
                process.pid,
                process.returncode,
                lived,
                delay,
            )
            await _pause(stop, delay)

    async def _start(self) -> Process:
        return await asyncio.create_subprocess_exec(
            *self.command,
            env=dict(self.environment),
            stdin=PIPE,
            # Its own session: a Ctrl-C in the terminal reaches the server, which ends it in order.
            # (A group of its own would do, but uvloop knows no `process_group`.)
            start_new_session=True,
        )

    async def _end(self, process: Process) -> None:
        if process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self.grace)
        except TimeoutError:
            logger.warning("worker %d did not end in %.0f s: killed", process.pid, self.grace)
            process.kill()
            await process.wait()


async def _either(process: Process, stop: asyncio.Event) -> bool:
    """Wait for whichever comes first; whether it was `stop`."""
    ended = asyncio.ensure_future(process.wait())
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (ended, stopped):
            task.cancel()
    return stop.is_set()


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
