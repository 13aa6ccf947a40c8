"""Searches of every kind at small budgets, and losses to run them on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from evomerge.optimizers import (
    Candidate,
    Cma,
    DenoisingParameters,
    EvoMerging,
    EvoMergingParameters,
    FloatArray,
    Optimizer,
    ParticleSwarm,
    Preselection,
    RandomSearch,
    RecordedEvaluation,
    RuleGrid,
    ScalingParameters,
)

Loss: TypeAlias = Callable[[Candidate], float]
Factory: TypeAlias = Callable[[int, int, int], Optimizer]


@dataclass
class Told:
    """Everything that a search asked and was told, one entry a generation."""

    stages: list[tuple[str, int]] = field(default_factory=list)
    populations: list[list[Candidate]] = field(default_factory=list)
    losses: list[FloatArray] = field(default_factory=list)

    @property
    def evaluations(self) -> int:
        return sum(len(population) for population in self.populations)

    def competing_losses(self, optimizer: Optimizer) -> FloatArray:
        """Every loss that may be the winner's."""
        return np.concatenate(
            [
                losses
                for (stage, _), losses in zip(self.stages, self.losses, strict=True)
                if stage in optimizer.competing
            ]
        )

    def rows(self, generations: int) -> list[RecordedEvaluation]:
        """The log of the first generations."""
        return [
            RecordedEvaluation(stage, generation, index, candidate, float(loss))
            for (stage, generation), population, losses in list(
                zip(self.stages, self.populations, self.losses, strict=True)
            )[:generations]
            for index, (candidate, loss) in enumerate(zip(population, losses, strict=True))
        ]


def step(optimizer: Optimizer, loss: Loss, told: Told) -> None:
    """One generation."""
    told.stages.append((optimizer.stage, optimizer.generation))
    population = optimizer.ask()
    losses = np.array([loss(candidate) for candidate in population])
    optimizer.tell(population, losses)
    told.populations.append(population)
    told.losses.append(losses)


def run(optimizer: Optimizer, loss: Loss, generations: int | None = None) -> Told:
    """To the end, or for so many generations."""
    told = Told()
    while not optimizer.done and (generations is None or len(told.stages) < generations):
        step(optimizer, loss, told)
    return told


def quadratic(target: FloatArray) -> Loss:
    """Squared distance of what enters of each expert from `target`, (experts,)."""
    return lambda candidate: float(((candidate.alpha * candidate.beta - target) ** 2).mean())


def signed_target(experts: int) -> FloatArray:
    return np.random.RandomState(11).uniform(-1.0, 1.0, experts)


def bits(populations: Sequence[Sequence[Candidate]]) -> list[bytes]:
    """The populations as bytes, to be compared exactly."""
    return [c.alpha.tobytes() + c.beta.tobytes() for population in populations for c in population]


def _paper(experts: int, groups: int, seed: int) -> Optimizer:
    parameters = EvoMergingParameters(
        denoising=DenoisingParameters(evaluations=60),
        scaling=ScalingParameters(evaluations=100),
        population=20,
    )
    return EvoMerging(experts, parameters, seed=seed, groups=groups)


def _baseline_probe(experts: int, groups: int, seed: int) -> Optimizer:
    parameters = EvoMergingParameters(
        denoising=DenoisingParameters(evaluations=60),
        scaling=ScalingParameters(evaluations=100),
        population=20,
        probe=True,
        probe_competes=False,
    )
    return EvoMerging(experts, parameters, seed=seed, groups=groups)


def _scaling_first(experts: int, groups: int, seed: int) -> Optimizer:
    parameters = EvoMergingParameters(
        stages=("scaling", "denoising"),
        denoising=DenoisingParameters(evaluations=60, sigma=0.3, low=0.1, high=0.9, start=0.5),
        scaling=ScalingParameters(evaluations=100, start="best_expert"),
        patience=4,
        probe=True,
    )
    return EvoMerging(experts, parameters, seed=seed, groups=groups)


def _top_three(experts: int, groups: int, seed: int) -> Optimizer:
    parameters = EvoMergingParameters(
        stages=("scaling", "denoising"),
        denoising=DenoisingParameters(evaluations=60, sigma=0.1),
        scaling=ScalingParameters(evaluations=100, sigma=0.1, start="best_few"),
        probe=True,
        top_k=3,
    )
    return EvoMerging(experts, parameters, seed=seed, groups=groups)


def _denoising(experts: int, groups: int, seed: int) -> Optimizer:
    parameters = EvoMergingParameters(
        stages=("denoising",), denoising=DenoisingParameters(evaluations=80)
    )
    return EvoMerging(experts, parameters, seed=seed, groups=groups)


def _nonnegative(experts: int, groups: int, seed: int) -> Optimizer:
    scaling = ScalingParameters(evaluations=80, sigma=0.5, start="zeros", sign="nonnegative")
    return Cma(experts, scaling, seed=seed, groups=groups)


def _diagonal(experts: int, groups: int, seed: int) -> Optimizer:
    scaling = ScalingParameters(evaluations=80)
    return Cma(experts, scaling, seed=seed, groups=groups, diagonal_above=1)


def _pairs(experts: int, groups: int, seed: int) -> Optimizer:
    scaling = ScalingParameters(evaluations=21)
    return Cma(experts, scaling, seed=seed, groups=groups, population=2)


def _random(experts: int, groups: int, seed: int) -> Optimizer:
    return RandomSearch(experts, seed=seed, groups=groups, evaluations=110)


def _swarm(experts: int, groups: int, seed: int) -> Optimizer:
    return ParticleSwarm(experts, seed=seed, groups=groups, evaluations=110)


def _few(experts: int, groups: int, seed: int) -> Optimizer:
    # An empty pool is refused as such, before anybody is chosen of it.
    few = Preselection(experts, min(2, experts)) if experts > 0 else None
    return RandomSearch(
        experts, seed=seed, groups=groups, evaluations=60, probe=True, selection=few
    )


def _grid(experts: int, groups: int, seed: int) -> Optimizer:
    few = Preselection(experts, min(2, experts)) if experts > 0 else None
    return RuleGrid(experts, groups=groups, selection=few)


# Searches, which draw by their seed.
SEARCHES: dict[str, Factory] = {
    "paper": _paper,
    "baseline_probe": _baseline_probe,
    "scaling_first": _scaling_first,
    "top_three": _top_three,
    "denoising": _denoising,
    "nonnegative": _nonnegative,
    "diagonal": _diagonal,
    "pairs": _pairs,
    "random": _random,
    "swarm": _swarm,
    "few": _few,
}
# What every promise but those about draws is held to.
FACTORIES: dict[str, Factory] = {**SEARCHES, "grid": _grid}


def broken_at_times(loss: Loss) -> Loss:
    """Every third candidate NaN or infinite, and all from number 30 to 70."""
    calls: Iterator[int] = iter(range(1_000_000))

    def broken(candidate: Candidate) -> float:
        call = next(calls)
        if call % 3 == 0 or 30 <= call < 70:
            return (math.nan, math.inf, -math.inf)[call % 9 // 3]
        return loss(candidate)

    return broken
