"""Random search: the yardstick that every other search has to beat at equal budget."""

from __future__ import annotations

import numpy as np

from evomerge.optimizers.boxed import BoxedSearch
from evomerge.optimizers.candidate import FloatArray
from evomerge.optimizers.parameters import check_population
from evomerge.optimizers.preselection import Preselection
from evomerge.optimizers.staged import VectorStage

RANDOM = "random"


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


class RandomSearch(BoxedSearch):
    """beta uniform in its bounds; see `BoxedSearch`."""

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
        selection: Preselection | None = None,
    ) -> None:
        check_population(population)

        def make(population: int, generations: int, members: int) -> VectorStage:
            random = np.random.RandomState(seed)
            return UniformStage(groups * members, population, generations, (low, high), random)

        super().__init__(
            experts,
            seed=seed,
            groups=groups,
            evaluations=evaluations,
            population=population,
            low=low,
            high=high,
            probe=probe,
            selection=selection,
            name=RANDOM,
            make=make,
        )
