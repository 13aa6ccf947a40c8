"""Points known beforehand: every expert alone, and what else a space knows of good starts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge.optimizers.candidate import Candidate, FloatArray
from evomerge.optimizers.staged import Bests, RunningStage, StagePlan

PROBE = "probe"
WARM_START = "warm_start"


class ListStage:
    """One generation of given vectors, in their order, unpenalised."""

    def __init__(self, vectors: FloatArray) -> None:
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
        return losses


def probe_plan(experts: int, groups: int, *, competes: bool) -> StagePlan:
    """Every expert alone, in their order: the best-expert baseline, and a start."""
    return _plan(PROBE, np.eye(experts), groups, competes=competes)


def warm_plan(starts: Sequence[FloatArray], groups: int, *, competes: bool) -> StagePlan:
    """Weights that are worth a look before a search, (experts,) float64 each."""
    return _plan(WARM_START, np.stack(starts), groups, competes=competes)


def _plan(name: str, vectors: FloatArray, groups: int, *, competes: bool) -> StagePlan:
    def candidate(vector: FloatArray) -> Candidate:
        beta = np.tile(vector, (groups, 1))
        return Candidate(np.ones_like(beta), beta)

    def begin(bests: Bests) -> RunningStage:
        return RunningStage(ListStage(vectors), candidate)

    return StagePlan(name, len(vectors), competes, begin)
