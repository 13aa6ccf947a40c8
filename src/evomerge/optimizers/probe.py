"""Every expert alone, once: the best-expert baseline, and where a search may start."""

from __future__ import annotations

import numpy as np

from evomerge.optimizers.candidate import Candidate, FloatArray, one_hot
from evomerge.optimizers.staged import Bests, RunningStage, StagePlan

PROBE = "probe"


class ProbeStage:
    """One generation of the N one-hot vectors, in the order of the experts, unpenalised."""

    def __init__(self, experts: int) -> None:
        self._experts = experts
        self._generation = 0

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def done(self) -> bool:
        return self._generation == 1

    def ask(self) -> FloatArray:
        return np.eye(self._experts)

    def tell(self, population: FloatArray, losses: FloatArray) -> FloatArray:
        self._generation += 1
        return losses


def probe_plan(experts: int, groups: int, *, competes: bool) -> StagePlan:
    """The probe as the first stage of a search."""

    def candidate(vector: FloatArray) -> Candidate:
        return one_hot(int(vector.argmax()), experts, groups)

    def begin(bests: Bests) -> RunningStage:
        return RunningStage(ProbeStage(experts), candidate)

    return StagePlan(PROBE, experts, competes, begin)
