"""Fusion of extraction answers: a signed vote on every item, and a threshold that is searched.

With v_i(t) the share of expert i's samples about an example that hold item t:

    vote(t) = sum_i beta_i S_alpha_i(v_i)(t) / sum_i max(beta_i, 0)

and the fused answer holds the items with vote(t) >= theta. Both sums go over the experts that
answered that example, so that the vote has no scale and theta lies in (0, 1]. S_alpha keeps the
ceil(alpha m) foremost of the expert's own m items: those with the largest shares, ties as the
expert said them. As theta is above 0, an item that no expert of positive weight names is never
kept, however its absence is weighted: negative weights only veto.

theta is each candidate's own: the value on a grid that minimises its mean loss on the search
examples; of equally good ones the one nearest to 1/2. Without a positive expert the answer holds
no item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.output.errors import EvidenceError, FusionMetricError, PopulationError
from evomerge.merging.output.fusion import (
    BoolArray,
    IntArray,
    PoolFusion,
    checked,
    effective,
    pool_size,
)
from evomerge.merging.output.sparse import SparsePlan, SparseSum, runs, steps
from evomerge.optimizers.blas import one_blas_thread

# Thresholds are 1/GRID, 2/GRID, ..., 1.
GRID = 20
# A vote this close below a threshold reaches it: sums of equal weights differ by rounding.
_SLACK = 1e-9
# Elements of the losses at all thresholds that are held at once: 2^22 float64 are 32 MB.
_SPAN = 1 << 22


@dataclass(frozen=True)
class ItemVotes:
    """What experts said about one example.

    Attributes:
        shares: (N, T) in [0, 1], v, over the T items that anyone named.
        places: (N, T), all different for one expert: the order in which it first said its items,
            which decides between equal shares. Of any value where the share is 0.
        answered: (N,), whether an expert answered at all, be it that there is nothing.
        true: (T,), which items are right; None where that is not known.
        truths: how many items are right in all, named or not.
    """

    shares: FloatArray
    places: IntArray
    answered: BoolArray
    true: BoolArray | None = None
    truths: int = 0

    def __post_init__(self) -> None:
        if self.shares.ndim != 2 or self.places.shape != self.shares.shape:
            raise EvidenceError("shares", f"{self.shares.shape} and places must both be (N, T)")
        if not ((self.shares >= 0) & (self.shares <= 1)).all():
            raise EvidenceError("shares", "must lie in [0, 1]")
        experts, items = self.shares.shape
        if self.answered.shape != (experts,):
            raise EvidenceError("answered", f"has shape {self.answered.shape}, not ({experts},)")
        if self.true is not None and (self.true.shape != (items,) or self.true.sum() > self.truths):
            raise EvidenceError("true", f"must be ({items},) with at most {self.truths} right")


class ExtractionFusion(PoolFusion):
    """See the module, and `Fusion`.

    Args:
        evidence: of each example, at least one, of one number of experts.

    Raises:
        EvidenceError: examples of different numbers of experts, or none.
    """

    def __init__(self, evidence: Sequence[ItemVotes]) -> None:
        super().__init__(pool_size([len(one.answered) for one in evidence]), len(evidence))
        self._known = all(one.true is not None for one in evidence)
        sizes = np.array([max(one.shares.shape[1], GRID + 1) for one in evidence])
        self._blocks = [_Block.of(evidence, rows) for rows in runs(sizes)]

    def fit(
        self,
        alpha: FloatArray,
        beta: FloatArray,
        metric: str,
        weights: FloatArray | None = None,
    ) -> FloatArray:
        """See `Fusion.fit`: theta of each candidate, (P,) in (0, 1]."""
        w = np.ones(self.examples) if weights is None else weights
        means = [losses @ w / w.sum() for _, losses in self._sweep(alpha, beta, metric)]
        return _best_thresholds(np.concatenate(means))

    def losses(
        self,
        alpha: FloatArray,
        beta: FloatArray,
        metric: str,
        thresholds: FloatArray | None = None,
    ) -> FloatArray:
        """See `Fusion.losses`: 1 - score of item_precision, item_recall or item_f1."""
        if thresholds is not None and not (
            thresholds.shape == (len(alpha),) and ((thresholds > 0) & (thresholds <= 1)).all()
        ):
            raise PopulationError("thresholds", f"must be ({len(alpha)},) within (0, 1]")
        parts = []
        for span, losses in self._sweep(alpha, beta, metric):
            if thresholds is None:
                theta = _best_thresholds(losses.mean(axis=2))
            else:
                theta = thresholds[span]
            level = np.ceil(theta * GRID - _SLACK).astype(np.int64) - 1
            parts.append(np.take_along_axis(losses, level[:, None, None], axis=1)[:, 0])
        return np.concatenate(parts)

    def items(self, alpha: FloatArray, beta: FloatArray, threshold: float) -> list[IntArray]:
        """Which items one candidate (N,), (N,) keeps of each example, by falling vote."""
        a, b = checked(alpha[None], beta[None], self.experts)
        weights = effective(a, b)
        found: list[IntArray] = [np.empty(0, dtype=np.int64)] * self.examples
        for block in self._blocks:
            vote = block.votes(block.sums.plan(a), weights, slice(0, 1))[0]
            level = np.floor(vote * GRID + _SLACK)
            for x, row in enumerate(range(block.rows.start, block.rows.stop)):
                own = slice(block.starts[x], block.starts[x + 1])
                keeps = np.flatnonzero(level[own] >= threshold * GRID - _SLACK)
                found[row] = keeps[np.argsort(-np.round(vote[own][keeps], 9), kind="stable")]
        return found

    def _sweep(
        self, alpha: FloatArray, beta: FloatArray, metric: str
    ) -> Iterator[tuple[slice, FloatArray]]:
        """Candidates, and their losses at every threshold, (p, GRID, n); once, in order."""
        if metric not in _LOSSES:
            raise FusionMetricError(metric, f"items are scored by {', '.join(_LOSSES)}")
        if not self._known:
            raise EvidenceError("true", "is not known, so there is no loss")
        a, b = checked(alpha, beta, self.experts)
        weights = effective(a, b)
        size = min(256, max(16, _SPAN // (GRID * self.examples)))
        for start in range(0, len(a), size):
            span = slice(start, start + size)
            losses = np.empty((len(a[span]), GRID, self.examples))
            for block in self._blocks:
                plan = block.sums.plan(a[span])
                for step in steps(len(losses), block.size):
                    vote = block.votes(plan, weights[span], step)
                    block.score(vote, _LOSSES[metric], losses[step, :, block.rows])
            yield span, losses


@dataclass(frozen=True)
class _Block:
    """Examples one behind the other, their items end to end.

    Attributes:
        rows: which examples.
        starts: (x + 1,), where each example's items begin, and where the last end.
        sums: of v, (N, items).
        answered: (N, x) float64.
        true: (items,).
        truths: (x,) float64.
    """

    rows: slice
    starts: IntArray
    sums: SparseSum
    answered: FloatArray
    true: BoolArray
    truths: FloatArray

    @classmethod
    def of(cls, evidence: Sequence[ItemVotes], rows: slice) -> _Block:
        some = evidence[rows]
        shares = [np.where(one.answered[:, None], one.shares, 0.0) for one in some]
        true = [
            np.zeros(one.shares.shape[1], bool) if one.true is None else one.true for one in some
        ]
        order = [_fractions(v, one.places) for v, one in zip(shares, some, strict=True)]
        return cls(
            rows=rows,
            starts=np.cumsum([0, *(v.shape[1] for v in shares)]),
            sums=SparseSum(np.concatenate(shares, axis=1), np.concatenate(order, axis=1)),
            answered=np.array([one.answered for one in some], dtype=np.float64).T,
            true=np.concatenate(true),
            truths=np.array([one.truths for one in some], dtype=np.float64),
        )

    @property
    def size(self) -> int:
        return max(len(self.true), len(self.truths) * (GRID + 1))

    def votes(self, plan: SparsePlan, weights: FloatArray, step: slice) -> FloatArray:
        """vote of some candidates on every item, (p, items)."""
        with one_blas_thread():
            scale = np.maximum(weights[step], 0.0) @ self.answered
            vote: FloatArray = plan.sums(weights[step], step)
        scale[scale == 0] = np.inf
        vote /= np.repeat(scale, np.diff(self.starts), axis=1)
        return vote

    def score(self, vote: FloatArray, loss: _Loss, out: FloatArray) -> None:
        """Losses of candidates at every threshold, from votes (p, items) to (p, GRID, x)."""
        p, x = len(vote), len(self.truths)
        example = np.repeat(np.arange(x), np.diff(self.starts))
        cell = (np.maximum(vote, 0.0) * GRID + _SLACK).astype(np.int64)
        # A count for each level, candidate and example, levels outermost.
        cell *= p * x
        cell += np.arange(0, p * x, x)[:, None] + example
        some, right_of = (
            np.bincount(cells.ravel(), minlength=(GRID + 1) * p * x).reshape(GRID + 1, p, x)
            for cells in (cell, cell[:, self.true])
        )
        said, right = np.zeros((p, x)), np.zeros((p, x))
        # What reaches a level reaches all below.
        for level in range(GRID, 0, -1):
            said += some[level]
            right += right_of[level]
            out[:, level - 1] = loss(said, right, self.truths)


def _best_thresholds(means: FloatArray) -> FloatArray:
    """The threshold of least mean loss, (p, GRID) -> (p,); of equals the nearest to 1/2."""
    grid = np.arange(1, GRID + 1)
    order = np.argsort(np.abs(2 * grid - GRID), kind="stable")
    # Means that are equal but for rounding are equal.
    best: FloatArray = grid[order][np.round(means, 12)[:, order].argmin(axis=1)] / GRID
    return best


def _fractions(shares: FloatArray, places: IntArray) -> FloatArray:
    """rank / m of each expert's own items by (share, place); 1 for what is not its own."""
    own = shares > 0
    order = np.lexsort((places, -shares), axis=-1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None], axis=-1)
    share: FloatArray = np.where(own, ranks / np.maximum(own.sum(axis=1, keepdims=True), 1), 1.0)
    return share


def _one_minus(score: FloatArray, said: FloatArray, truths: FloatArray) -> FloatArray:
    """1 - score; 0 where nothing is said and nothing is true."""
    loss: FloatArray = 1.0 - score - (said + truths == 0)
    return loss


def _precision(said: FloatArray, right: FloatArray, truths: FloatArray) -> FloatArray:
    return _one_minus(right / np.maximum(said, 1.0), said, truths)


def _recall(said: FloatArray, right: FloatArray, truths: FloatArray) -> FloatArray:
    return _one_minus(right / np.maximum(truths, 1.0), said, truths)


def _f1(said: FloatArray, right: FloatArray, truths: FloatArray) -> FloatArray:
    return _one_minus(2 * right / np.maximum(said + truths, 1.0), said, truths)


# From items said, right and true, (p, x), (p, x) and (x,), to losses (p, x).
_Loss: TypeAlias = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
_LOSSES: Mapping[str, _Loss] = {
    "item_precision": _precision,
    "item_recall": _recall,
    "item_f1": _f1,
}
