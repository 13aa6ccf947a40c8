"""Worker processes to kill: what `evomerge worker` runs, forked from a process that has torch.

Torch is imported once for all of them; the tests of the command line start the program itself.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Mapping

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.support.worker_processes", "evomerge.app.worker.benches"])


class WorkerProcess:
    """One `evomerge worker`, in the shape of asyncio's own processes."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = _processes.Process(target=_work, args=(dict(environment),))
        self._process.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal's number for one that was killed."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    async def wait(self) -> int:
        """Wait for its end."""
        await asyncio.to_thread(self._process.join)
        assert self.returncode is not None
        return self.returncode


async def end_all(processes: list[WorkerProcess]) -> None:
    """Kill those that still run: none outlives its test."""
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _work(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    from evomerge.app.cli import app

    app(["worker"])
