"""Linear layers with the updates of a population, beside each other in one batch.

A batch is laid out candidate by candidate: rows (C x E), the E examples of the first candidate
before those of the second. The base's weight serves all of them in one product; what a candidate
adds comes by one of two roads:

- low rank: ``y += ((x A^T) * scale) B^T``, T k (d_in + d_out) multiplications for T tokens;
- dense: the update ``B diag(scale) A`` formed first, k d_in d_out multiplications and a copy of
  the weight, which is cheaper for many tokens or a large k.

The road depends on sizes and the dtype alone, never on a measured time, so that the same batch
always gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.errors import ShapeError, UnknownModuleError
from evomerge.merging.lora.population import Factors, Population

# What copying one element of a weight costs, in multiplications (measured on a CPU).
_COPY_COST = 8
# A product with fewer columns than this takes as long as one with so many (likewise).
_NARROWEST = 24


def part(population: Population, first: int, last: int) -> Population:
    """Candidates first..last-1 of a population, as views."""

    def cut(factors: Factors) -> Factors:
        return Factors(
            A=factors.A if factors.A.shape[0] == 1 else factors.A[first:last],
            B=factors.B if factors.B.shape[0] == 1 else factors.B[first:last],
            scale=None if factors.scale is None else factors.scale[first:last],
        )

    whole = population.factors
    return Population(last - first, {module: cut(whole[module]) for module in whole})


def check_fits(base: BaseModel, population: Population) -> None:
    """Refuse a population made for another base.

    Raises:
        UnknownModuleError: it adapts a module that the base does not have.
        ShapeError: factors do not fit their module, or each other.
    """
    shapes = base.linear_shapes()
    for module, factors in population.factors.items():
        if module not in shapes:
            raise UnknownModuleError(module, base.name)
        given = (int(factors.B.shape[1]), int(factors.A.shape[2]))
        counts = {factors.A.shape[0], factors.B.shape[0]} - {1, population.size}
        if given != shapes[module] or factors.B.shape[2] != factors.rank or counts:
            raise ShapeError(module, given, shapes[module])


@contextmanager
def adapted(base: BaseModel, population: Population) -> Iterator[None]:
    """Put the updates of a population into the base's linear layers, and take them out again.

    Use inside `base.running()`; batches must have a multiple of `population.size` rows.
    """
    try:
        for module, factors in population.factors.items():
            layer = AdaptedLinear(base.linears[module], factors, population.size)
            base.model.set_submodule(module, layer)
        yield
    finally:
        for module in population.factors:
            base.model.set_submodule(module, base.linears[module])


class AdaptedLinear(nn.Module):
    """A linear layer plus the update of each candidate.

    Args:
        linear: the base's layer, shared, never changed.
        factors: the updates, moved to the layer's device and dtype.
        candidates: C.
    """

    def __init__(self, linear: nn.Linear, factors: Factors, candidates: int) -> None:
        super().__init__()
        self.linear = linear
        self.candidates = candidates
        self._A = factors.A.to(linear.weight)
        self._B = factors.B.to(linear.weight)
        self._scale = None if factors.scale is None else factors.scale.to(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(C * E, ..., d_in) -> (C * E, ..., d_out)."""
        rows = x.reshape(self.candidates, -1, x.shape[-1])
        merged = self.linear.weight.dtype == torch.float32
        dense = dense_is_cheaper(
            tokens=rows.shape[1],
            rank=self._A.shape[1],
            d_in=rows.shape[2],
            d_out=self.linear.out_features,
            merged=merged,
        )
        if not dense:
            y = self._low_rank(rows)
        elif merged:
            y = self._merged(rows)
        else:
            y = self._dense_update(rows)
        return y.view(*x.shape[:-1], y.shape[-1])

    def _low_rank(self, rows: Tensor) -> Tensor:
        y = self.linear(rows)
        inner = _times(rows, self._A)
        if self._scale is not None:
            inner = inner * self._scale[:, None, :]
        return _plus_times(y, inner, self._B)

    def _merged(self, rows: Tensor) -> Tensor:
        """One product a candidate with weight + update; in float32 adding them loses nothing."""
        y = rows.new_empty(*rows.shape[:2], self.linear.out_features)
        for candidate in range(self.candidates):
            A, B = self._factors(candidate)
            weight = torch.addmm(self.linear.weight, B, A)
            torch.mm(rows[candidate], weight.T, out=y[candidate])
        return y if self.linear.bias is None else y.add_(self.linear.bias)

    def _dense_update(self, rows: Tensor) -> Tensor:
        """Weight and update apart: in bfloat16 their sum would round the update away."""
        y: Tensor = self.linear(rows)
        for candidate in range(self.candidates):
            A, B = self._factors(candidate)
            y[candidate].addmm_(rows[candidate], (B @ A).T)
        return y

    def _factors(self, candidate: int) -> tuple[Tensor, Tensor]:
        """A (k, d_in) and B diag(scale) (d_out, k) of one candidate."""
        A = self._A[candidate if self._A.shape[0] > 1 else 0]
        B = self._B[candidate if self._B.shape[0] > 1 else 0]
        return A, B if self._scale is None else B * self._scale[candidate]


def dense_is_cheaper(tokens: int, rank: int, d_in: int, d_out: int, *, merged: bool) -> bool:
    """Whether forming a candidate's dense update costs less than two low-rank products.

    Args:
        tokens: T, of one candidate.
        rank: k.
        d_in, d_out: of the layer.
        merged: whether the update is added to the weight, so that no second product is needed.
    """
    low_rank = tokens * (max(rank, _NARROWEST) * d_in + rank * d_out)
    second_product = 0 if merged else tokens
    return low_rank > (rank + _COPY_COST + second_product) * d_in * d_out


def _times(rows: Tensor, A: Tensor) -> Tensor:
    """rows (C, T, d) times A^T of (1 or C, k, d) -> (C, T, k)."""
    if A.shape[0] == 1:
        return functional.linear(rows, A[0])
    return torch.bmm(rows, A.transpose(1, 2))


def _plus_times(y: Tensor, inner: Tensor, B: Tensor) -> Tensor:
    """y (C, T, d) plus inner (C, T, k) times B^T of (1 or C, d, k); y is written over."""
    if B.shape[0] == 1:
        y.view(-1, y.shape[2]).addmm_(inner.reshape(-1, inner.shape[2]), B[0].T)
        return y
    return y.baddbmm_(inner, B.transpose(1, 2))
