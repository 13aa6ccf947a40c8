"""What every implementation of S_alpha must do: the definition, torch's masks, the kernels."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evomerge.merging.lora.sparsify import (
    keep_counts,
    magnitude_ranks,
    ranks_dtype,
    sparse_copy,
    sparse_sum,
    sparsify,
)

Sparsifier = Callable[[Tensor, float], Tensor]


def _by_ranks(tensor: Tensor, alpha: float) -> Tensor:
    values = tensor.flatten()[None]
    ranks = torch.empty(values.shape, dtype=ranks_dtype(values.shape[1], values.device))
    magnitude_ranks(values, ranks)
    keep = keep_counts(np.array([alpha]), np.array([values.shape[1]]))
    out = torch.full_like(values, math.nan)
    sparse_copy(values, ranks, keep, out)
    return out.view_as(tensor)


def _by_limit(tensor: Tensor, alpha: float) -> Tensor:
    """Without places by magnitude."""
    values = tensor.flatten()[None]
    out = torch.full_like(values, math.nan)
    sparse_copy(values, None, keep_counts(np.array([alpha]), np.array([values.shape[1]])), out)
    return out.view_as(tensor)


def _by_sum(tensor: Tensor, alpha: float) -> Tensor:
    """As one of two candidates over one expert, the other keeping all."""
    values = tensor.flatten()[None]
    ranks = torch.empty(values.shape, dtype=ranks_dtype(values.shape[1], values.device))
    magnitude_ranks(values, ranks)
    keep = keep_counts(np.array([[1.0], [alpha]]), np.array([values.shape[1]]))
    out = torch.full((2, values.shape[1]), math.nan, dtype=values.dtype)
    sparse_sum(values, ranks, keep, np.ones((2, 1)), out)
    return out[1].view_as(tensor)


def _in_double(sparsifier: Sparsifier) -> Sparsifier:
    """Kernels take float32 only: another type goes the way of torch."""
    return lambda tensor, alpha: sparsifier(tensor.double(), alpha).to(tensor.dtype)


IMPLEMENTATIONS: dict[str, Sparsifier] = {
    "definition": sparsify,
    "kernel copy": _by_ranks,
    "kernel copy by limit": _by_limit,
    "kernel sum": _by_sum,
    "torch copy": _in_double(_by_ranks),
    "torch copy by limit": _in_double(_by_limit),
    "torch sum": _in_double(_by_sum),
}
ALPHAS = st.floats(0.0, 1.0)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Of few distinct magnitudes, so that ties are common, as they are in bfloat16."""
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 90))
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    levels = draw(st.sampled_from([1, 3, 1000]))
    values = random.integers(-levels, levels + 1, (rows, columns)) * 0.37
    return torch.from_numpy(values.astype(np.float32))


@pytest.fixture(params=IMPLEMENTATIONS)
def sparsifier(request: pytest.FixtureRequest) -> Sparsifier:
    return IMPLEMENTATIONS[request.param]


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@settings(deadline=None, max_examples=50)
@given(tensor=tensors(), alpha=ALPHAS)
def test_agrees_with_the_definition_bit_for_bit(name: str, tensor: Tensor, alpha: float) -> None:
    assert torch.equal(IMPLEMENTATIONS[name](tensor, alpha), sparsify(tensor, alpha))


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@settings(deadline=None, max_examples=50)
@given(tensor=tensors(), alpha=ALPHAS)
def test_keeps_the_largest_and_as_many_as_alpha_says(
    name: str, tensor: Tensor, alpha: float
) -> None:
    # Without zeros, so that what was kept can be counted.
    tensor = torch.where(tensor == 0, 0.1, tensor)
    result = IMPLEMENTATIONS[name](tensor, alpha)
    kept = result != 0
    assert int(kept.sum()) == math.ceil(alpha * tensor.numel())
    assert torch.equal(result[kept], tensor[kept])
    if kept.any() and not kept.all():
        assert tensor[kept].abs().min() >= tensor[~kept].abs().max()


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@settings(deadline=None, max_examples=50)
@given(tensor=tensors(), alphas=st.tuples(ALPHAS, ALPHAS))
def test_is_monotone_and_idempotent(name: str, tensor: Tensor, alphas: tuple[float, float]) -> None:
    low, high = sorted(alphas)
    less, more = IMPLEMENTATIONS[name](tensor, low), IMPLEMENTATIONS[name](tensor, high)
    assert bool(((less == 0) | (less == more)).all())
    assert torch.equal(IMPLEMENTATIONS[name](less, low), less)


def test_alpha_zero_keeps_none_and_one_keeps_all(sparsifier: Sparsifier) -> None:
    tensor = torch.tensor([[1.0, -2.0], [0.0, 0.5]])
    assert not sparsifier(tensor, 0.0).any()
    assert torch.equal(sparsifier(tensor, 1.0), tensor)


def test_ties_go_to_the_entry_that_comes_first(sparsifier: Sparsifier) -> None:
    tensor = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, 3.0]])
    expected = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 3.0]])
    assert torch.equal(sparsifier(tensor, 0.5), expected)


def test_sparsity_is_of_each_tensor_alone(sparsifier: Sparsifier) -> None:
    """Scaling a tensor changes nothing about which entries stay."""
    tensor = torch.tensor([[0.3, -0.1, 0.2, 0.05]])
    assert torch.allclose(sparsifier(tensor * 1e-20, 0.5) * 1e20, sparsifier(tensor, 0.5))


def test_a_tensor_too_large_for_short_ranks(sparsifier: Sparsifier) -> None:
    tensor = torch.arange(-40_000, 40_000, dtype=torch.float32).reshape(8, 10_000)
    assert torch.equal(sparsifier(tensor, 0.9), sparsify(tensor, 0.9))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_refuses_an_alpha_outside_its_range(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        sparsify(torch.ones(2), alpha)
