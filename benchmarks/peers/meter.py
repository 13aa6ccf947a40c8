"""What a process and all that it started took: memory at most, bytes written, disk at most.

Memory is the proportional set size summed over the tree (a page that several share counts once),
written are the bytes sent to storage, files deleted again included. Both are looked at five times
a second: a shorter peak, or what a process wrote in its last fifth of a second, can be missed.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import psutil

_EVERY = 0.2


@dataclass(frozen=True)
class Taken:
    """In bytes.

    Attributes:
        memory: of all processes together, at most.
        written: to storage, by all of them.
        disk: what the working folder held, at most.
    """

    memory: int
    written: int
    disk: int


class Meter:
    """Watches a process from a thread until the block ends."""

    def __init__(self, pid: int, folder: Path, every: float = _EVERY) -> None:
        self._root = psutil.Process(pid)
        self._folder = folder
        self._every = every
        self._memory = 0
        self._disk = 0
        self._written: dict[tuple[int, float], int] = {}
        self._seen: dict[tuple[int, float], psutil.Process] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="meter", daemon=True)

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def taken(self) -> Taken:
        """Up to now."""
        return Taken(self._memory, sum(self._written.values()), self._disk)

    def left(self) -> list[psutil.Process]:
        """Processes of the tree that still run."""
        return [process for process in self._seen.values() if process.is_running()]

    def _watch(self) -> None:
        while True:
            self._look()
            if self._ended.wait(self._every):
                self._disk = max(self._disk, _size(self._folder))
                return

    def _look(self) -> None:
        memory = 0
        for process in self._tree():
            try:
                key = (process.pid, process.create_time())
                self._seen.setdefault(key, process)
                memory += process.memory_full_info().pss
                self._written[key] = process.io_counters().write_bytes
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        self._memory = max(self._memory, memory)
        self._disk = max(self._disk, _size(self._folder))

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _size(folder: Path) -> int:
    """Bytes of all files below a folder in which others write and delete meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        total += status.st_blocks * 512
    return total
