"""The inner loops over one stretch of a tensor, compiled by numba.

Sums are float64: differences of float32 weights are exact there, and what is added up is rounded
once, at the end. What decides which entries stay is the float32 difference to the seed.

S_alpha is known by three numbers of a tensor (`Limit`), so that a stretch can be sparsified
without the rest: an entry stays if its magnitude is above `magnitude`, or equal to it and the
entry before place `ties_end`. Ties so go to the entry that comes first, as everywhere else.

The kernels release the GIL, start no threads and are kept in numba's cache on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
Values = NDArray[np.float32] | NDArray[np.float64]
Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]

# Magnitudes of float32 are ordered as their bits are; three digits of 11 bits hold all 31.
DIGIT_BITS = 11
BUCKETS = 1 << DIGIT_BITS
SHIFTS = (22, 11, 0)


def _compiled(function: F) -> F:
    compiler = partial(njit, nogil=True, fastmath={"contract", "nsz"})
    try:
        return cast("F", compiler(cache=True)(function))
    except RuntimeError:
        # Neither the package nor the user's cache folder can be written to.
        return cast("F", compiler()(function))


@_compiled
def widen(halves: NDArray[np.uint16], out: NDArray[np.uint32]) -> None:
    """out = bfloat16 values as float32, both by their bits; (L,)."""
    for j in range(halves.shape[0]):
        out[j] = np.uint32(halves[j]) << np.uint32(16)


@_compiled
def narrow(singles: NDArray[np.uint32], out: NDArray[np.uint16]) -> None:
    """out = float32 values as bfloat16, both by their bits, to the nearest, ties to even; (L,)."""
    for j in range(singles.shape[0]):
        bits = np.int64(singles[j])
        if bits & 0x7FFFFFFF > 0x7F800000:
            out[j] = 0x7FC0  # not a number
        else:
            out[j] = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


@_compiled
def within(values: Doubles, most: float) -> bool:
    """Whether all are numbers of at most this magnitude; (L,)."""
    fine = True
    for j in range(values.shape[0]):
        fine &= abs(values[j]) <= most
    return fine


@_compiled
def subtract(values: Values, seed: Values, out: NDArray[np.float32]) -> None:
    """out = values - seed; (L,) all."""
    for j in range(values.shape[0]):
        out[j] = np.float32(np.float64(values[j]) - np.float64(seed[j]))


@_compiled
def add_scaled(values: Values, weight: float, total: Doubles) -> None:
    """total += weight * values; (L,) both."""
    for j in range(values.shape[0]):
        total[j] += weight * np.float64(values[j])


@_compiled
def add_difference(values: Values, seed: Values, weight: float, total: Doubles) -> None:
    """total += weight * (values - seed); (L,) all."""
    for j in range(values.shape[0]):
        total[j] += weight * (np.float64(values[j]) - np.float64(seed[j]))


@_compiled
def add_kept(
    values: Values,
    seed: Values,
    magnitude: np.float32,
    ties_end: int,
    weight: float,
    total: Doubles,
) -> None:
    """total += weight * S(values - seed); (L,) all, `ties_end` counted from the first of them."""
    for j in range(values.shape[0]):
        difference = np.float64(values[j]) - np.float64(seed[j])
        size = abs(np.float32(difference))
        kept = size > magnitude or (size == magnitude and j < ties_end)
        total[j] += weight * difference if kept else 0.0


@_compiled
def count_digits(bits: NDArray[np.int32], shift: int, above: int, counts: Counts) -> None:
    """counts[d] += the magnitudes whose digit at `shift` is d and whose bits before it are `above`.

    Args:
        bits: (L,) of float32.
        shift: one of SHIFTS.
        above: the digits before that one; 0 for the first.
        counts: (BUCKETS,).
    """
    for j in range(bits.shape[0]):
        digits = (np.int64(bits[j]) & 0x7FFFFFFF) >> shift
        if digits >> DIGIT_BITS == above:
            counts[digits & (BUCKETS - 1)] += 1


@_compiled
def end_of_ties(bits: NDArray[np.int32], magnitude: int, wanted: int) -> tuple[int, int]:
    """Where the `wanted`-th entry of exactly this magnitude is.

    Returns:
        How many there are, at most `wanted`, and the place after the last of those.
    """
    found, end = 0, 0
    for j in range(bits.shape[0]):
        if found == wanted:
            break
        if np.int64(bits[j]) & 0x7FFFFFFF == magnitude:
            found, end = found + 1, j + 1
    return found, end
