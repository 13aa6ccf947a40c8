"""Fusion of free text: the answer that the experts agree with most (minimum Bayes risk).

With u_i(j) the utility of answer j to expert i, the mean of u(y_is, y_j) over the expert's own
samples s, where u is the metric of the data set with the sample as the truth:

    chosen = argmax_j sum_i beta_i S_alpha_i(u_i)(j)

over the answers j that a kept expert of positive weight gave; ties go to the answer that comes
first. S_alpha keeps the utilities above 1 - alpha, in steps of 1/20: with alpha = 1 every likeness
counts, with a small alpha only that of answers that are nearly the expert's own. (A number of
answers to keep would depend on what other experts answered.)

Nothing is written that no expert wrote. Without a positive expert nothing is said, and the loss is
that of an empty answer. (Kumar and Byrne 2004, "Minimum Bayes-Risk Decoding for Statistical Machine
Translation", with signed weights instead of probabilities.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.output.errors import EvidenceError, FusionMetricError
from evomerge.merging.output.fusion import (
    BoolArray,
    IntArray,
    PoolFusion,
    checked,
    effective,
    pool_size,
)
from evomerge.merging.output.sparse import (
    SparsePlan,
    SparseSum,
    blocks,
    first_best,
    steps,
)
from evomerge.optimizers.blas import one_blas_thread

# Steps of alpha: finer ones would not be told apart by a search, and each is a sparsified copy.
_LEVELS = 20


@dataclass(frozen=True)
class Utilities:
    """What experts said about one example, and how far they agree.

    Attributes:
        utility: (N, J) in [0, 1], u, over the J different answers; rows of experts without an
            answer may be anything.
        said: (N, J), which answers each expert gave.
        losses: by metric (J + 1,), 1 - metric of each answer against the truth, and last of an
            empty one; empty where the truth is not known.
    """

    utility: FloatArray
    said: BoolArray
    losses: Mapping[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.utility.ndim != 2 or self.said.shape != self.utility.shape:
            raise EvidenceError("utility", f"{self.utility.shape} and said must both be (N, J)")
        known = self.utility[self.said.any(axis=1)]
        if not ((known >= 0) & (known <= 1)).all():
            raise EvidenceError("utility", "must lie in [0, 1]")
        answers = self.utility.shape[1]
        for metric, losses in self.losses.items():
            if losses.shape != (answers + 1,):
                wrong = f"of {metric} has shape {losses.shape}, not ({answers + 1},)"
                raise EvidenceError("losses", wrong)


class AgreementFusion(PoolFusion):
    """See the module, and `Fusion`.

    Args:
        evidence: of each example, at least one, of one number of experts.

    Raises:
        EvidenceError: examples of different numbers of experts, or none.
    """

    def __init__(self, evidence: Sequence[Utilities]) -> None:
        super().__init__(pool_size([len(one.said) for one in evidence]), len(evidence))
        self._losses = [one.losses for one in evidence]
        counts = np.array([one.said.shape[1] for one in evidence])
        # Where nobody said anything there is nothing to choose from, and no block.
        self._blocks = [
            _Block.of([evidence[row] for row in rows], rows)
            for _, rows in blocks(counts, self.experts, _LEVELS)
        ]

    def losses(
        self,
        alpha: FloatArray,
        beta: FloatArray,
        metric: str,
        thresholds: FloatArray | None = None,
    ) -> FloatArray:
        """See `Fusion.losses`: 1 - score of the chosen answers, whatever they were chosen by."""
        if not all(self._losses):
            raise EvidenceError("losses", "are not known")
        chosen = self.chosen(alpha, beta)
        result = np.empty(chosen.shape)
        for x, losses in enumerate(self._losses):
            if metric not in losses:
                raise FusionMetricError(metric, f"these are measured by {', '.join(losses)}")
            # -1, nothing said, is the last.
            result[:, x] = losses[metric][chosen[:, x]]
        return result

    def chosen(self, alpha: FloatArray, beta: FloatArray) -> IntArray:
        """Index of each candidate's answer to each example, (P, n); -1 for none."""
        a, b = checked(alpha, beta, self.experts)
        weights = effective(a, b)
        result = np.full((len(a), self.examples), -1)
        for block in self._blocks:
            plan = block.sums.plan(a)
            for step in steps(len(a), block.size):
                result[step, block.rows] = block.chosen(plan, weights, step)
        return result


@dataclass(frozen=True)
class _Block:
    """Examples with one number of answers, answers before examples: (N, J, n) put flat.

    Attributes:
        sums: of u.
        said: (N, J * n) float32.
    """

    rows: IntArray
    answers: int
    sums: SparseSum
    said: FloatArray

    @classmethod
    def of(cls, evidence: Sequence[Utilities], rows: IntArray) -> _Block:
        said = np.array([one.said for one in evidence]).transpose(1, 2, 0)
        answered = said.any(axis=1, keepdims=True)
        utility = np.array([one.utility for one in evidence]).transpose(1, 2, 0)
        known = np.where(answered, utility, 0.0)
        # Up to rounding, so that the mean of equal utilities is on the same step as each.
        distance = np.floor(np.round((1.0 - known) * _LEVELS, 9)) / _LEVELS
        flat = (len(said), -1)
        return cls(
            rows=rows,
            answers=said.shape[1],
            sums=SparseSum(known.reshape(flat), distance.reshape(flat)),
            said=said.reshape(flat).astype(np.float32),
        )

    @property
    def size(self) -> int:
        return self.answers * len(self.rows)

    def chosen(self, plan: SparsePlan, weights: FloatArray, step: slice) -> IntArray:
        """Chosen answers of some candidates, (p, n)."""
        shape = (-1, self.answers, len(self.rows))
        beta = weights[step]
        with one_blas_thread():
            open_to = ((beta > 0).astype(np.float32) @ self.said > 0).reshape(shape)
            support = np.where(open_to, plan.sums(beta, step).reshape(shape), -np.inf)
        best: IntArray = np.where(open_to.any(axis=1), first_best(support), -1)
        return best
