"""Signed sums of sparsified experts, for whole populations at once.

S_alpha keeps the ceil(alpha * m) foremost of an expert's m entries about one example. The entry of
rank r (from 0) is kept where r < ceil(alpha * m), that is, where r / m < alpha: so its `fraction`
r / m is all that a candidate has to be compared with, whatever m is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.output.fusion import IntArray

# Elements of the arrays that one step works on: 2^16 float64 are 512 KB, which stay in a core's
# cache and do not go back to the system when they are freed.
_STEP = 1 << 16
# Elements of one expert in a block of examples: so short that a step takes dozens of candidates.
_LENGTH = 1 << 11
# Elements of the sparsified copies that one block may take: 32 MB.
_FEATURES = 1 << 22
# Scores this close, relative to the largest, are equal but for rounding.
_EQUAL = 1e-9


def fractions(strengths: FloatArray) -> FloatArray:
    """rank / m of each entry by falling strength along the last axis, ties by position.

    Args:
        strengths: (..., m) at least 0. Compared after rounding to 9 decimals, so that what is
            equal but for rounding keeps its order.
    """
    order = np.argsort(-np.round(strengths, 9), axis=-1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[-1]), axis=-1)
    share: FloatArray = ranks / order.shape[-1]
    return share


def first_best(scores: FloatArray) -> IntArray:
    """The best of each example, the first of those that are equal but for rounding.

    Args:
        scores: (p, m, n); -inf for what cannot be chosen.

    Returns:
        (p, n); 0 where nothing can be chosen.
    """
    top = scores.max(axis=1, keepdims=True)
    size = np.where(np.isfinite(scores), np.abs(scores), 0.0).max(axis=1, keepdims=True)
    # At least as of numbers near one: what cancels out leaves the rounding of its parts.
    near = scores >= top - _EQUAL * np.maximum(size, 1.0)
    best: IntArray = near.argmax(axis=1)
    return best


class SparseSum:
    """sum_i beta_i S_alpha_i(v_i) over experts i, by one matrix product.

    Candidates that agree in what they keep of an expert share its sparsified copy, so that a
    population of one alpha costs no more than (P, N) @ (N, L).

    Args:
        values: (N, L) finite, v.
        fractions: (N, L), see the module; at least 1 where an entry is not the expert's own.
    """

    def __init__(self, values: FloatArray, fractions: FloatArray) -> None:
        self._values = values
        self._fractions = fractions
        self._levels = [np.unique(row[row < 1]) for row in fractions]

    def plan(self, alpha: FloatArray) -> SparsePlan:
        """The sparsified copies that candidates with these alphas (P, N) need."""
        column = np.zeros(alpha.shape, dtype=np.int64)
        copies = [np.zeros((1, self._values.shape[1]))]
        made = 1
        for i, levels in enumerate(self._levels):
            level = np.searchsorted(levels, alpha[:, i])
            used, place = np.unique(level, return_inverse=True)
            keeping = used[used > 0]
            limits = levels[keeping - 1]
            copies.append(np.where(self._fractions[i] <= limits[:, None], self._values[i], 0.0))
            empty = len(used) - len(keeping)
            column[:, i] = np.where(place < empty, 0, made + place - empty)
            made += len(keeping)
        return SparsePlan(np.concatenate(copies), column)


class SparsePlan:
    """Sparsified copies, and which of them each candidate takes.

    Args:
        copies: (F, L); the first is all zeros.
        column: (P, N), a row of `copies` for each candidate and expert.
    """

    def __init__(self, copies: FloatArray, column: IntArray) -> None:
        self._copies = copies
        self._column = column

    def sums(self, weights: FloatArray, candidates: slice) -> FloatArray:
        """The sums of some candidates, (p, L), for their weights (p, N)."""
        column = self._column[candidates]
        combined = np.zeros((len(column), len(self._copies)))
        np.put_along_axis(combined, column, weights, axis=1)
        combined[:, 0] = 0.0
        result: FloatArray = combined @ self._copies
        return result


def steps(candidates: int, elements: int) -> Iterator[slice]:
    """Slices of a population, of so many that (step, elements) stays small."""
    size = max(1, _STEP // max(1, elements))
    for start in range(0, candidates, size):
        yield slice(start, min(candidates, start + size))


def blocks(
    counts: IntArray, experts: int, levels: int | None = None
) -> Iterator[tuple[int, IntArray]]:
    """Examples put together by their number of options, not too many at once.

    Args:
        counts: (n,), options of each example; examples without any are left out.
        experts: N.
        levels: how many different fractions an expert can have; as many as options unless given.

    Yields:
        (m, rows): a number of options and the indices of some examples that have as many.
    """
    for m in np.unique(counts[counts > 0]).tolist():
        rows = np.flatnonzero(counts == m)
        size = max(1, min(_LENGTH // m, _FEATURES // (experts * m * (levels or m))))
        for start in range(0, len(rows), size):
            yield m, rows[start : start + size]


def runs(sizes: IntArray) -> list[slice]:
    """Examples in a row whose parts, put end to end, are not too long; at least one in each.

    Args:
        sizes: (n,), items or tokens of each example.
    """
    cuts, length = [0], 0
    for row, size in enumerate(sizes.tolist()):
        if length and length + size > _LENGTH:
            cuts.append(row)
            length = 0
        length += size
    return [slice(*ends) for ends in pairwise([*cuts, len(sizes)])]
