"""How many at once, how many a minute: on a loop whose clock is moved by hand."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

import pytest

from evomerge.connectors.limits import EndpointLimits, Gate


class Hurried(asyncio.SelectorEventLoop):
    """A loop that does not wait: its clock jumps to the next timer instead."""

    def __init__(self) -> None:
        super().__init__(_Jumping(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now


class _Jumping(selectors.SelectSelector):
    def __init__(self, loop: Hurried) -> None:
        super().__init__()
        self.loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout:
            self.loop.now += timeout
        return super().select(0)


def run(work: Coroutine[Any, Any, float]) -> float:
    with asyncio.Runner(loop_factory=Hurried) as runner:
        return runner.run(work)


async def passed(gate: Gate, requests: int, tokens: int) -> float:
    """Seconds until so many requests have gone through."""

    async def one() -> None:
        async with gate.passed(tokens):
            pass

    await asyncio.gather(*(one() for _ in range(requests)))
    return asyncio.get_running_loop().time()


def test_requests_a_minute_are_spread_evenly() -> None:
    async def work() -> float:
        return await passed(Gate(EndpointLimits(64, requests_per_minute=120)), 121, 0)

    # Two may go at once, each further one half a second later.
    assert run(work()) == pytest.approx(59.5, abs=0.1)


def test_less_than_one_a_minute_is_possible() -> None:
    async def work() -> float:
        return await passed(Gate(EndpointLimits(64, requests_per_minute=0.5)), 3, 0)

    assert run(work()) == pytest.approx(240.0, abs=0.1)


def test_tokens_a_minute_hold_for_requests_larger_than_a_burst() -> None:
    async def work() -> float:
        return await passed(Gate(EndpointLimits(64, tokens_per_minute=1000)), 10, 500)

    # 5,000 tokens at 1,000 a minute, less the tenth of a minute that may go at once.
    assert run(work()) == pytest.approx(294.0, abs=0.5)


async def test_a_cancelled_wait_leaves_its_place() -> None:
    gate = Gate(EndpointLimits(1))
    entered = asyncio.Event()

    async def hold() -> None:
        async with gate.passed(0):
            entered.set()
            await asyncio.Event().wait()

    holder = asyncio.create_task(hold())
    await entered.wait()
    waiting = asyncio.create_task(hold())
    await asyncio.sleep(0)
    for task in (waiting, holder):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with gate.passed(0):
        pass


@pytest.mark.parametrize("name", ["concurrency", "requests_per_minute", "read_seconds"])
def test_a_limit_that_lets_nothing_through_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        EndpointLimits(**{name: 0})
