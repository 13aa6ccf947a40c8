"""Weights of parameter averages."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.merging.forest.averages import average_weights, checked_rows
from evomerge.merging.forest.errors import ArgumentError, WeightsError

POSTERIOR = [0.2, 0.4, 0.4]


def test_each_kind() -> None:
    assert average_weights("uniform", 4).tolist() == [0.25] * 4
    assert average_weights("argmax", 3, posterior=POSTERIOR).tolist() == [0, 1, 0]
    assert average_weights("posterior", 3, posterior=POSTERIOR).tolist() == POSTERIOR
    assert average_weights("custom", 2, custom=[0.3, 0.7]).tolist() == [0.3, 0.7]
    assert average_weights("custom", 2, custom=[0, 1]).tolist() == [0, 1]


def test_decimal_fractions_nearly_sum_to_one() -> None:
    assert average_weights("custom", 10, custom=[0.1] * 10).tolist() == [0.1] * 10
    with pytest.raises(WeightsError, match=r"custom=.*sum 1, has 0\.99"):
        average_weights("custom", 3, custom=[0.33] * 3)


@pytest.mark.parametrize(
    "weights", [None, [], [1.0], [[0.5, 0.5]], [1.5, -0.5], [np.nan, 1.0], [np.inf, 0.0], [0.0, 0]]
)
def test_refuses_what_is_no_distribution(weights: object) -> None:
    with pytest.raises(WeightsError, match="custom="):
        average_weights("custom", 2, custom=weights)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="posterior="):
        average_weights("posterior", 2, posterior=weights)  # type: ignore[arg-type]


def test_refuses_kinds_and_numbers_that_are_none() -> None:
    with pytest.raises(ArgumentError, match="kind='best'"):
        average_weights("best", 2)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="elms=0"):
        average_weights("uniform", 0)


def test_rows_are_divided_by_their_sums() -> None:
    rows = checked_rows([[0.5, 0.5 + 1e-7]], 2, "weights")
    assert rows.sum() == pytest.approx(1, abs=1e-15)
