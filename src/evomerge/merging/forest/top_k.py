"""The k ELMs of largest weight, for a whole text or anew at every token.

A static top-k is taken of the prior, before anything is read: only those k ELMs run
(`foremost`). A top-k per token is taken of the posterior before each token (`keep_top`): all ELMs
must run, but only k are mixed (arXiv 2208.03306, section 3.2: 8 of 64 were enough).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.errors import TopKError
from evomerge.merging.forest.logs import normalised

# Chosen once, by the prior, or anew at every token.
TopKKind = Literal["static", "token"]


def checked_k(k: int | None, elms: int) -> int:
    """How many of n ELMs are kept, n for None.

    Raises:
        TopKError: no whole number from 1 to n.
    """
    if k is None:
        return elms
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= elms:
        raise TopKError(k, elms)
    return int(k)


def foremost(weights: FloatArray, k: int | None) -> NDArray[np.int64]:
    """Which k ELMs have the largest weights or log-weights (n,); ties go to the lower index.

    Returns:
        (k,) indices, rising.

    Raises:
        TopKError: see `checked_k`.
    """
    kept = checked_k(k, len(weights))
    order = np.argsort(-np.asarray(weights, dtype=np.float64), kind="stable")
    first: NDArray[np.int64] = np.sort(order[:kept])
    return first


def keep_top(log_weights: FloatArray, k: int | None, axis: int = 0) -> FloatArray:
    """Log-weights of the k largest along an axis, renormalised; -inf for the others.

    Args:
        log_weights: (n, ...) by default. They need not be normalised.
        k: all for None.
        axis: the ELMs'.

    Returns:
        The same shape, float64. Among equal weights those of lower index are kept.

    Raises:
        TopKError: see `checked_k`.
    """
    ahead = np.moveaxis(np.asarray(log_weights, dtype=np.float64), axis, 0)
    kept = checked_k(k, len(ahead))
    if kept < len(ahead):
        ahead = np.where(_among_top(ahead, kept), ahead, -np.inf)
    return np.moveaxis(normalised(ahead), 0, axis)


def _among_top(weights: FloatArray, k: int) -> NDArray[np.bool_]:
    """Which are the k largest along the first axis, ties by index; without sorting them all."""
    limit = np.partition(weights, len(weights) - k, axis=0)[len(weights) - k]
    above = weights > limit
    equal = weights == limit
    room = k - above.sum(axis=0)
    chosen: NDArray[np.bool_] = above | (equal & (np.cumsum(equal, axis=0) <= room))
    return chosen
