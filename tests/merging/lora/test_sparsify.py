"""Sums over sparsified experts, by kernels and by torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merging.lora.sparsify import (
    keep_counts,
    magnitude_ranks,
    ranks_dtype,
    sparse_sum,
    sparsify,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(deadline=None, max_examples=40)
@given(
    experts=st.integers(1, 9),
    length=st.integers(1, 1000),
    candidates=st.integers(1, 4),
    shared=st.booleans(),
    seed=st.integers(0, 1 << 32),
)
def test_the_sum_is_that_of_the_definition(
    dtype: torch.dtype, experts: int, length: int, candidates: int, shared: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    values = torch.from_numpy(random.integers(-5, 6, (experts, length)).astype(float)).to(dtype)
    alpha = random.random((1 if shared else candidates, experts)).repeat(
        candidates if shared else 1, axis=0
    )
    weights = random.standard_normal((candidates, experts)) * (random.random(experts) < 0.7)
    ranks = torch.empty(values.shape, dtype=ranks_dtype(length, values.device))
    magnitude_ranks(values, ranks)
    out = torch.full((candidates, length), torch.nan, dtype=dtype)

    sparse_sum(values, ranks, keep_counts(alpha, np.full(experts, length)), weights, out)

    expected = torch.stack(
        [
            sum(
                (weights[p, i] * sparsify(values[i], alpha[p, i]).double() for i in range(experts)),
                torch.zeros(length, dtype=torch.float64),
            )
            for p in range(candidates)
        ]
    )
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_ranks_nothing_is_dropped(dtype: torch.dtype) -> None:
    values = torch.randn(5, 700, generator=torch.Generator().manual_seed(1)).to(dtype)
    weights = np.random.default_rng(2).standard_normal((3, 5))
    out = torch.empty(3, 700, dtype=dtype)
    sparse_sum(values, None, keep_counts(np.ones((3, 5)), np.full(5, 700)), weights, out)
    expected = torch.from_numpy(weights) @ values.double()
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


def test_padding_takes_no_place_from_zeros_of_the_tensor() -> None:
    padded = torch.tensor([[0.0, 2.0, 0.0, 0.0, 0.0]])
    ranks = torch.empty(1, 5, dtype=torch.uint16)
    magnitude_ranks(padded, ranks)
    assert ranks.tolist() == [[1, 0, 2, 3, 4]]


@pytest.mark.parametrize(
    ("alpha", "size", "kept"), [(0.0, 10, 0), (1e-9, 10, 1), (0.5, 5, 3), (1.0, 7, 7), (1.0, 0, 0)]
)
def test_counts_are_rounded_up(alpha: float, size: int, kept: int) -> None:
    assert keep_counts(np.array([alpha]), np.array([size])).tolist() == [kept]


@pytest.mark.parametrize(
    ("length", "dtype"), [(1 << 16, torch.uint16), ((1 << 16) + 1, torch.int32)]
)
def test_ranks_are_as_short_as_they_can_be(length: int, dtype: torch.dtype) -> None:
    assert ranks_dtype(length, torch.device("cpu")) == dtype
