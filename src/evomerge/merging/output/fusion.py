"""What every fusion of answers does, whatever the answers are.

A fusion holds what N experts said about n examples, and scores any population of candidates from
it: alpha and beta are (P, N), as `Candidate.alpha` and `.beta` of one group put on each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluation.example import DatasetKind
from evomerge.evaluation.metrics import CROSS_ENTROPY, SCORES
from evomerge.evaluation.objective import FloatArray
from evomerge.merging.output.errors import EvidenceError, FusionMetricError, PopulationError

BoolArray: TypeAlias = NDArray[np.bool_]
IntArray: TypeAlias = NDArray[np.int64]
FusionKind = Literal["choice", "extraction", "free_text", "scored_text"]

# An expert of which less than this is kept is not asked at all: with the usual handful of options
# or items, any alpha above 0 would keep one, and no search hits 0 itself.
CUT = 0.05


class Fusion(Protocol):
    """Candidates' losses from answers that were given once.

    Whatever a dropped expert said (see `kept`) changes nothing. An expert without an answer to an
    example counts there as if it were not in the pool. A candidate that keeps no expert with a
    positive weight knows nothing and guesses; each fusion says what its guess is.
    """

    @property
    def experts(self) -> int: ...

    @property
    def examples(self) -> int: ...

    def kept(self, alpha: FloatArray, beta: FloatArray) -> BoolArray:
        """Which experts a candidate calls, (P, N) bool."""
        ...

    def weights(self) -> FloatArray:
        """How much each example counts, (n,) float64: its tokens for scored text, else 1."""
        ...

    def fit(
        self,
        alpha: FloatArray,
        beta: FloatArray,
        metric: str,
        weights: FloatArray | None = None,
    ) -> FloatArray | None:
        """What a candidate takes from the search examples beside alpha and beta.

        Args:
            weights: (n,), how much each example counts; all alike unless given.

        Returns:
            (P,) float64 thresholds; None for fusions that have none.
        """
        ...

    def losses(
        self,
        alpha: FloatArray,
        beta: FloatArray,
        metric: str,
        thresholds: FloatArray | None = None,
    ) -> FloatArray:
        """Loss of every candidate on every example, (P, n) float64, lower is better.

        Args:
            thresholds: (P,) from `fit` on the search examples; without them they are fitted on
                these very examples.

        Raises:
            PopulationError: alpha or beta does not fit.
            FusionMetricError: this fusion does not measure that.
            EvidenceError: the true answers are not known.
        """
        ...


class PoolFusion:
    """What most fusions have alike: who takes part, each example counting 1, nothing fitted.

    Args:
        experts: N.
        examples: n.
    """

    def __init__(self, experts: int, examples: int) -> None:
        self.experts = experts
        self.examples = examples

    def kept(self, alpha: FloatArray, beta: FloatArray) -> BoolArray:
        """See `Fusion.kept`."""
        return kept(*checked(alpha, beta, self.experts))

    def weights(self) -> FloatArray:
        """See `Fusion.weights`: 1 each."""
        return np.ones(self.examples)

    def fit(
        self,
        alpha: FloatArray,
        beta: FloatArray,
        metric: str,
        weights: FloatArray | None = None,
    ) -> FloatArray | None:
        """See `Fusion.fit`: nothing is fitted here."""
        return None


def pool_size(experts: Sequence[int]) -> int:
    """N, from how many experts each example has evidence of.

    Raises:
        EvidenceError: no example, or examples of different numbers of experts.
    """
    if len(set(experts)) != 1:
        raise EvidenceError("evidence", "must be examples of one pool, at least one")
    return experts[0]


def kept(alpha: FloatArray, beta: FloatArray) -> BoolArray:
    """Experts that take part, (P, N): alpha of at least `CUT`, beta not 0, beside a positive one.

    Negative weights take something away from what the positive ones say; where nobody says
    anything there is nothing to take away, and nobody is called.
    """
    taking_part = (alpha >= CUT) & (beta != 0)
    some: BoolArray = taking_part & (taking_part & (beta > 0)).any(axis=1, keepdims=True)
    return some


def effective(alpha: FloatArray, beta: FloatArray) -> FloatArray:
    """beta with 0 for the experts that a candidate drops, (P, N)."""
    weights: FloatArray = np.where(kept(alpha, beta), beta, 0.0)
    return weights


def cost_share(kept: BoolArray, costs: FloatArray) -> FloatArray:
    """Share of the experts' cost that each candidate keeps, (P,) float64 in [0, 1].

    Args:
        kept: (P, N).
        costs: (N,) at least 0, what a question to each expert costs, in any unit; where all are
            0 every expert counts alike.
    """
    if (costs < 0).any() or not np.isfinite(costs).all():
        raise PopulationError("costs", "must be finite and at least 0")
    known = costs if costs.sum() > 0 else np.ones_like(costs)
    share: FloatArray = kept.astype(np.float64) @ (known / known.sum())
    return share


def checked(alpha: FloatArray, beta: FloatArray, experts: int) -> tuple[FloatArray, FloatArray]:
    """A population as two (P, N) arrays.

    Raises:
        PopulationError: another shape, alpha outside [0, 1], or a value that is not finite.
    """
    a, b = np.asarray(alpha, dtype=np.float64), np.asarray(beta, dtype=np.float64)
    for field, array in (("alpha", a), ("beta", b)):
        if array.ndim != 2 or array.shape[1] != experts:
            raise PopulationError(field, f"has shape {array.shape}, must be (P, {experts})")
        if not np.isfinite(array).all():
            raise PopulationError(field, "holds values that are not finite")
    if a.shape != b.shape:
        raise PopulationError("beta", f"has shape {b.shape}, alpha has {a.shape}")
    if ((a < 0) | (a > 1)).any():
        raise PopulationError("alpha", "holds values outside [0, 1]")
    return a, b


def fusion_kind(rows: DatasetKind, metric: str) -> FusionKind:
    """Which fusion answers rows of a kind under a metric.

    Raises:
        FusionMetricError: there is none.
    """
    if metric != CROSS_ENTROPY and metric not in SCORES:
        raise FusionMetricError(metric, "is unknown")
    if rows == "choice":
        if metric in (CROSS_ENTROPY, "choice_accuracy"):
            return "choice"
        raise FusionMetricError(
            metric, "rows with choices are fused under cross_entropy or choice_accuracy"
        )
    if metric == CROSS_ENTROPY:
        return "scored_text"
    if rows == "text":
        raise FusionMetricError(metric, "raw text is fused under cross_entropy only")
    if metric == "choice_accuracy":
        raise FusionMetricError(metric, "these rows have no choices")
    return "extraction" if metric.startswith("item_") else "free_text"
