"""Points to look at before a search: experts alone, averages of the best, and a space's own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Final

import numpy as np

from evomerge.optimizers.candidate import Candidate, FloatArray
from evomerge.optimizers.staged import Bests, RunningStage, StagePlan

PROBE = "probe"
WARM_START = "warm_start"

# Of so many of the best experts averages are looked at, each with these sums of weights.
FEW: Final = (2, 4, 8, 16)
SUMS: Final = (1.0, 1.5, 2.0)


class ListStage:
    """One generation of given vectors, in their order, unpenalised.

    Attributes:
        losses: of the vectors, once told.
    """

    def __init__(self, vectors: FloatArray) -> None:
        self.losses: FloatArray | None = None
        self._vectors = vectors
        self._generation = 0

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def done(self) -> bool:
        return self._generation == 1

    def ask(self) -> FloatArray:
        return self._vectors.copy()

    def tell(self, population: FloatArray, losses: FloatArray) -> FloatArray:
        self._generation += 1
        self.losses = losses.copy()
        return losses


class Probe(ListStage):
    """Every expert alone, in their order."""

    def __init__(self, experts: int) -> None:
        super().__init__(np.eye(experts))
        self.experts = experts

    def plan(self, groups: int, *, competes: bool) -> StagePlan:
        """The stage of it: the best-expert baseline, and a start."""
        return _plan(PROBE, lambda: self, self.experts, groups, competes=competes)

    def averages(self, most: int) -> FloatArray:
        """Averages of the experts that lost least, (points, N); to be asked once losses are told.

        Of 2, 4, 8 and 16 of them, as far as `most` goes, each with weights that sum to every one
        of `SUMS`: relatives add up, and a search takes long to find how far their sum may go.
        """
        if self.losses is None:
            raise ValueError("the experts alone have not been scored yet")
        order = np.argsort(np.where(np.isfinite(self.losses), self.losses, np.inf), kind="stable")
        points = np.zeros((averages_of(most), self.experts))
        for point, (few, total) in zip(points, product(_sizes(most), SUMS), strict=True):
            point[order[:few]] = total / few
        return points


def averages_of(most: int) -> int:
    """How many points `Probe.averages` gives."""
    return len(_sizes(most)) * len(SUMS)


def _sizes(most: int) -> list[int]:
    return [few for few in FEW if few <= most]


def warm_plan(
    vectors: Callable[[], FloatArray], evaluations: int, groups: int, *, competes: bool
) -> StagePlan:
    """Weights that are worth a look before a search.

    Args:
        vectors: makes them, (evaluations, experts) float64, when the stage begins.
    """
    return _plan(WARM_START, lambda: ListStage(vectors()), evaluations, groups, competes=competes)


def _plan(
    name: str, make: Callable[[], ListStage], evaluations: int, groups: int, *, competes: bool
) -> StagePlan:
    def candidate(vector: FloatArray) -> Candidate:
        beta = np.tile(vector, (groups, 1))
        return Candidate(np.ones_like(beta), beta)

    def begin(bests: Bests) -> RunningStage:
        return RunningStage(make(), candidate)

    return StagePlan(name, evaluations, competes, begin)
