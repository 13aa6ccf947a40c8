"""Many small writes in one transaction: a commit costs the same for one as for a hundred."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from evomerge.app.db.errors import StorageError
from evomerge.app.db.retry import is_away

LARGEST = 256


class Keyed(Protocol):
    """A write that concerns one key."""

    @property
    def key(self) -> Hashable: ...


W = TypeVar("W", bound=Keyed)


class GroupCommit(Generic[W]):
    """Writes what is put into it, in order, as many at once as have come together meanwhile.

    While one transaction is committed the next one fills: alone, a write is committed at once.
    Writes of one key are never in one transaction, so each sees what came before it. Use as an
    async context manager: its end waits for everything that was put.

    Args:
        commit: does a batch in one transaction, and gives a result for each write in order; a
            StorageError among them is raised to whoever put that write.
    """

    def __init__(self, commit: Callable[[Sequence[W]], Awaitable[Sequence[object]]]) -> None:
        self._commit = commit
        self._waiting: deque[tuple[W, asyncio.Future[object]]] = deque()
        self._under_way: Sequence[tuple[W, asyncio.Future[object]]] = ()
        self._filled = asyncio.Event()
        self._ending = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="group-commit")
        self._task.add_done_callback(self._abandon)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ending = True
        self._filled.set()
        await self._task

    def put(self, write: W) -> asyncio.Future[object]:
        """Queue a write. The result comes when it is committed, and it is committed even if
        nobody waits for it any more.

        Raises (from the future):
            StorageError: the write was refused.
            sqlalchemy.exc.SQLAlchemyError: the database stayed away.

        Raises:
            RuntimeError: the block has ended.
        """
        if self._task.done():
            raise RuntimeError("nothing is written any more")
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(_looked_at)
        self._waiting.append((write, future))
        self._filled.set()
        return future

    async def _run(self) -> None:
        while self._waiting or not self._ending:
            if not self._waiting:
                self._filled.clear()
                await self._filled.wait()
                # Whoever is ready to run may join before the transaction begins.
                await asyncio.sleep(0)
                continue
            self._under_way = self._next()
            await self._write(self._under_way)

    def _next(self) -> list[tuple[W, asyncio.Future[object]]]:
        batch: list[tuple[W, asyncio.Future[object]]] = []
        keys: set[Hashable] = set()
        while self._waiting and len(batch) < LARGEST and self._waiting[0][0].key not in keys:
            batch.append(self._waiting.popleft())
            keys.add(batch[-1][0].key)
        return batch

    async def _write(self, batch: Sequence[tuple[W, asyncio.Future[object]]]) -> None:
        try:
            results = await self._commit([write for write, _ in batch])
        except SQLAlchemyError as error:
            if len(batch) > 1 and not is_away(error):
                # One of them cannot be written; that must not lose the others.
                for one in batch:
                    await self._write([one])
                return
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, StorageError | SQLAlchemyError):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _abandon(self, task: asyncio.Task[None]) -> None:
        """Let nobody wait for a writer that a fault of ours has ended; the block raises it."""
        for _, future in (*self._under_way, *self._waiting):
            if not future.done():
                future.set_exception(RuntimeError("the writer has ended before this was written"))


def _looked_at(future: asyncio.Future[object]) -> None:
    """Nobody may be waiting any more; an error is no news to the event loop then."""
    if not future.cancelled():
        future.exception()
