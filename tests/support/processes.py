"""Real `evomerge` processes, followed by what they print."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

# Seconds that anything may take; nothing is measured by it.
PATIENCE = 120.0


@dataclass(frozen=True)
class Running:
    """A process whose output is read line by line."""

    process: Process

    async def printed(self, pattern: str) -> re.Match[str]:
        """The first line of standard output that matches."""
        return await _match(self.process.stdout, pattern)

    async def logged(self, pattern: str) -> re.Match[str]:
        """The first line of standard error that matches."""
        return await _match(self.process.stderr, pattern)

    async def all_ended(self) -> str:
        """Wait until no process holds standard error; the rest of what was logged."""
        assert self.process.stderr is not None
        rest = await asyncio.wait_for(self.process.stderr.read(), PATIENCE)
        await asyncio.wait_for(self.process.wait(), PATIENCE)
        return rest.decode()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@asynccontextmanager
async def evomerge(*arguments: str, environment: Mapping[str, str]) -> AsyncIterator[Running]:
    """Run the program; it is ended with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "evomerge.app.cli",
        *arguments,
        stdout=PIPE,
        stderr=PIPE,
        env=clean_environment() | environment | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
        # To the end of both pipes, children of its own included: nothing is left to the loop.
        await asyncio.wait_for(process.communicate(), PATIENCE)


def clean_environment() -> dict[str, str]:
    """This environment without the settings of the service."""
    return {name: value for name, value in os.environ.items() if not name.startswith("EVOMERGE_")}


async def _match(stream: asyncio.StreamReader | None, pattern: str) -> re.Match[str]:
    assert stream is not None
    seen = []
    while line := (await asyncio.wait_for(stream.readline(), PATIENCE)).decode():
        if match := re.search(pattern, line):
            return match
        seen.append(line)
    raise AssertionError(f"{pattern!r} was not printed, but:\n{''.join(seen)}")
