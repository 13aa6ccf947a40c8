"""How likely each domain is before anything is read (arXiv 2208.03306, section 3.2).

The prior pi is an exponential moving average of posteriors over development texts of the target
domain, started from uniform: pi <- (1 - w) pi + w p(D | text), w = 0.3, over 100 texts. It is then
cached: what is tested never moves it. A prior that goes on being updated, and a uniform one, are
there to be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.averages import checked_weights, uniform
from evomerge.merging.forest.errors import ArgumentError, WeightsError
from evomerge.merging.forest.posterior import after

# cached: fixed once it was estimated; updating: every text that was scored moves it; uniform: all
# ELMs alike, always.
PriorMode = Literal["cached", "updating", "uniform"]

WEIGHT = 0.3
LIMIT = 100


def moving_average(
    posteriors: NDArray[np.floating], weight: float = WEIGHT, start: FloatArray | None = None
) -> FloatArray:
    """The average after s posteriors, the last of them the heaviest.

    Args:
        posteriors: (s, n), each with sum 1.
        weight: w of each new posterior, in (0, 1].
        start: (n,), uniform unless given.

    Returns:
        (n,) float64 with sum 1.

    Raises:
        ArgumentError: weight is out of range.
        WeightsError: a posterior or the start is no distribution.
    """
    _check_weight(weight)
    rows = np.asarray(posteriors, dtype=np.float64)
    if rows.ndim != 2 or not rows.shape[1]:
        raise WeightsError("posteriors", rows.shape, "must have the shape (s, n)")
    elms = rows.shape[1]
    average = uniform(elms) if start is None else checked_weights(start, elms, "start")
    for row in rows:
        average = (1 - weight) * average + weight * checked_weights(row, elms, "posteriors")
    return average


def estimate(
    sequences: Iterable[NDArray[np.floating]], weight: float = WEIGHT, limit: int = LIMIT
) -> FloatArray:
    """The prior from development texts, each one's posterior taken under the prior so far.

    Args:
        sequences: log-probabilities (n, T) of each text. No more than `limit` are drawn.
        weight: see `moving_average`.
        limit: so many texts at most.

    Returns:
        (n,) float64 with sum 1.

    Raises:
        ArgumentError: there is no text, weight or limit is out of range.
        LogProbsError: a text's log-probabilities are of another shape, or impossible.
    """
    if limit < 1:
        raise ArgumentError("limit", limit, "must be at least 1")
    running: Prior | None = None
    for log_probs in islice(sequences, limit):
        if running is None:
            running = Prior.updating(uniform(len(log_probs)), weight)
        running = running.after(log_probs)
    if running is None:
        raise ArgumentError("sequences", 0, "a prior needs at least one development text")
    return running.weights


@dataclass(frozen=True)
class Prior:
    """The prior of the text that comes next, and of the one after it.

    Attributes:
        weights: (n,) float64 with sum 1.
        mode: see `PriorMode`.
        weight: of each new posterior, where the prior is updated.

    Raises:
        WeightsError: weights are no distribution.
        ArgumentError: another mode, or weight is out of range.
    """

    weights: FloatArray
    mode: PriorMode = "cached"
    weight: float = WEIGHT

    def __post_init__(self) -> None:
        if self.mode not in get_args(PriorMode):
            known = ", ".join(get_args(PriorMode))
            raise ArgumentError("mode", self.mode, f"must be one of {known}")
        _check_weight(self.weight)
        checked_weights(self.weights, None, "prior")

    @classmethod
    def cached(cls, weights: FloatArray) -> Self:
        """One that stays what it is."""
        return cls(weights, "cached")

    @classmethod
    def updating(cls, weights: FloatArray, weight: float = WEIGHT) -> Self:
        """One that every text moves."""
        return cls(weights, "updating", weight)

    @classmethod
    def uniform(cls, elms: int) -> Self:
        """All ELMs alike, always."""
        return cls(uniform(elms), "uniform")

    @property
    def log(self) -> FloatArray:
        """(n,) natural logarithms, -inf for an ELM without a part."""
        with np.errstate(divide="ignore"):
            logs: FloatArray = np.log(self.weights)
        return logs

    def after(self, log_probs: NDArray[np.floating]) -> Self:
        """The prior of the next text, once this one (n, T) was read; itself unless updating.

        Raises:
            LogProbsError: log-probabilities of another shape, or impossible.
        """
        if self.mode != "updating":
            return self
        seen = after(log_probs, self.log)
        return replace(self, weights=(1 - self.weight) * self.weights + self.weight * seen)


def without(weights: FloatArray, elm: int) -> FloatArray:
    """A prior (n,) for the forest that lost one ELM, (n - 1,): the others' shares, to sum 1.

    Uniform where the lost one had everything.

    Raises:
        WeightsError: weights are no distribution.
        ArgumentError: there is no such ELM, or no other.
    """
    given = checked_weights(weights, None, "prior")
    if not 0 <= elm < len(given):
        raise ArgumentError("elm", elm, f"must be one of {len(given)} ELMs")
    if len(given) == 1:
        raise ArgumentError("elm", elm, "is the last of its forest")
    rest = np.delete(given, elm)
    return rest / rest.sum() if rest.sum() > 0 else uniform(len(rest))


def chosen(weights: FloatArray, elms: Sequence[int]) -> FloatArray:
    """A prior (n,) for some ELMs alone (k,), to sum 1: what a static top-k runs under.

    Uniform where they have no part in the prior.

    Raises:
        WeightsError: weights are no distribution.
        ArgumentError: an ELM that is not there, or twice, or none.
    """
    given = checked_weights(weights, None, "prior")
    places = list(elms)
    if not places or len(set(places)) != len(places):
        raise ArgumentError("elms", places, "must be different ELMs, at least one")
    if not all(0 <= place < len(given) for place in places):
        raise ArgumentError("elms", places, f"must be some of {len(given)} ELMs")
    some = given[places]
    return some / some.sum() if some.sum() > 0 else uniform(len(some))


def _check_weight(weight: float) -> None:
    if not 0 < weight <= 1:
        raise ArgumentError("weight", weight, "must lie in (0, 1]")
