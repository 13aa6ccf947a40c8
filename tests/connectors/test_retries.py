"""Waiting between attempts."""

from __future__ import annotations

import random
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.connectors import NOW, Waits

from evomerge.connectors.errors import OverloadedError, UnknownModelError
from evomerge.connectors.retries import AgainError, Retries

BUSY = OverloadedError("m", "busy")


async def test_waits_grow_with_jitter_and_end() -> None:
    waits = Waits()

    async def attempt() -> None:
        raise AgainError(BUSY)

    with pytest.raises(OverloadedError) as caught:
        await waits.retries().run(8, attempt)
    assert caught.value is BUSY
    most = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    assert len(waits.seconds) == len(most)
    assert all(limit / 2 <= one <= limit for one, limit in zip(waits.seconds, most, strict=True))


async def test_other_errors_go_up_at_once() -> None:
    waits, made = Waits(), 0

    async def attempt() -> None:
        nonlocal made
        made += 1
        raise AgainError(BUSY) if made == 1 else UnknownModelError("m", "gone")

    with pytest.raises(UnknownModelError):
        await waits.retries().run(8, attempt)
    assert (made, len(waits.seconds)) == (2, 1)


async def test_one_attempt_waits_for_nothing() -> None:
    waits = Waits()

    async def attempt() -> None:
        raise AgainError(BUSY, after=5.0)

    with pytest.raises(OverloadedError):
        await waits.retries().run(1, attempt)
    assert waits.seconds == []


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        (formatdate(NOW + 30, usegmt=True), 30.0),
        (formatdate(NOW - 30, usegmt=True), 0.0),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after(said: str, seconds: float | None) -> None:
    assert Waits().retries().after({"retry-after": said}) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_breaks_anything(said: str) -> None:
    found = Retries(now=lambda: NOW).after({"retry-after": said})
    assert found is None or found >= 0.0


async def test_an_endless_retry_after_is_capped() -> None:
    waits, failed = Waits(), [AgainError(BUSY, after=float("inf"))]

    async def attempt() -> str:
        if failed:
            raise failed.pop()
        return "done"

    retries = Retries(longest=9.0, sleep=waits.sleep, rng=random.Random(1))
    assert await retries.run(2, attempt) == "done"
    assert waits.seconds == [9.0]
