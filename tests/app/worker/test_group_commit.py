"""Small writes together: in order, all of them, and one that fails alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError, OperationalError

from evomerge.app.db.errors import JobNotFoundError
from evomerge.app.worker.group_commit import LARGEST, GroupCommit


@dataclass(frozen=True)
class Write:
    key: int
    number: int = 0


@dataclass
class Disk:
    """Remembers its transactions; `broken` writes cannot be written."""

    broken: frozenset[int] = frozenset()
    away: bool = False
    batches: list[list[Write]] = field(default_factory=list)

    async def commit(self, writes: Sequence[Write]) -> Sequence[object]:
        await asyncio.sleep(0)
        if self.away:
            raise OperationalError("INSERT", {}, Exception("away"))
        if any(write.key in self.broken for write in writes):
            raise IntegrityError("INSERT", {}, Exception("broken"))
        self.batches.append(list(writes))
        return [write.number for write in writes]


async def test_writes_that_come_together_are_committed_together() -> None:
    disk = Disk()
    async with GroupCommit(disk.commit) as group:
        results = await asyncio.gather(*(group.put(Write(n, -n)) for n in range(10)))
    assert results == [-n for n in range(10)]
    assert [len(batch) for batch in disk.batches] == [10]


async def test_a_batch_is_bounded() -> None:
    disk = Disk()
    async with GroupCommit(disk.commit) as group:
        await asyncio.gather(*(group.put(Write(n)) for n in range(LARGEST + 1)))
    assert [len(batch) for batch in disk.batches] == [LARGEST, 1]


@given(keys=st.lists(st.integers(0, 4), max_size=40), pauses=st.sets(st.integers(0, 39)))
async def test_order_is_kept_and_one_key_is_in_a_batch_once(
    keys: list[int], pauses: set[int]
) -> None:
    disk, writes = Disk(), [Write(key, number) for number, key in enumerate(keys)]
    async with GroupCommit(disk.commit) as group:
        futures = []
        for number, write in enumerate(writes):
            futures.append(group.put(write))
            if number in pauses:
                await asyncio.sleep(0)
    assert [write for batch in disk.batches for write in batch] == writes
    assert all(len({write.key for write in batch}) == len(batch) for batch in disk.batches)
    assert [future.result() for future in futures] == list(range(len(writes)))


async def test_the_end_waits_for_what_nobody_waits_for() -> None:
    disk = Disk()
    async with GroupCommit(disk.commit) as group:
        group.put(Write(1)).cancel()
        group.put(Write(2))
    assert disk.batches == [[Write(1), Write(2)]]


async def test_one_that_cannot_be_written_loses_no_other() -> None:
    disk = Disk(broken=frozenset({3}))
    async with GroupCommit(disk.commit) as group:
        futures = [group.put(Write(n, n)) for n in range(6)]
        results = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(results.pop(3), IntegrityError)
    assert results == [0, 1, 2, 4, 5]


async def test_a_database_that_is_away_is_told_to_all_and_asked_once() -> None:
    disk = Disk(away=True)
    async with GroupCommit(disk.commit) as group:
        futures = [group.put(Write(n)) for n in range(6)]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert all(isinstance(result, OperationalError) for result in results)
        disk.away = False
        assert await group.put(Write(7, 7)) == 7


async def test_a_storage_error_goes_to_its_write_alone() -> None:
    async def commit(writes: Sequence[Write]) -> Sequence[object]:
        return [JobNotFoundError("mj") if write.key else write.number for write in writes]

    async with GroupCommit(commit) as group:
        refused, written = group.put(Write(1)), group.put(Write(0, 5))
        with pytest.raises(JobNotFoundError):
            await refused
        assert await written == 5


async def test_a_fault_of_ours_leaves_nobody_waiting() -> None:
    async def commit(writes: Sequence[Write]) -> Sequence[object]:
        raise ZeroDivisionError

    async def run() -> None:
        async with GroupCommit(commit) as group:
            with pytest.raises(RuntimeError):
                await group.put(Write(1))
            with pytest.raises(RuntimeError):
                group.put(Write(2))

    with pytest.raises(ZeroDivisionError):
        await run()
