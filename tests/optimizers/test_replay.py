"""Logs that cannot be the log of the search."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import pytest
from tests.support.searches import quadratic, run, signed_target

from evomerge.optimizers import (
    Cma,
    RecordedEvaluation,
    ReplayMismatchError,
    ScalingParameters,
    replay,
)

Rows: TypeAlias = list[RecordedEvaluation]

POPULATION = 6


def make() -> Cma:
    return Cma(4, ScalingParameters(evaluations=30), seed=0, population=POPULATION)


@pytest.fixture
def rows() -> Rows:
    return run(make(), quadratic(signed_target(4))).rows(3)


def test_an_empty_log_leaves_the_search_at_its_start() -> None:
    optimizer = make()
    assert replay(optimizer, []) is None
    assert (optimizer.stage, optimizer.generation) == ("scaling", 0)


def test_a_gap_in_an_earlier_generation(rows: Rows) -> None:
    del rows[POPULATION - 1]
    with pytest.raises(ReplayMismatchError, match=r"generation 0 lacks candidates \[5\]"):
        replay(make(), rows)


def test_a_gap_in_the_last_generation_is_what_remains_to_be_scored(rows: Rows) -> None:
    last = 2 * POPULATION
    del rows[last + 1]
    opened = replay(make(), rows)
    assert opened is not None
    assert opened.missing == [1]


def test_a_missing_generation(rows: Rows) -> None:
    with pytest.raises(ReplayMismatchError, match="generation 2 is recorded where the search is"):
        replay(make(), rows[:POPULATION] + rows[2 * POPULATION :])


def test_another_stage(rows: Rows) -> None:
    with pytest.raises(ReplayMismatchError, match="stage 'denoising' generation 0 is recorded"):
        replay(make(), [replace(rows[0], stage="denoising")])


@pytest.mark.parametrize("index", [-1, POPULATION])
def test_an_index_outside_the_population(rows: Rows, index: int) -> None:
    with pytest.raises(ReplayMismatchError, match=f"candidate {index}: the population has 6"):
        replay(make(), [replace(rows[0], index=index)])


def test_the_same_evaluation_twice(rows: Rows) -> None:
    with pytest.raises(ReplayMismatchError, match="candidate 0: recorded twice"):
        replay(make(), [rows[0], rows[0]])


def test_another_seed(rows: Rows) -> None:
    other = Cma(4, ScalingParameters(evaluations=30), seed=1, population=POPULATION)
    with pytest.raises(ReplayMismatchError, match="generation 0, candidate 0: differs"):
        replay(other, rows)
