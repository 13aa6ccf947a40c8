"""Points known beforehand: every expert alone, and what else a space knows of good starts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge.optimizers.candidate import Candidate, FloatArray
from evomerge.optimizers.staged import Bests, RunningStage, StagePlan

PROBE = "probe"
WARM_START = "warm_start"


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
        return _plan(PROBE, self, self.experts, groups, competes=competes)


def warm_plan(starts: Sequence[FloatArray], groups: int, *, competes: bool) -> StagePlan:
    """Weights that are worth a look before a search, (experts,) float64 each."""
    vectors = np.stack(starts)
    return _plan(WARM_START, ListStage(vectors), len(vectors), groups, competes=competes)


def _plan(
    name: str, search: ListStage, evaluations: int, groups: int, *, competes: bool
) -> StagePlan:
    def candidate(vector: FloatArray) -> Candidate:
        beta = np.tile(vector, (groups, 1))
        return Candidate(np.ones_like(beta), beta)

    def begin(bests: Bests) -> RunningStage:
        return RunningStage(search, candidate)

    return StagePlan(name, evaluations, competes, begin)
