"""Bootstrap intervals of weighted mean losses.

BCa intervals (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 14): they
correct the percentile interval for bias and skew, which small held-out sets of losses have.
Examples are resampled within their dataset (stratified), pairs of loss and weight together, so
that each resampled mean is a ratio as the mean itself is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from evomerge.evaluation.errors import InvalidArgumentError
from evomerge.evaluation.objective import FloatArray, Objective

RESAMPLES = 9_999
# Draws of one block of resamples, so that a block stays in the cache whatever the size.
_BLOCK = 2**18


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a mean."""

    low: float
    high: float
    level: float = 0.95


def weighted_mean(losses: FloatArray, weights: FloatArray) -> float:
    """sum w l / sum w of one dataset; (n,), (n,) -> float.

    Raises:
        InvalidArgumentError: shapes differ, or the weights are no weights.
    """
    return float(Objective((np.asarray(losses).size,)).means(losses, weights))


def bootstrap_interval(
    losses: FloatArray,
    weights: FloatArray,
    objective: Objective | None = None,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Interval of one mean loss; also of a paired difference, given losses a - b.

    Args:
        losses: (n,) float64, or their paired differences.
        weights: (n,) float64, at least 0; examples of weight 0 count as absent.
        objective: how the examples fall into datasets; one dataset without it.
        seed: of the resampling.

    Returns:
        None where the data cannot tell: a dataset with fewer than two weighted examples, or a
        loss that is not finite.

    Raises:
        InvalidArgumentError: shapes, weights, level or resamples are wrong.
    """
    rows = np.asarray(losses, dtype=np.float64)[None]
    return bootstrap_intervals(
        rows, weights, objective, seed=seed, level=level, resamples=resamples
    )[0]


def bootstrap_intervals(
    losses: FloatArray,
    weights: FloatArray,
    objective: Objective | None = None,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> list[Interval | None]:
    """`bootstrap_interval` of each row of losses (rows, n), all on the same resamples."""
    if not 0 < level < 1:
        raise InvalidArgumentError("level", level, "must lie between 0 and 1")
    if resamples < 100:
        raise InvalidArgumentError("resamples", resamples, "must be at least 100")
    losses = np.asarray(losses, dtype=np.float64)
    if losses.ndim != 2:
        raise InvalidArgumentError("losses", losses.shape, "must have the axes (rows, examples)")
    found: list[Interval | None] = [None] * len(losses)
    losses, weights, objective = _weighted_only(
        losses, weights, objective or Objective((losses.shape[1],))
    )
    means = objective.means(losses, weights)
    finite = np.flatnonzero(np.isfinite(losses).all(axis=1))
    if min(objective.sizes) < 2 or not finite.size:
        return found
    drawn = bootstrap_means(losses[finite], weights, objective, seed=seed, resamples=resamples)
    skews = _accelerations(losses[finite], weights, objective)
    for row, number in enumerate(finite):
        found[number] = _bca(drawn[:, row], float(means[number]), float(skews[row]), level)
    return found


def bootstrap_means(
    losses: FloatArray, weights: FloatArray, objective: Objective, *, seed: int, resamples: int
) -> FloatArray:
    """Objectives of resampled examples, (rows, n) -> (resamples, rows) float64.

    A function of its arguments alone: the generator is its own. Weights must be above 0.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros((resamples, len(losses)))
    for part, share in zip(objective.slices, objective.shares, strict=True):
        w = weights[part]
        weighted = (losses[:, part] * w).T
        for block in _blocks(resamples, w.size):
            drawn = _counts(rng, block.stop - block.start, w.size)
            total[block] += share * (drawn @ weighted) / (drawn @ w)[:, None]
    return total


def _counts(rng: np.random.Generator, resamples: int, n: int) -> FloatArray:
    """How often each of n examples is drawn in n draws with replacement, (resamples, n)."""
    cells = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=resamples * n)
    # Floats, because numpy multiplies integer matrices without BLAS.
    return counts.reshape(resamples, n).astype(np.float64)


def _blocks(resamples: int, examples: int) -> Iterator[slice]:
    step = max(1, _BLOCK // examples)
    for start in range(0, resamples, step):
        yield slice(start, min(start + step, resamples))


def _weighted_only(
    losses: FloatArray, weights: FloatArray, objective: Objective
) -> tuple[FloatArray, FloatArray, Objective]:
    """The same without the examples of weight 0, which no resample may consist of."""
    keep = objective.example_weights(weights) > 0
    if losses.shape[1] != keep.size:
        raise InvalidArgumentError("losses", losses.shape, f"must hold {keep.size} examples")
    sizes = tuple(int(keep[part].sum()) for part in objective.slices)
    return (
        losses[:, keep],
        np.asarray(weights, np.float64)[keep],
        Objective(sizes, objective.weights),
    )


def _accelerations(losses: FloatArray, weights: FloatArray, objective: Objective) -> FloatArray:
    """BCa's a of each row by the jackknife, several samples (E&T, equations 14.15 and 14.29).

    With u_di = (n_d - 1)(mean of the left-out means of d - the mean without i):
    a = 1/6 sum u^3 / n_d^3 / (sum u^2 / n_d^2)^(3/2).
    """
    third, second = np.zeros(len(losses)), np.zeros(len(losses))
    for part, share in zip(objective.slices, objective.shares, strict=True):
        w = weights[part]
        weighted = losses[:, part] * w
        without = (weighted.sum(axis=1, keepdims=True) - weighted) / (w.sum() - w)
        u = share * (w.size - 1) * (without.mean(axis=1, keepdims=True) - without)
        third += (u**3).sum(axis=1) / w.size**3
        second += (u**2).sum(axis=1) / w.size**2
    spread = second > 0
    return np.where(spread, third / 6 / np.where(spread, second, 1.0) ** 1.5, 0.0)


def _bca(drawn: FloatArray, mean: float, acceleration: float, level: float) -> Interval:
    """The BCa interval out of resampled means (E&T, equations 14.9, 14.10 and 14.14)."""
    normal = NormalDist()
    # Ties count half, as they do for discrete scores; half a draw keeps the quantile finite.
    below = (np.sum(drawn < mean) + np.sum(drawn == mean) / 2) / drawn.size
    edge = 0.5 / drawn.size
    bias = normal.inv_cdf(float(np.clip(below, edge, 1 - edge)))
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        shifted = bias + normal.inv_cdf(tail)
        # |a| is at most 1/6; only levels near 1 bring the divisor to its pole.
        ends.append(normal.cdf(bias + shifted / max(1 - acceleration * shifted, 1e-9)))
    low, high = np.quantile(drawn, ends)
    return Interval(float(low), float(high), level)
