"""One loss out of per-example losses on one dataset or several."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluation.errors import InvalidArgumentError

# Not the alias of the optimizers, whose package loads cma, and with it scipy, when imported.
FloatArray: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Objective:
    """The weighted mean of datasets' mean losses, over their examples put end to end.

    The objective of losses l with example weights w is
    sum_d v_d * mean_d / sum_d v_d, where mean_d = sum_i w_i l_i / sum_i w_i over dataset d.

    Attributes:
        sizes: number of examples of each dataset, in the order they are concatenated.
        weights: v, how much each dataset counts; all 1 unless given.

    Raises:
        InvalidArgumentError: no dataset, an empty one, or a weight that is not above 0.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.sizes:
            raise InvalidArgumentError("sizes", self.sizes, "must name at least one dataset")
        for position, size in enumerate(self.sizes):
            if size < 1:
                raise InvalidArgumentError(f"sizes[{position}]", size, "must be at least 1")
        if not self.weights:
            object.__setattr__(self, "weights", (1.0,) * len(self.sizes))
        if len(self.weights) != len(self.sizes):
            raise InvalidArgumentError(
                "weights", self.weights, f"must be as many as sizes={self.sizes}"
            )
        for position, weight in enumerate(self.weights):
            if not (math.isfinite(weight) and weight > 0):
                raise InvalidArgumentError(f"weights[{position}]", weight, "must be above 0")

    @property
    def examples(self) -> int:
        """Number of examples of all datasets."""
        return sum(self.sizes)

    @property
    def shares(self) -> FloatArray:
        """v / sum v, (datasets,) float64."""
        v = np.array(self.weights)
        shares: FloatArray = v / v.sum()
        return shares

    @property
    def slices(self) -> list[slice]:
        """Where each dataset stands among the concatenated examples."""
        ends = np.cumsum(self.sizes).tolist()
        return [slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True)]

    def example_weights(self, weights: FloatArray) -> FloatArray:
        """Weights under which the plain weighted mean over all examples is the objective.

        Args:
            weights: (n,) w, how much each example counts within its dataset, as in
                `Scores.weights`.

        Returns:
            (n,) float64 that sums to 1: v_d / sum v * w_i / sum_d w.

        Raises:
            InvalidArgumentError: another shape, a weight that is negative or not finite, or a
                dataset without any weight.
        """
        checked = self._checked(weights)
        combined = np.empty(self.examples)
        for part, share in zip(self.slices, self.shares, strict=True):
            combined[part] = share * checked[part] / checked[part].sum()
        return combined

    def means(self, losses: FloatArray, weights: FloatArray) -> FloatArray:
        """The objective of each row of losses, (..., n) -> (...); NaN where a loss is."""
        mean: FloatArray = self._losses(losses) @ self.example_weights(weights)
        return mean

    def dataset_means(self, losses: FloatArray, weights: FloatArray) -> FloatArray:
        """Weighted mean loss of each dataset, (..., n) -> (..., datasets)."""
        rows, checked = self._losses(losses), self._checked(weights)
        means = [rows[..., part] @ checked[part] / checked[part].sum() for part in self.slices]
        return np.stack(means, axis=-1)

    def _losses(self, losses: FloatArray) -> FloatArray:
        rows = np.asarray(losses, dtype=np.float64)
        if rows.ndim == 0 or rows.shape[-1] != self.examples:
            raise InvalidArgumentError(
                "losses", rows.shape, f"the last axis must be {self.examples} examples"
            )
        return rows

    def _checked(self, weights: FloatArray) -> FloatArray:
        w = np.asarray(weights, dtype=np.float64)
        if w.shape != (self.examples,):
            raise InvalidArgumentError("weights", w.shape, f"must have shape ({self.examples},)")
        for position in np.flatnonzero(~(np.isfinite(w) & (w >= 0)))[:1]:
            raise InvalidArgumentError(
                f"weights[{position}]", float(w[position]), "must be finite and at least 0"
            )
        for number, part in enumerate(self.slices):
            if not w[part].sum() > 0:
                raise InvalidArgumentError(
                    "weights", 0.0, f"the examples of dataset {number} have no weight at all"
                )
        return w
