"""Candidates as adapter folders that a server reads while they are scored."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from evomerge.connectors.together import finished
from evomerge.optimizers.candidate import Candidate


@dataclass(frozen=True)
class Shelf:
    """A folder that this process and the server see under the same path.

    Attributes:
        folder: where candidates are written.
        name: the name of a candidate, out of its content and its job. After a crash the same
            candidate is written under the same name again, and so cleared up in the end.
        write: writes a candidate as a PEFT folder, replacing what is there. Slow: runs in a thread.
    """

    folder: Path
    name: Callable[[Candidate], str]
    write: Callable[[Candidate, Path], None]
    _out: set[str] = field(default_factory=set)

    @asynccontextmanager
    async def holding(self, candidate: Candidate) -> AsyncIterator[Path]:
        """The candidate's folder for as long as the block runs; its name is unique meanwhile.

        Raises:
            OSError, Exception: what `write` raises.
        """
        name = self._free(self.name(candidate))
        self._out.add(name)
        path = self.folder / name
        try:
            await finished(asyncio.to_thread(self.write, candidate, path))
            yield path
        finally:
            await finished(asyncio.to_thread(shutil.rmtree, path, ignore_errors=True))
            self._out.discard(name)

    def _free(self, name: str) -> str:
        """Equal candidates may be out at once: each has a folder, and an end, of its own."""
        number = 0
        while f"{name}-{number}" in self._out:
            number += 1
        return f"{name}-{number}"
