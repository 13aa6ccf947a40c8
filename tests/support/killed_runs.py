"""Training runs in processes that are killed by SIGKILL, from outside or at a chosen write."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from tests.support.corpora import Grove

from evomerge.connectors.local.training.run import Elm, Progress

# What changes files; each is a place to die at, before it happens.
_WRITES = frozenset({"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate"})
PATIENCE = 300.0

_processes = multiprocessing.get_context("forkserver")
# Torch is imported once, for all processes.
_processes.set_forkserver_preload(["tests.support.killed_runs"])


def run_killed_at_write(folder: Path, parent: Elm, name: str, write: int) -> bool:
    """Run a branch that dies just before its n-th write; whether it came so far."""
    process = _processes.Process(target=_dying, args=(folder, parent, name, write))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def run_killed_after_step(folder: Path, parent: Elm, name: str, step: int) -> None:
    """Run a branch and kill it from here once it has done so many steps."""
    here, there = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_telling, args=(folder, parent, name, there))
    process.start()
    there.close()
    done = -1
    while done < step:
        assert here.poll(PATIENCE)
        done = here.recv()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL


def _dying(folder: Path, parent: Elm, name: str, write: int) -> None:
    sys.addaudithook(_killer(str(folder), write))
    _branch(folder, parent, name, lambda progress: False)


def _telling(folder: Path, parent: Elm, name: str, pipe: Connection) -> None:
    def tell(progress: Progress) -> bool:
        if progress.phase == "training":
            pipe.send(progress.step)
        return False

    _branch(folder, parent, name, tell)


def _branch(folder: Path, parent: Elm, name: str, watch: Callable[[Progress], bool]) -> None:
    Grove(folder).branch([parent], "steppe", name=name, watch=watch, keep_optimizer=True)


def _killer(below: str, write: int) -> Callable[[str, tuple[object, ...]], None]:
    left = write

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event not in _WRITES or below not in str(arguments[0]):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook
