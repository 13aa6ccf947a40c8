"""What the contract of S_alpha does not see of the kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evomerge.merging.lora import kernels

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(arrays(np.float32, st.integers(1, 300), elements=FINITE | st.sampled_from([0.0, -0.0, 1.0])))
def test_ranks_are_those_of_a_stable_sort(values: np.ndarray) -> None:
    ranks = np.empty(len(values), np.uint16)
    kernels.rank_by_magnitude(values, ranks)
    order = np.argsort(-np.abs(values), kind="stable")
    assert (order[ranks] == np.arange(len(values))).all()


@settings(deadline=None)
@given(
    arrays(np.float32, st.integers(1, 300), elements=FINITE | st.sampled_from([0.0, -0.0, 1.0])),
    st.integers(0, 300),
)
def test_the_largest_are_the_first_by_rank(values: np.ndarray, keep: int) -> None:
    ranks = np.empty(len(values), np.uint16)
    kernels.rank_by_magnitude(values, ranks)
    out = np.full((1, len(values)), np.nan, np.float32)
    kernels.largest_copy(values[None], np.array([keep], np.int32), out)
    np.testing.assert_array_equal(out[0], np.where(ranks < keep, values, 0))


@pytest.mark.parametrize("candidates", [1, 2, 3, 20])
@pytest.mark.parametrize("experts", [1, 3, 4, 5])
@pytest.mark.parametrize("length", [1, 1023, 1024, 2100])
def test_tiles_that_are_not_full_add_up(candidates: int, experts: int, length: int) -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal((experts, length)).astype(np.float32)
    weights = random.standard_normal((candidates, experts)).astype(np.float32)
    out = np.full((candidates, length), np.nan, np.float32)
    kernels.weighted_sum(values, weights, out)
    np.testing.assert_allclose(out, weights @ values, rtol=1e-4, atol=1e-5)


def test_a_candidate_sums_to_the_same_bits_in_any_company() -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal((7, 1500)).astype(np.float32)
    weights = random.standard_normal((5, 7)).astype(np.float32)
    together, alone = np.empty((5, 1500), np.float32), np.empty((1, 1500), np.float32)
    kernels.weighted_sum(values, weights, together)
    for candidate in range(5):
        kernels.weighted_sum(values, weights[candidate : candidate + 1], alone)
        assert (alone[0] == together[candidate]).all()


def test_compiles_where_nothing_can_be_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_a_place(
        function: Callable[..., Any] | None = None, *, cache: bool = False, **_: object
    ) -> Callable[..., Any]:
        def compiler(given: Callable[..., Any]) -> Callable[..., Any]:
            if cache:
                raise RuntimeError("cannot cache function: no locator available")
            return given

        return compiler

    monkeypatch.setattr(kernels, "njit", without_a_place)
    assert kernels._compiled(len) is len
