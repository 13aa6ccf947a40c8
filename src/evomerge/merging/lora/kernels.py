"""The inner loops of merging, compiled by numba: sums over experts for a whole population.

Every kernel works on one module, whose factors of all experts are the rows of one matrix
(N experts, L). It walks over blocks of columns small enough for the cache and, within one, over
four experts and one or two candidates at a time, so that what is loaded serves several
multiplications; the loop over columns is what the compiler turns into SIMD. An element of the
output is summed by one thread in the order of the experts, so its bits never depend on how many
threads run.

The kernels release the GIL and start no threads: callers run several modules beside each other.
They are compiled at first use and kept in numba's cache on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Ranks = NDArray[np.uint16] | NDArray[np.int32]

# Columns at a time: long enough to stream from memory, short enough that the sums stay cached.
_BLOCK = 1024
# Half of it where places by magnitude lie in the cache beside the values, and there one candidate
# at a time: the limits of two would not fit the registers.
_MASKED_BLOCK = 512
_DIGIT_BITS = 11
_BUCKETS = 1 << _DIGIT_BITS
_MAGNITUDE_BITS = 31


def _compiled(function: F) -> F:
    # "contract" lets a product and a sum become one fused instruction; the order of the sum stays.
    compiler = partial(njit, nogil=True, fastmath={"contract", "nsz"})
    try:
        return cast("F", compiler(cache=True)(function))
    except RuntimeError:
        # Neither the package nor the user's cache folder can be written to: numba then refuses
        # to cache, and compiling anew in every process is all that is left.
        return cast("F", compiler()(function))


@_compiled
def _weight(weights: Floats, candidate: int, expert: int) -> np.float32:
    """Zero for the experts and candidates that fill up the last tile."""
    weight: np.float32 = np.float32(0.0)
    if candidate < weights.shape[0] and expert < weights.shape[1]:
        weight = weights[candidate, expert]
    return weight


@_compiled
def _sums(out: Floats, candidate: int, start: int, width: int, spare: Floats) -> Floats:
    """The partial sums of a candidate; `spare` for the one that fills up the last tile."""
    # Cut from a whole row, so that the compiler knows its elements to be neighbours.
    if candidate < out.shape[0]:
        return out[candidate, start : start + width]
    return spare[:width]


@_compiled
def _idle(weights: Floats, candidate: int, first: int) -> bool:
    """Whether a tile of two candidates and four experts has no weight at all."""
    last_candidate = min(candidate + 2, weights.shape[0])
    last_expert = min(first + 4, weights.shape[1])
    for p in range(candidate, last_candidate):
        for i in range(first, last_expert):
            if weights[p, i] != 0:
                return False
    return True


@_compiled
def _add_four(
    v0: Floats,
    v1: Floats,
    v2: Floats,
    v3: Floats,
    weights: Floats,
    first: int,
    start: int,
    out: Floats,
    spare: Floats,
) -> None:
    """out[p, start:] += weights[p, first] * v0 + ... + weights[p, first + 3] * v3."""
    width = v0.shape[0]
    for p in range(0, out.shape[0], 2):
        if _idle(weights, p, first):
            continue
        a0, a1 = _weight(weights, p, first), _weight(weights, p, first + 1)
        a2, a3 = _weight(weights, p, first + 2), _weight(weights, p, first + 3)
        b0, b1 = _weight(weights, p + 1, first), _weight(weights, p + 1, first + 1)
        b2, b3 = _weight(weights, p + 1, first + 2), _weight(weights, p + 1, first + 3)
        one, two = _sums(out, p, start, width, spare), _sums(out, p + 1, start, width, spare)
        for j in range(width):
            t, u = one[j], two[j]
            t += a0 * v0[j]
            u += b0 * v0[j]
            t += a1 * v1[j]
            u += b1 * v1[j]
            t += a2 * v2[j]
            u += b2 * v2[j]
            t += a3 * v3[j]
            u += b3 * v3[j]
            one[j], two[j] = t, u


@_compiled
def weighted_sum(values: Floats, weights: Floats, out: Floats) -> None:
    """out[p] = sum_i weights[p, i] * values[i].

    Args:
        values: (N, L).
        weights: (P, N).
        out: (P, L), written over.
    """
    experts, length = values.shape
    last = experts - 1
    spare = np.zeros(_BLOCK, np.float32)
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        out[:, start:stop] = 0.0
        for first in range(0, experts, 4):
            _add_four(
                values[first, start:stop],
                values[min(first + 1, last), start:stop],
                values[min(first + 2, last), start:stop],
                values[min(first + 3, last), start:stop],
                weights,
                first,
                start,
                out,
                spare,
            )


@_compiled
def masked_sum(values: Floats, ranks: Ranks, keep: Ints, weights: Floats, out: Floats) -> None:
    """out[p] = sum_i weights[p, i] * (values[i] where ranks[i] < keep[i], else 0).

    Every candidate keeps the same, so that an expert is masked once.

    Args:
        values: (N, L).
        ranks: (N, L), the place of each value by magnitude, from 0.
        keep: (N,), how many to keep.
        weights: (P, N).
        out: (P, L), written over.
    """
    experts, length = values.shape
    masked = np.empty((4, _BLOCK), np.float32)
    spare = np.zeros(_BLOCK, np.float32)
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        width = stop - start
        out[:, start:stop] = 0.0
        for first in range(0, experts, 4):
            for q in range(4):
                i = min(first + q, experts - 1)
                _mask(values[i, start:stop], ranks[i, start:stop], keep[i], masked[q])
            _add_four(
                masked[0, :width],
                masked[1, :width],
                masked[2, :width],
                masked[3, :width],
                weights,
                first,
                start,
                out,
                spare,
            )


@_compiled
def masked_sums(values: Floats, ranks: Ranks, keep: Ints, weights: Floats, out: Floats) -> None:
    """out[p] = sum_i weights[p, i] * (values[i] where ranks[i] < keep[p, i], else 0).

    As `masked_sum`, but each candidate keeps its own number: keep is (P, N).
    """
    experts, length = values.shape
    last = experts - 1
    # Widened once for all candidates: comparing 32-bit lanes is what the floats' mask needs.
    wide = np.empty((4, _MASKED_BLOCK), np.int32)
    for start in range(0, length, _MASKED_BLOCK):
        stop = min(start + _MASKED_BLOCK, length)
        out[:, start:stop] = 0.0
        for first in range(0, experts, 4):
            i1, i2, i3 = min(first + 1, last), min(first + 2, last), min(first + 3, last)
            _widen(ranks[first, start:stop], wide[0])
            _widen(ranks[i1, start:stop], wide[1])
            _widen(ranks[i2, start:stop], wide[2])
            _widen(ranks[i3, start:stop], wide[3])
            r0, r1, r2, r3 = wide[0], wide[1], wide[2], wide[3]
            v0, v1 = values[first, start:stop], values[i1, start:stop]
            v2, v3 = values[i2, start:stop], values[i3, start:stop]
            for p in range(out.shape[0]):
                w0, w1 = _weight(weights, p, first), _weight(weights, p, first + 1)
                w2, w3 = _weight(weights, p, first + 2), _weight(weights, p, first + 3)
                if w0 == 0 and w1 == 0 and w2 == 0 and w3 == 0:
                    continue
                k0, k1, k2, k3 = keep[p, first], keep[p, i1], keep[p, i2], keep[p, i3]
                sums = out[p, start:stop]
                for j in range(stop - start):
                    total = sums[j]
                    total += w0 * (v0[j] if r0[j] < k0 else np.float32(0.0))
                    total += w1 * (v1[j] if r1[j] < k1 else np.float32(0.0))
                    total += w2 * (v2[j] if r2[j] < k2 else np.float32(0.0))
                    total += w3 * (v3[j] if r3[j] < k3 else np.float32(0.0))
                    sums[j] = total


@_compiled
def masked_copy(values: Floats, ranks: Ranks, keep: Ints, out: Floats) -> None:
    """out[i] = values[i] where ranks[i] < keep[i], else 0; keep is (N,), the rest (N, L)."""
    for i in range(values.shape[0]):
        _mask(values[i], ranks[i], keep[i], out[i])


@_compiled
def largest_copy(values: Floats, keep: Ints, out: Floats) -> None:
    """out[i] = the keep[i] values[i] of largest magnitude (of equals the first), else 0.

    What `masked_copy` does with places by magnitude, without them: they are a quarter of the
    memory of the pool. Each row's smallest magnitude that is kept is found digit by digit.

    Args:
        values: (N, L) finite.
        keep: (N,).
        out: (N, L), written over.
    """
    counts = np.empty(_BUCKETS, np.int64)
    for i in range(values.shape[0]):
        if keep[i] <= 0:
            out[i] = 0.0
        elif keep[i] >= values.shape[1]:
            out[i] = values[i]
        else:
            _copy_largest(values[i], keep[i], counts, out[i])


@_compiled
def _copy_largest(values: Floats, kept: int, counts: NDArray[np.int64], out: Floats) -> None:
    bits = values.view(np.int32)
    limit, equals = np.int32(0), np.int64(kept)
    for shift in range(2 * _DIGIT_BITS, -1, -_DIGIT_BITS):
        counts[:] = 0
        for j in range(values.shape[0]):
            key = (bits[j] & np.int32(0x7FFFFFFF)) >> shift
            if key >> _DIGIT_BITS == limit:
                counts[key & (_BUCKETS - 1)] += 1
        digit = _BUCKETS - 1
        while counts[digit] < equals:
            equals -= counts[digit]
            digit -= 1
        limit = np.int32(limit << _DIGIT_BITS | digit)
    for j in range(values.shape[0]):
        out[j] = values[j] if bits[j] & np.int32(0x7FFFFFFF) > limit else np.float32(0.0)
    for j in range(values.shape[0]):
        if equals == 0:
            break
        if bits[j] & np.int32(0x7FFFFFFF) == limit:
            out[j] = values[j]
            equals -= 1


@_compiled
def _mask(values: Floats, ranks: Ranks, kept: int, out: Floats) -> None:
    limit = np.int32(kept)
    for j in range(values.shape[0]):
        out[j] = values[j] if np.int32(ranks[j]) < limit else np.float32(0.0)


@_compiled
def _widen(ranks: Ranks, out: Ints) -> None:
    for j in range(ranks.shape[0]):
        out[j] = ranks[j]


@_compiled
def rank_by_magnitude(values: Floats, out: Ranks) -> None:
    """out[j] = the place of values[j] in stable order of falling magnitude, from 0.

    A radix sort on the bits of the magnitude, whose order is that of the floats. Digits that all
    values share are skipped; of values that were bfloat16 on disk that is half of the work.

    Args:
        values: (L,) finite.
        out: (L,), of a type that holds L - 1.
    """
    length = values.shape[0]
    keys = values.view(np.uint32)
    order, spare = np.arange(length), np.empty(length, np.int64)
    counts = np.empty(_BUCKETS, np.int64)
    for shift in range(0, _MAGNITUDE_BITS, _DIGIT_BITS):
        counts[:] = 0
        for j in range(length):
            counts[_digit(keys[j], shift)] += 1
        if counts[_digit(keys[0], shift)] == length:
            continue
        total = 0
        for digit in range(_BUCKETS):
            here = counts[digit]
            counts[digit] = total
            total += here
        for position in range(length):
            j = order[position]
            bucket = _digit(keys[j], shift)
            spare[counts[bucket]] = j
            counts[bucket] += 1
        order, spare = spare, order
    for position in range(length):
        out[order[position]] = position


@_compiled
def _digit(key: np.uint32, shift: int) -> np.int64:
    """A digit of the magnitude, turned round so that the largest comes first; sign cut off."""
    return np.int64(_BUCKETS - 1) - ((np.int64(key) & 0x7FFFFFFF) >> shift & (_BUCKETS - 1))
