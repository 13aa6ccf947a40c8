"""Reservations and estimates learn from what servers count."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.answers import ENDPOINT, EXPERT, answer, question

from evomerge.app.worker.paid_call import most
from evomerge.app.worker.readings import ENOUGH, READ_MARGIN, UNREAD_MARGIN, Readings, read
from evomerge.connectors.question import Sampling

QUESTION = question(1)  # of 8 bytes, 8 tokens by the estimate
OTHER = replace(ENDPOINT, model="other")


def seen(*counted: int) -> Readings:
    readings = Readings()
    for tokens in counted:
        readings.see(QUESTION, EXPERT, replace(answer("a"), input_tokens=tokens))
    return readings


def test_before_the_first_answer_nothing_is_known() -> None:
    readings = seen()
    assert readings.scale(ENDPOINT) is None
    assert readings.margin(ENDPOINT) == UNREAD_MARGIN


def test_what_one_model_counts_says_nothing_of_another() -> None:
    readings = seen(16)
    assert readings.scale(ENDPOINT) == 2.0
    assert readings.scale(OTHER) is None
    assert readings.margin(OTHER) == UNREAD_MARGIN


def test_reservations_get_tighter_once_enough_is_known() -> None:
    few, many = seen(*[8] * (ENOUGH - 1)), seen(*[8] * ENOUGH)
    assert few.margin(ENDPOINT) == UNREAD_MARGIN
    assert many.margin(ENDPOINT) == READ_MARGIN
    assert most(QUESTION, EXPERT, many.margin(ENDPOINT)).input_tokens == 9


@given(st.lists(st.integers(1, 40), min_size=1, max_size=2 * ENOUGH))
def test_what_was_counted_once_fits_into_the_next_reservation(counted: list[int]) -> None:
    readings = seen(*counted)
    assert most(QUESTION, EXPERT, readings.margin(ENDPOINT)).input_tokens >= max(counted)
    assert readings.scale(ENDPOINT) == pytest.approx(sum(counted) / (8 * len(counted)))


def test_draws_that_go_one_by_one_are_read_each() -> None:
    one_by_one = replace(EXPERT, capabilities=replace(EXPERT.capabilities, samples=False))
    asked = replace(QUESTION, samples=3, sampling=Sampling(temperature=1.0))
    assert (read(asked, EXPERT), read(asked, one_by_one)) == (8, 24)
