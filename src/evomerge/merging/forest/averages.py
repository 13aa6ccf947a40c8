"""Weights of a parameter average theta = sum_i w_i theta_i (arXiv 2208.03306, section 3.3).

All are at least 0 and have sum 1, so that an average of ELMs of one seed stays among them. Signed
weights are those of merges, and are searched for.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.errors import ArgumentError, WeightsError

# uniform: 1/n each; argmax: the ELM of largest posterior alone; posterior: the cached prior of the
# target domain; custom: as given.
AverageKind = Literal["uniform", "argmax", "posterior", "custom"]

# Decimal fractions that people write do not sum to 1 in binary, only nearly.
_NEARLY = 1e-6


def uniform(elms: int) -> FloatArray:
    """1/n for each of n ELMs, (n,) float64.

    Raises:
        ArgumentError: fewer than one ELM.
    """
    if elms < 1:
        raise ArgumentError("elms", elms, "must be at least 1")
    return np.full(elms, 1 / elms)


def argmax(posterior: ArrayLike) -> FloatArray:
    """All weight on the ELM of largest posterior (n,), the first among equals, (n,) float64.

    Raises:
        WeightsError: the posterior is no distribution.
    """
    given = checked_weights(posterior, None, "posterior")
    only = np.zeros_like(given)
    only[given.argmax()] = 1.0
    return only


def average_weights(
    kind: AverageKind,
    elms: int,
    *,
    posterior: ArrayLike | None = None,
    custom: ArrayLike | None = None,
) -> FloatArray:
    """The weights of an average of n ELMs, by its kind.

    Args:
        kind: see `AverageKind`.
        elms: n.
        posterior: (n,), for argmax and posterior.
        custom: (n,), for custom.

    Returns:
        (n,) float64, at least 0, with sum 1; custom ones as they were given.

    Raises:
        ArgumentError: another kind, or fewer than one ELM.
        WeightsError: the weights that the kind needs are missing or no distribution.
    """
    if kind not in get_args(AverageKind):
        raise ArgumentError("kind", kind, f"must be one of {', '.join(get_args(AverageKind))}")
    equal = uniform(elms)
    if kind == "uniform":
        return equal
    if kind == "custom":
        return checked_weights(custom, elms, "custom")
    known = checked_weights(posterior, elms, "posterior")
    return argmax(known) if kind == "argmax" else known


def checked_weights(weights: ArrayLike | None, elms: int | None, field: str) -> FloatArray:
    """Weights of n ELMs as (n,) float64.

    Args:
        elms: n, where it is known.
        field: what the weights are called in errors.

    Raises:
        WeightsError: missing, of another shape, negative, not finite, or without sum 1.
    """
    if weights is None:
        raise WeightsError(field, None, "is needed")
    given = np.asarray(weights, dtype=np.float64)
    shown = given.tolist()
    if given.ndim != 1 or not len(given):
        raise WeightsError(field, shown, "must be a list of weights, one an ELM")
    if elms is not None and len(given) != elms:
        raise WeightsError(field, shown, f"has {len(given)} weights for {elms} ELMs")
    if not np.isfinite(given).all() or (given < 0).any():
        raise WeightsError(field, shown, "must be finite and at least 0")
    if abs(given.sum() - 1) > _NEARLY:
        raise WeightsError(field, shown, f"must have sum 1, has {given.sum():.9g}")
    return given


def checked_rows(weights: ArrayLike, elms: int, field: str) -> FloatArray:
    """Many weightings of n ELMs as (m, n) float64, each divided by its sum.

    Raises:
        WeightsError: another shape, negative, not finite, or a row without sum 1.
    """
    given = np.asarray(weights, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] != elms:
        raise WeightsError(field, given.shape, f"must have the shape (m, {elms})")
    sums = given.sum(axis=1)
    fits = (given >= 0).all(axis=1) & (abs(sums - 1) <= _NEARLY)
    if not fits.all():
        row = int(fits.argmin())
        reason = f"row {row} must be at least 0 with sum 1, has {sums[row]:.9g}"
        raise WeightsError(field, given[row].tolist(), reason)
    rows: FloatArray = given / sums[:, None]
    return rows
