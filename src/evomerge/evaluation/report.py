"""The proof of a result: every contender beside the winner on the same held-out examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evomerge.evaluation.errors import InvalidArgumentError
from evomerge.evaluation.intervals import RESAMPLES, Interval, bootstrap_intervals
from evomerge.evaluation.objective import FloatArray, Objective
from evomerge.evaluation.significance import paired_p_value


@dataclass(frozen=True)
class Contender:
    """How one model did, and how far it is from the winner.

    Attributes:
        name: winner, base, best_expert, uniform, ...
        mean: its mean loss; None where a loss is not finite.
        interval: of the mean; None where the data cannot tell (see `bootstrap_interval`).
        dataset_means: mean loss on each dataset, in the objective's order.
        difference: its mean less the winner's, positive where the winner is better; None for
            the winner itself and where a mean is missing.
        difference_interval: of the difference, from the pairs.
        p_value: of the paired sign-flip test of that difference, not corrected for there being
            several contenders; None where `difference` is.
    """

    name: str
    mean: float | None
    interval: Interval | None
    dataset_means: tuple[float | None, ...]
    difference: float | None = None
    difference_interval: Interval | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class Report:
    """All contenders, in the order given.

    Attributes:
        winner: name of the contender that the others are held against.
        examples: number of examples that count.
        contenders: one for each model, the winner among them.
    """

    winner: str
    examples: int
    contenders: tuple[Contender, ...]

    def __getitem__(self, name: str) -> Contender:
        """The contender of that name.

        Raises:
            KeyError: there is none.
        """
        for contender in self.contenders:
            if contender.name == name:
                return contender
        raise KeyError(name)


def compare(
    losses: Mapping[str, FloatArray],
    weights: FloatArray,
    objective: Objective | None = None,
    *,
    winner: str = "winner",
    seed: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Report:
    """Hold every contender against the winner.

    Args:
        losses: (n,) float64 of each contender by name, on the same examples in one order.
        weights: (n,) float64, how much each example counts (`Scores.weights`).
        objective: how the examples fall into datasets; one dataset without it.
        winner: which of the names the others are compared with.
        seed: of resampling and of random sign patterns.

    Raises:
        InvalidArgumentError: the winner has no losses, or shapes or weights are wrong.
    """
    if winner not in losses:
        raise InvalidArgumentError("winner", winner, f"is none of {', '.join(losses)}")
    shared = objective or Objective((np.asarray(losses[winner]).size,))
    counts = shared.example_weights(weights) > 0
    for name, row in losses.items():
        if np.shape(row) != counts.shape:
            raise InvalidArgumentError(
                f"losses[{name}]", np.shape(row), f"must have shape {counts.shape}"
            )
    # What has no weight must not spoil a mean by being NaN.
    rows = np.where(counts, np.stack([np.asarray(row, np.float64) for row in losses.values()]), 0)
    best = rows[list(losses).index(winner)]
    both = np.concatenate([rows, rows - best])
    intervals = bootstrap_intervals(
        both, weights, shared, seed=seed, level=level, resamples=resamples
    )
    means, parts = shared.means(both, weights), shared.dataset_means(rows, weights)
    contenders = []
    for number, name in enumerate(losses):
        other = name != winner
        contenders.append(
            Contender(
                name=name,
                mean=_finite(means[number]),
                interval=intervals[number],
                dataset_means=tuple(_finite(mean) for mean in parts[number]),
                difference=_finite(means[len(rows) + number]) if other else None,
                difference_interval=intervals[len(rows) + number] if other else None,
                p_value=paired_p_value(rows[number], best, weights, shared, seed=seed)
                if other
                else None,
            )
        )
    return Report(winner, int(counts.sum()), tuple(contenders))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
