"""Random search: the yardstick that every other search has to beat at equal budget."""

from __future__ import annotations

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
from evomerge.optimizers.staged import Bests, RunningStage, StagedSearch, StagePlan

RANDOM = "random"
DEFAULT_POPULATION = 20


class UniformStage:
    """Vectors drawn uniformly from [low, high]^dimension."""

    def __init__(
        self,
        dimension: int,
        population: int,
        generations: int,
        bounds: tuple[float, float],
        random: np.random.RandomState,
    ) -> None:
        self._shape = (population, dimension)
        self._generations = generations
        self._bounds = bounds
        self._random = random
        self._generation = 0

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def done(self) -> bool:
        return self._generation >= self._generations

    def ask(self) -> FloatArray:
        low, high = self._bounds
        # Scaling a draw may round beyond the bounds.
        return np.clip(self._random.uniform(low, high, self._shape), low, high)

    def tell(self, population: FloatArray, losses: FloatArray) -> FloatArray:
        self._generation += 1
        return losses


class RandomSearch(StagedSearch):
    """beta uniform in [low, high]^(G N), every alpha one, no penalty.

    Args:
        experts: size N of the pool, at least 1.
        seed: any integer in [0, 2^32).
        groups: layer groups G.
        evaluations: candidates that may be scored; only whole generations are asked.
        population: candidates a generation; None for 20.
        low, high: bounds of beta.
        probe: ask every expert alone first.

    Raises:
        InvalidParameterError: an argument is outside its range, or the budget is smaller than
            one population.
    """

    def __init__(
        self,
        experts: int,
        *,
        seed: int,
        groups: int = 1,
        evaluations: int = 800,
        population: int | None = None,
        low: float = -1.5,
        high: float = 1.5,
        probe: bool = False,
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
            random = np.random.RandomState(seed)
            search = UniformStage(groups * experts, population, generations, (low, high), random)
            return RunningStage(search, candidate)

        probes = [probe_plan(experts, groups, competes=True)] if probe else []
        super().__init__([*probes, StagePlan(RANDOM, generations * population, True, begin)])
