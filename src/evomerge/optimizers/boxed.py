"""What searches have in common that look for beta within bounds, every alpha one, no penalty."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evomerge.optimizers.candidate import Candidate, FloatArray
from evomerge.optimizers.parameters import (
    check_bounds,
    check_pool,
    check_population,
    check_seed,
    whole_generations,
)
from evomerge.optimizers.probe import probe_plan
from evomerge.optimizers.staged import Bests, RunningStage, StagedSearch, StagePlan, VectorStage

DEFAULT_POPULATION = 20

# Makes the search out of its population and its generations.
MakeStage = Callable[[int, int], VectorStage]


class BoxedSearch(StagedSearch):
    """One stage over beta in [low, high]^(G N), after a probe if asked for.

    Args:
        experts: size N of the pool, at least 1.
        seed: any integer in [0, 2^32).
        groups: layer groups G.
        evaluations: candidates that may be scored; only whole generations are asked.
        population: candidates a generation; None for 20.
        low, high: bounds of beta.
        probe: ask every expert alone first.
        name: of the stage.
        make: the stage's search; called when the stage begins.

    Raises:
        InvalidParameterError: an argument is outside its range, or the budget is smaller than
            one population.
    """

    def __init__(
        self,
        experts: int,
        *,
        seed: int,
        groups: int,
        evaluations: int,
        population: int | None,
        low: float,
        high: float,
        probe: bool,
        name: str,
        make: MakeStage,
    ) -> None:
        check_pool(experts, groups)
        check_seed(seed)
        check_population(population)
        check_bounds("", low, high)
        population = population or DEFAULT_POPULATION
        generations = whole_generations("evaluations", evaluations, population)
        shape = (groups, experts)

        def candidate(vector: FloatArray) -> Candidate:
            return Candidate(np.ones(shape), vector.reshape(shape))

        def begin(bests: Bests) -> RunningStage:
            return RunningStage(make(population, generations), candidate)

        probes = [probe_plan(experts, groups, competes=True)] if probe else []
        super().__init__([*probes, StagePlan(name, generations * population, True, begin)])
