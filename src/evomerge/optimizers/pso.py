"""Particle swarm over beta, begun at the experts (after PSO-Merging, arXiv 2508.19839).

    v <- w v + c1 r1 (own best - x) + c2 r2 (swarm's best - x),   x <- x + v

with r1 and r2 uniform in [0, 1] for each coordinate, w = 0.729 and c1 = c2 = 1.494 (the
constriction of Clerc and Kennedy, 2002). PSO-Merging moves whole models; all of its particles stay
in the span of the experts, so that here a particle is its weights, at a fraction of the memory.
The first particles are the experts alone and their average; others are drawn around it.
"""

from __future__ import annotations

import numpy as np

from evomerge.optimizers.boxed import BoxedSearch
from evomerge.optimizers.candidate import FloatArray
from evomerge.optimizers.parameters import check_population
from evomerge.optimizers.preselection import Preselection
from evomerge.optimizers.staged import VectorStage

PSO = "pso"
INERTIA = 0.729
PULL = 1.494


class SwarmStage:
    """A swarm within bounds; a particle that would leave stops at the bound.

    Args:
        start: (particles, dimension) float64, where the particles begin; clipped into the bounds.
        random: source of every draw.
    """

    def __init__(
        self,
        start: FloatArray,
        generations: int,
        bounds: tuple[float, float],
        random: np.random.RandomState,
    ) -> None:
        self._places = start.clip(*bounds)
        self._speeds = np.zeros_like(start)
        self._own = self._places.copy()
        self._own_losses = np.full(len(start), np.inf)
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
        return self._places.copy()

    def tell(self, population: FloatArray, losses: FloatArray) -> FloatArray:
        known = np.where(np.isfinite(losses), losses, np.inf)
        better = known < self._own_losses
        self._own[better] = self._places[better]
        self._own_losses[better] = known[better]
        self._move()
        self._generation += 1
        return losses

    def _move(self) -> None:
        shape = self._places.shape
        best = self._own[np.argmin(self._own_losses)]
        own, shared = self._random.uniform(size=shape), self._random.uniform(size=shape)
        self._speeds = (
            INERTIA * self._speeds
            + PULL * own * (self._own - self._places)
            + PULL * shared * (best - self._places)
        )
        moved = self._places + self._speeds
        self._places = moved.clip(*self._bounds)
        self._speeds[moved != self._places] = 0.0


class ParticleSwarm(BoxedSearch):
    """beta by particle swarm, a particle a candidate; see `BoxedSearch`.

    Where particles are fewer than the experts and their average, which experts are among them is
    drawn.
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
        selection: Preselection | None = None,
    ) -> None:
        check_population(population)

        def make(population: int, generations: int, members: int) -> VectorStage:
            random = np.random.RandomState(seed)
            start = np.tile(_first_places(members, population, random), (1, groups))
            return SwarmStage(start, generations, (low, high), random)

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
            name=PSO,
            make=make,
        )


def _first_places(experts: int, particles: int, random: np.random.RandomState) -> FloatArray:
    """The average, the experts alone in a drawn order, then points drawn around the average."""
    average = np.full((1, experts), 1.0 / experts)
    alone = np.eye(experts)[random.permutation(experts)]
    known = np.concatenate([average, alone])[:particles]
    drawn = random.normal(1.0 / experts, 0.25, (particles - len(known), experts))
    return np.concatenate([known, drawn])
