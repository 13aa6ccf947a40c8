"""The supervisor, over real processes that announce themselves through a pipe."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from evomerge.app.cli import supervisor
from evomerge.app.cli.supervisor import Supervisor

PATIENCE = 20.0

# Announces its process id in a named pipe, then does as its argument says.
CHILD = """
import os, signal, sys
fifo, mode = sys.argv[1:]
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(fifo, "w") as pipe:
    pipe.write(f"{os.getpid()}\\n")
if mode == "until-orphaned":
    sys.stdin.read()
else:
    signal.pause()
"""


@asynccontextmanager
async def announcements(tmp_path: Path) -> AsyncIterator[tuple[Path, asyncio.StreamReader]]:
    """A named pipe, and a reader of the lines written into it."""
    fifo = tmp_path / "pids"
    os.mkfifo(fifo)
    # Open for writing too, so that the reader sees no end when a child closes its side.
    both = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(both, "rb", buffering=0)
    )
    try:
        yield fifo, reader
    finally:
        transport.close()


async def next_pid(reader: asyncio.StreamReader) -> int:
    return int(await asyncio.wait_for(reader.readline(), PATIENCE))


def supervised(fifo: Path, mode: str = "obedient", grace: float = PATIENCE) -> Supervisor:
    return Supervisor([sys.executable, "-c", CHILD, str(fifo), mode], os.environ, grace)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_child_is_ended_with_the_supervisor(tmp_path: Path) -> None:
    async with announcements(tmp_path) as (fifo, reader):
        stop = asyncio.Event()
        keeping = asyncio.create_task(supervised(fifo).keep(stop))
        pid = await next_pid(reader)
        stop.set()
        await asyncio.wait_for(keeping, PATIENCE)
        assert not alive(pid)


async def test_a_child_that_dies_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 0.0)
    async with announcements(tmp_path) as (fifo, reader):
        stop = asyncio.Event()
        keeping = asyncio.create_task(supervised(fifo).keep(stop))
        first = await next_pid(reader)
        os.kill(first, signal.SIGKILL)
        second = await next_pid(reader)
        assert second != first
        stop.set()
        await asyncio.wait_for(keeping, PATIENCE)
        assert not alive(second)


async def test_a_child_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    async with announcements(tmp_path) as (fifo, reader):
        stop = asyncio.Event()
        keeping = asyncio.create_task(supervised(fifo, "stubborn", grace=0.1).keep(stop))
        pid = await next_pid(reader)
        stop.set()
        await asyncio.wait_for(keeping, PATIENCE)
        assert not alive(pid)


async def test_a_stop_ends_the_wait_before_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 3600.0)
    monkeypatch.setattr(supervisor, "LONGEST_DELAY", 3600.0)
    async with announcements(tmp_path) as (fifo, reader):
        stop = asyncio.Event()
        keeping = asyncio.create_task(supervised(fifo).keep(stop))
        os.kill(await next_pid(reader), signal.SIGKILL)
        stop.set()
        await asyncio.wait_for(keeping, PATIENCE)
