"""The contract between the search and the models that score its candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    # Types alone: importing the optimizers loads pycma and with it scipy, seconds for a client.
    from evomerge.evaluation.example import Example
    from evomerge.optimizers.candidate import Candidate, FloatArray


class ConnectorError(Exception):
    """Root of everything the connectors raise."""


@dataclass(frozen=True)
class Usage:
    """What a piece of scoring cost. Adds up with `+`."""

    requests: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.tokens + other.tokens,
            self.cost_usd + other.cost_usd,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Scores:
    """Losses of some candidates on some examples.

    Attributes:
        losses: (candidates, examples) float64, lower is better; NaN where a candidate broke.
        weights: (examples,) float64, how much each example counts in a candidate's mean (answer
            tokens for cross-entropy, 1 for the rest).
        usage: what this call cost.
    """

    losses: FloatArray
    weights: FloatArray
    usage: Usage = field(default_factory=Usage)

    def means(self) -> FloatArray:
        """Weighted mean loss of each candidate, (candidates,) float64."""
        mean: FloatArray = self.losses @ self.weights / self.weights.sum()
        return mean


class Evaluator(Protocol):
    """Scores candidates on examples under one metric."""

    def width(self, examples: Sequence[Example]) -> int:
        """How many candidates one `score` call takes best, at least 1.

        A pure function of the evaluator's settings and the examples. The worker cuts every
        population at multiples of it, records each cut before it scores the next, and repeats
        an unrecorded cut whole after a crash; so the very same batches run again and the
        numbers come out bit for bit the same.
        """
        ...

    async def score(self, candidates: Sequence[Candidate], examples: Sequence[Example]) -> Scores:
        """Losses of every candidate on every example, in the orders given.

        Raises:
            ConnectorError: the model could not be reached or could not run.
        """
        ...
