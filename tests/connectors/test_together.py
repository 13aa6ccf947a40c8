from __future__ import annotations

import asyncio

import pytest

from evomerge.connectors.together import finished, together


async def test_results_stand_in_order() -> None:
    async def give(value: int) -> int:
        await asyncio.sleep(0)
        return value

    assert await together([give(3), give(1), give(2)]) == [3, 1, 2]
    assert await together([]) == []


async def test_the_first_failure_ends_the_rest_and_is_raised_by_itself() -> None:
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await together([wait(), together([wait(), fail()])])  # type: ignore[list-item]
    assert ended.is_set()


async def test_what_has_to_be_finished_is_finished_when_its_caller_is_cancelled() -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), []

    async def work() -> None:
        begun.set()
        await go_on.wait()
        done.append(1)

    task = asyncio.create_task(finished(work()))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]
