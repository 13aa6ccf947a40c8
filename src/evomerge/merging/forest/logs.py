"""Sums of probabilities that are held as their logarithms, and what may be one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.errors import LogProbsError

_MADE_OF = "must be at most 0 and no NaN; -inf is a probability of 0"


def log_sum(logs: FloatArray, axis: int = 0) -> FloatArray:
    """log sum exp along an axis, -inf where everything is -inf; float64, that axis taken out."""
    top = logs.max(axis=axis, keepdims=True)
    # Where everything is -inf there is nothing to scale by, and -inf - -inf would be NaN.
    shift = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        summed = np.log(np.exp(logs - shift).sum(axis=axis))
    total: FloatArray = summed + shift.squeeze(axis)
    return total


def normalised(log_weights: FloatArray, axis: int = 0) -> FloatArray:
    """log-weights less their log-sum; where all are -inf they stay so."""
    total = np.expand_dims(log_sum(log_weights, axis), axis)
    scaled: FloatArray = log_weights - np.where(np.isneginf(total), 0.0, total)
    return scaled


def checked_log_probs(log_probs: NDArray[np.floating], elms: int | None = None) -> FloatArray:
    """Log-probabilities of one text as (n, T) float64, whatever float they came in.

    Args:
        elms: n, where it is known.

    Raises:
        LogProbsError: another shape, no ELM, NaN, or above 0.
    """
    given = np.asarray(log_probs)
    if given.ndim != 2 or not len(given) or (elms is not None and len(given) != elms):
        wanted = "(n, T)" if elms is None else f"({elms}, T)"
        raise LogProbsError("log_probs", f"has shape {given.shape}, must be {wanted}")
    return checked_values(given)


def checked_values(log_probs: NDArray[np.floating]) -> FloatArray:
    """Log-probabilities of any shape as float64.

    Raises:
        LogProbsError: NaN, or above 0.
    """
    wide = np.asarray(log_probs, dtype=np.float64)
    if not (wide <= 0).all():
        raise LogProbsError("log_probs", _MADE_OF)
    return wide


def checked_log_prior(log_prior: NDArray[np.floating], elms: int | None = None) -> FloatArray:
    """A prior's logarithms, normalised, float64; -inf for ELMs that have no part.

    Args:
        log_prior: (n,), or (..., n) for many at once.
        elms: n, where it is known.

    Raises:
        LogProbsError: another shape, no ELM, NaN, +inf, or -inf for all.
    """
    wide = np.asarray(log_prior, dtype=np.float64)
    if wide.ndim == 0 or not wide.shape[-1] or (elms is not None and wide.shape[-1] != elms):
        wanted = "(n,)" if elms is None else f"({elms},)"
        raise LogProbsError("log_prior", f"has shape {wide.shape}, must be {wanted}")
    if not (wide < np.inf).all():
        raise LogProbsError("log_prior", "must be finite, or -inf for an ELM that has no part")
    if np.isneginf(wide).all(axis=-1).any():
        raise LogProbsError("log_prior", "is -inf for every ELM")
    return normalised(wide, axis=-1)
