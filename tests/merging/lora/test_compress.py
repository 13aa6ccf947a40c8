"""Truncation against the dense singular value decomposition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merging.lora.compress import compress, compress_dense


@settings(deadline=None, max_examples=40)
@given(
    k=st.integers(1, 30),
    d_in=st.integers(1, 20),
    d_out=st.integers(1, 20),
    rank=st.integers(1, 30),
    seed=st.integers(0, 1 << 32),
)
def test_is_the_best_approximation_of_its_rank(
    k: int, d_in: int, d_out: int, rank: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(k, d_in, generator=generator)
    b = torch.randn(d_out, k, generator=generator)
    small_a, small_b = compress(a, b, rank)

    expected_rank = k if k <= rank else min(rank, d_in, d_out)
    assert small_a.shape == (expected_rank, d_in)
    assert small_b.shape == (d_out, expected_rank)
    assert small_a.dtype == torch.float32
    dense = b.double() @ a.double()
    left, values, right = torch.linalg.svd(dense, full_matrices=False)
    best = left[:, :rank] * values[:rank] @ right[:rank]
    torch.testing.assert_close(small_b.double() @ small_a.double(), best, rtol=1e-4, atol=1e-4)


def test_both_factors_are_of_one_size() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(8, 12, generator=generator) * 1e3
    b = torch.randn(10, 8, generator=generator) * 1e-3
    small_a, small_b = compress(a, b, 3)
    torch.testing.assert_close(small_a.norm(dim=1), small_b.norm(dim=0))


def test_an_update_of_zero_stays_zero() -> None:
    a, b = compress(torch.zeros(8, 12), torch.zeros(10, 8), 2)
    assert not (b @ a).any()


def test_refuses_a_rank_below_one() -> None:
    with pytest.raises(ValueError, match="rank=0"):
        compress(torch.ones(2, 2), torch.ones(2, 2), 0)


@settings(deadline=None, max_examples=40)
@given(
    d_in=st.integers(1, 12),
    d_out=st.integers(1, 12),
    rank=st.integers(1, 14),
    seed=st.integers(0, 99),
)
def test_a_dense_update_keeps_its_largest_singular_values(
    d_in: int, d_out: int, rank: int, seed: int
) -> None:
    update = torch.randn(d_out, d_in, generator=torch.Generator().manual_seed(seed))
    a, b = compress_dense(update, rank)
    kept = min(rank, d_in, d_out)
    assert (a.shape, b.shape) == ((kept, d_in), (d_out, kept))
    dropped = torch.linalg.svdvals(update)[kept:]
    assert float((update - b @ a).norm()) == pytest.approx(float(dropped.norm()), abs=1e-4)


def test_a_dense_update_refuses_a_rank_below_one() -> None:
    with pytest.raises(ValueError, match="rank=0"):
        compress_dense(torch.ones(2, 2), 0)
