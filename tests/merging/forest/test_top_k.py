"""The k ELMs of largest weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from evomerge.merging.forest.errors import TopKError
from evomerge.merging.forest.top_k import foremost, keep_top

WEIGHTS = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 5)),
    # Few different values, so that there are ties.
    elements=st.sampled_from([-np.inf, -3.0, -1.0, 0.0, 2.0]),
)


@given(WEIGHTS, st.integers(1, 6))
def test_keeps_the_largest_and_the_first_among_equals(weights: np.ndarray, k: int) -> None:
    k = min(k, len(weights))
    kept = keep_top(weights, k)
    for column, left in zip(weights.T, kept.T, strict=True):
        order = sorted(range(len(column)), key=lambda j: (-column[j], j))
        expected = np.full(len(column), -np.inf)
        expected[order[:k]] = column[order[:k]]
        total = np.exp(expected).sum()
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(np.exp(left), np.exp(expected) / (total or 1.0))
        np.testing.assert_array_equal(foremost(column, k), sorted(order[:k]))


@given(WEIGHTS)
def test_all_of_n_only_normalises(weights: np.ndarray) -> None:
    np.testing.assert_array_equal(keep_top(weights, len(weights)), keep_top(weights, None))
    np.testing.assert_array_equal(foremost(weights[:, 0], None), range(len(weights)))


def test_any_axis_may_be_the_elms() -> None:
    weights = np.random.default_rng(1).normal(size=(2, 5, 3))
    np.testing.assert_array_equal(
        keep_top(weights, 2, axis=1), keep_top(weights.swapaxes(0, 1), 2).swapaxes(0, 1)
    )


@pytest.mark.parametrize("k", [0, -1, 4, 1.0, True, "2"])
def test_refuses_what_is_no_number_of_elms(k: object) -> None:
    for refuse in (keep_top, foremost):
        with pytest.raises(TopKError, match=f"top_k={k!r}: must be a whole number from 1 to 3"):
            refuse(np.zeros(3), k)  # type: ignore[arg-type]
