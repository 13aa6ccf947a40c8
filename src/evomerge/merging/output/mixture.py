"""Fusion of scored text: a mixture of the experts' token probabilities.

    p_mix(t) = sum_i w_i p_i(t),   w_i = max(beta_i, 0) / sum_j max(beta_j, 0)

over the experts that scored that example; the loss of an example is the mean of -log p_mix over
its tokens. Only the probability of the token that stands there is known, not those of its rivals,
so that nothing can be subtracted and renormalised: a negative weight counts as 0, and alpha only
decides whether an expert takes part. The experts must cut texts into the same tokens, which who
makes the evidence has to see to. Without a positive expert every byte is guessed, log 256 nats a
byte. (The ensemble of Branch-Train-Merge, arXiv 2208.03306, section 3, with fixed weights.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.evaluation.metrics import CROSS_ENTROPY
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
from evomerge.merging.output.sparse import runs, steps
from evomerge.optimizers.blas import one_blas_thread

# A token counts for no less, in nats, so that its probability is a normal number.
_LEAST = -600.0
NATS_A_BYTE = float(np.log(256))


@dataclass(frozen=True)
class TokenScores:
    """What experts gave to the tokens of one example.

    Attributes:
        log_probs: (N, T) at most 0, T at least 1; rows of experts without an answer may be
            anything.
        answered: (N,), whether an expert scored the example.
        bytes: UTF-8 bytes of the scored text.
    """

    log_probs: FloatArray
    answered: BoolArray
    bytes: int

    def __post_init__(self) -> None:
        if self.log_probs.ndim != 2 or self.log_probs.shape[1] < 1:
            raise EvidenceError("log_probs", f"has shape {self.log_probs.shape}, must be (N, T)")
        if self.answered.shape != self.log_probs.shape[:1]:
            raise EvidenceError("answered", f"has shape {self.answered.shape}, must be (N,)")
        known = self.log_probs[self.answered]
        if not (np.isfinite(known) & (known <= 0)).all():
            raise EvidenceError("log_probs", "must be finite and at most 0")


class MixtureFusion(PoolFusion):
    """See the module, and `Fusion`.

    Args:
        evidence: of each example, at least one, of one number of experts.

    Raises:
        EvidenceError: examples of different numbers of experts, or none.
    """

    def __init__(self, evidence: Sequence[TokenScores]) -> None:
        super().__init__(pool_size([len(one.answered) for one in evidence]), len(evidence))
        self._tokens = np.array([one.log_probs.shape[1] for one in evidence])
        self._blocks = [_Block.of(evidence, rows) for rows in runs(self._tokens)]

    def kept(self, alpha: FloatArray, beta: FloatArray) -> BoolArray:
        """See `Fusion.kept`: those of positive weight."""
        return super().kept(alpha, np.maximum(beta, 0.0))

    def weights(self) -> FloatArray:
        """See `Fusion.weights`: the tokens of each example."""
        return self._tokens.astype(np.float64)

    def losses(
        self,
        alpha: FloatArray,
        beta: FloatArray,
        metric: str,
        thresholds: FloatArray | None = None,
    ) -> FloatArray:
        """See `Fusion.losses`: cross_entropy, nats a token."""
        if metric != CROSS_ENTROPY:
            raise FusionMetricError(metric, "mixtures of token probabilities give cross_entropy")
        a, b = checked(alpha, beta, self.experts)
        weights = effective(a, np.maximum(b, 0.0))
        result = np.empty((len(a), self.examples))
        for block in self._blocks:
            for step in steps(len(a), block.probabilities.shape[1]):
                result[step, block.rows] = block.nll(weights[step])
        return result

    def log_probs(self, alpha: FloatArray, beta: FloatArray) -> list[FloatArray]:
        """log p_mix of every token, by example (P, T) float64, nats.

        What `losses` are the means of, but for a guess: where no expert of positive weight
        answered, a token has none and is NaN.
        """
        a, b = checked(alpha, beta, self.experts)
        weights = effective(a, np.maximum(b, 0.0))
        return [one for block in self._blocks for one in block.log_probs(weights)]


@dataclass(frozen=True)
class _Block:
    """Examples one behind the other, their tokens end to end.

    Attributes:
        rows: which examples.
        starts: (x,), where each example's tokens begin.
        tokens: (x,), how many they are.
        probabilities: (N, tokens), p; 0 for experts without an answer.
        answered: (N, x) float64.
        guess: (x,), the loss without any expert.
    """

    rows: slice
    starts: IntArray
    tokens: IntArray
    probabilities: FloatArray
    answered: FloatArray
    guess: FloatArray

    @classmethod
    def of(cls, evidence: Sequence[TokenScores], rows: slice) -> _Block:
        some = evidence[rows]
        given = [np.exp(np.maximum(one.log_probs, _LEAST)) for one in some]
        known = [
            np.where(one.answered[:, None], p, 0.0) for p, one in zip(given, some, strict=True)
        ]
        tokens = np.array([one.log_probs.shape[1] for one in some])
        return cls(
            rows=rows,
            starts=np.cumsum(tokens) - tokens,
            tokens=tokens,
            probabilities=np.concatenate(known, axis=1),
            answered=np.array([one.answered for one in some], dtype=np.float64).T,
            guess=NATS_A_BYTE * np.array([one.bytes for one in some]) / tokens,
        )

    def nll(self, weights: FloatArray) -> FloatArray:
        """Mean negative log-likelihood of some candidates, weights (p, N) at least 0, (p, x)."""
        scale, logs = self._mixed(weights)
        sums = np.add.reduceat(logs, self.starts, axis=1)
        loss: FloatArray = np.where(np.isnan(scale), self.guess, scale - sums / self.tokens)
        return loss

    def log_probs(self, weights: FloatArray) -> list[FloatArray]:
        """Of each example's tokens (p, T), NaN where they are guessed."""
        scale, logs = self._mixed(weights)
        parts = np.split(logs, self.starts[1:], axis=1)
        return [part - scale[:, x, None] for x, part in enumerate(parts)]

    def _mixed(self, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log sum_i w_i, (p, x), NaN where it is 0; log sum_i w_i p_i, (p, tokens)."""
        with one_blas_thread():
            total = weights @ self.answered
            mixed = weights @ self.probabilities
        scale = np.log(np.where(total == 0, np.nan, total))
        # Tokens of examples that are guessed have probability 0, and no part in the result.
        return scale, np.log(np.maximum(mixed, np.finfo(np.float64).tiny))
