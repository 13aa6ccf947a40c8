"""Fusion of multiple-choice answers: the signed log-linear pool of option probabilities.

With l_i(c) = log p_i(c | x) over the options C of example x:

    z_i(c) = l_i(c) - mean_c l_i(c)                       (offsets do not count)
    p*(c) proportional to exp sum_i beta_i S_alpha_i(z_i)(c)

S_alpha keeps the ceil(alpha |C|) largest |z|, ties to the option that comes first.

A negative weight tells apart only what some expert with a positive weight finds plausible (as in
contrastive decoding, Li et al. 2022, arXiv 2210.15097): the head H(x) holds every option c with
p_i(c) >= a max_c p_i(c) for a kept expert i of positive weight. An option outside gets, for all
negative experts together, what the head's least favoured option gets from them: an option is never
lifted above a plausible one by being disliked. Without a positive expert the result is a guess, all
options alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from evomerge.evaluation.metrics import CROSS_ENTROPY
from evomerge.evaluation.objective import FloatArray
from evomerge.merging.output.errors import EvidenceError, FusionMetricError
from evomerge.merging.output.fusion import IntArray, PoolFusion, checked, effective
from evomerge.merging.output.sparse import (
    SparsePlan,
    SparseSum,
    blocks,
    first_best,
    fractions,
    steps,
)
from evomerge.optimizers.blas import one_blas_thread

HEAD = 0.1


class ChoiceFusion(PoolFusion):
    """See the module, and `Fusion`.

    Args:
        log_probs: (n, N, C) float64, l, up to any offset for each expert and example; options
            that an example does not have are padding, of any value. NaN among an example's
            options: the expert has no answer to it.
        options: (n,) at least 1, how many options each example has.
        truth: (n,) index of the right option; None where only fused answers are wanted.
        head: a in [0, 1], how plausible an option must be, relative to the best.

    Raises:
        EvidenceError: shapes that do not fit, or values out of range.
    """

    def __init__(
        self,
        log_probs: FloatArray,
        options: IntArray,
        truth: IntArray | None = None,
        *,
        head: float = HEAD,
    ) -> None:
        self._check(log_probs, options, truth, head)
        examples, experts, self._width = log_probs.shape
        super().__init__(experts, examples)
        self._blocks = [
            _Block.of(log_probs[rows][:, :, :m], rows, None if truth is None else truth[rows], head)
            for m, rows in blocks(options, self.experts)
        ]

    def losses(
        self,
        alpha: FloatArray,
        beta: FloatArray,
        metric: str,
        thresholds: FloatArray | None = None,
    ) -> FloatArray:
        """See `Fusion.losses`: cross_entropy in nats, or choice_accuracy as 0 or 1."""
        if metric not in (CROSS_ENTROPY, "choice_accuracy"):
            raise FusionMetricError(metric, "choices are scored by cross_entropy, choice_accuracy")
        loss = _cross_entropy if metric == CROSS_ENTROPY else _misses
        result = np.empty((len(alpha), self.examples))
        for block, step, scores in self._pooled(alpha, beta):
            if block.truth is None:
                raise EvidenceError("truth", "is not known, so there is no loss")
            result[step, block.rows] = loss(scores, block.truth)
        return result

    def distributions(self, alpha: FloatArray, beta: FloatArray) -> FloatArray:
        """p* of every candidate, (P, n, C) float64; 0 for padding."""
        result = np.zeros((len(alpha), self.examples, self._width))
        for block, step, scores in self._pooled(alpha, beta):
            result[step, block.rows, : block.options] = _softmax(scores).swapaxes(1, 2)
        return result

    def answers(self, alpha: FloatArray, beta: FloatArray) -> IntArray:
        """Index of each candidate's option, (P, n): the likeliest, the first of equals."""
        result = np.empty((len(alpha), self.examples), dtype=np.int64)
        for block, step, scores in self._pooled(alpha, beta):
            result[step, block.rows] = first_best(scores)
        return result

    def _pooled(
        self, alpha: FloatArray, beta: FloatArray
    ) -> Iterator[tuple[_Block, slice, FloatArray]]:
        """Examples, candidates, and their unnormalised log p*, (p, m, n)."""
        a, b = checked(alpha, beta, self.experts)
        weights = effective(a, b)
        for block in self._blocks:
            plan = block.sums.plan(a)
            for step in steps(len(a), block.size):
                yield block, step, block.pooled(plan, weights[step], step)

    @staticmethod
    def _check(
        log_probs: FloatArray, options: IntArray, truth: IntArray | None, head: float
    ) -> None:
        if log_probs.ndim != 3 or 0 in log_probs.shape:
            raise EvidenceError("log_probs", f"has shape {log_probs.shape}, must be (n, N, C)")
        n, _, widest = log_probs.shape
        if options.shape != (n,) or options.min() < 1 or options.max() > widest:
            raise EvidenceError("options", f"must be ({n},) from 1 to {widest}")
        own = np.arange(widest) < options[:, None, None]
        if np.isinf(log_probs[np.broadcast_to(own, log_probs.shape)]).any():
            raise EvidenceError("log_probs", "must be finite, or NaN where there is no answer")
        if truth is not None and (
            truth.shape != (n,) or (truth < 0).any() or (truth >= options).any()
        ):
            raise EvidenceError("truth", f"must be ({n},), each an option of its example")
        if not 0 <= head <= 1:
            raise EvidenceError("head", f"is {head}, must lie in [0, 1]")


def fuse_choice(
    log_probs: FloatArray, alpha: FloatArray, beta: FloatArray, *, head: float = HEAD
) -> FloatArray:
    """The fused distribution over the options of one example, (C,) float64.

    Args:
        log_probs: (N, C), as in `ChoiceFusion`; NaN for an expert without an answer.
        alpha, beta: (N,).
    """
    fusion = ChoiceFusion(log_probs[None], np.array([log_probs.shape[1]]), head=head)
    fused: FloatArray = fusion.distributions(alpha[None], beta[None])[0, 0]
    return fused


@dataclass(frozen=True)
class _Block:
    """Examples with one number of options, options before examples: (N, m, n) put flat.

    Attributes:
        sums: of z.
        plausible: (N, m * n) float32, 1 where an expert finds an option plausible.
    """

    rows: IntArray
    options: int
    sums: SparseSum
    plausible: FloatArray
    truth: IntArray | None

    @classmethod
    def of(
        cls, log_probs: FloatArray, rows: IntArray, truth: IntArray | None, head: float
    ) -> _Block:
        """Of log_probs (n, N, m)."""
        n, experts, m = log_probs.shape
        answered = ~np.isnan(log_probs).any(axis=2, keepdims=True)
        known = np.where(answered, log_probs, 0.0)
        z = known - known.mean(axis=2, keepdims=True)
        # log a + max l, compared without a logarithm of 0.
        above = np.exp(known - known.max(axis=2, keepdims=True)) >= head
        flat = (experts, m * n)
        return cls(
            rows=rows,
            options=m,
            sums=SparseSum(
                z.transpose(1, 2, 0).reshape(flat),
                fractions(np.abs(z)).transpose(1, 2, 0).reshape(flat),
            ),
            plausible=(above & answered).transpose(1, 2, 0).reshape(flat).astype(np.float32),
            truth=truth,
        )

    @property
    def size(self) -> int:
        return self.options * len(self.rows)

    def pooled(self, plan: SparsePlan, beta: FloatArray, step: slice) -> FloatArray:
        """Unnormalised log p* of some candidates with weights beta (p, N), (p, m, n)."""
        shape = (-1, self.options, len(self.rows))
        with one_blas_thread():
            scores = plan.sums(np.maximum(beta, 0.0), step).reshape(shape)
            if not (beta < 0).any():
                return scores
            against = plan.sums(np.minimum(beta, 0.0), step).reshape(shape)
            head = ((beta > 0).astype(np.float32) @ self.plausible > 0).reshape(shape)
        least = np.where(head, against, np.inf).min(axis=1, keepdims=True)
        least[np.isinf(least)] = 0.0
        scores += np.where(head, against, least)
        return scores


def _cross_entropy(scores: FloatArray, truth: IntArray) -> FloatArray:
    """-log p* of the right options, (p, m, n) -> (p, n)."""
    right = scores[:, truth, np.arange(len(truth))]
    top = scores.max(axis=1)
    total = np.exp(scores - top[:, None]).sum(axis=1)
    loss: FloatArray = np.log(total) + (top - right)
    return loss


def _misses(scores: FloatArray, truth: IntArray) -> FloatArray:
    """1 where another option is the answer, (p, m, n) -> (p, n)."""
    wrong: FloatArray = (first_best(scores) != truth).astype(np.float64)
    return wrong


def _softmax(scores: FloatArray) -> FloatArray:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    p: FloatArray = raised / raised.sum(axis=1, keepdims=True)
    return p
