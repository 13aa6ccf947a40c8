"""The paired sign-flip permutation test on mean losses.

If two contenders are equally good, then on each example either could have had the other's
loss: every difference keeps its size and takes either sign (Fisher 1935; Good, Permutation,
Parametric and Bootstrap Tests of Hypotheses, 2005, section 3.7). The p-value is the share of
sign patterns whose weighted mean difference is at least as far from zero as the observed one.
"""

from __future__ import annotations

import numpy as np

from evomerge.evaluation.errors import InvalidArgumentError
from evomerge.evaluation.objective import FloatArray, Objective

PATTERNS = 9_999
# Up to this many differing examples all 2^n patterns are tried.
EXACT_UP_TO = 16
_BLOCK = 2**18


def paired_p_value(
    first: FloatArray,
    second: FloatArray,
    weights: FloatArray,
    objective: Objective | None = None,
    *,
    seed: int,
    patterns: int = PATTERNS,
) -> float | None:
    """Two-sided p-value of the two mean losses being equal.

    Args:
        first, second: (n,) float64 losses of two contenders on the same examples.
        weights: (n,) float64, how much each example counts.
        objective: how the examples fall into datasets; one dataset without it.
        seed: of the random patterns, drawn where too many examples differ to try all.
        patterns: how many are drawn; the observed one counts with them, so that p is never 0
            (Phipson & Smyth 2010).

    Returns:
        1 where nothing differs; None where a loss that counts is not finite.

    Raises:
        InvalidArgumentError: shapes or weights are wrong, or patterns is below 1.
    """
    if patterns < 1:
        raise InvalidArgumentError("patterns", patterns, "must be at least 1")
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    objective = objective or Objective((a.size,))
    counts = objective.example_weights(weights)
    for name, losses in (("first", a), ("second", b)):
        if losses.shape != counts.shape:
            raise InvalidArgumentError(name, losses.shape, f"must have shape {counts.shape}")
    a, b, counts = a[counts > 0], b[counts > 0], counts[counts > 0]
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    # Examples without a difference keep their zero under either sign.
    terms = (counts * (a - b))[a != b]
    if terms.size <= EXACT_UP_TO:
        return _exact(terms)
    return _drawn(terms, seed, patterns)


def _exact(terms: FloatArray) -> float:
    """Over all sign patterns; (n,) with n at most `EXACT_UP_TO`."""
    numbers = np.arange(2**terms.size)[:, None]
    signs = 1.0 - 2.0 * ((numbers >> np.arange(terms.size)) & 1)
    return float(np.mean(_as_far(signs @ terms, terms)))


def _drawn(terms: FloatArray, seed: int, patterns: int) -> float:
    """Over the observed pattern and random ones."""
    rng = np.random.default_rng(seed)
    far, left = 1, patterns
    while left:
        size = min(left, max(1, _BLOCK // terms.size))
        raw = np.frombuffer(rng.bytes(size * -(-terms.size // 8)), dtype=np.uint8)
        flipped = np.unpackbits(raw.reshape(size, -1), axis=1, count=terms.size)
        sums = terms.sum() - 2.0 * (flipped.astype(np.float64) @ terms)
        far += int(_as_far(sums, terms).sum())
        left -= size
    return far / (patterns + 1)


def _as_far(sums: FloatArray, terms: FloatArray) -> np.ndarray[tuple[int, ...], np.dtype[np.bool]]:
    """Which sums are as far from zero as that of the terms, but for rounding."""
    rounding = 1e-12 * np.abs(terms).sum()
    far: np.ndarray[tuple[int, ...], np.dtype[np.bool]] = (
        np.abs(sums) >= abs(terms.sum()) - rounding
    )
    return far
