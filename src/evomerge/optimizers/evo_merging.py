"""Evo-Merging (arXiv 2509.12951, section 3): sparsity-based denoising, sign-aware scaling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from evomerge.optimizers.candidate import Candidate, FloatArray
from evomerge.optimizers.cma_stage import CmaParameters, CmaStage
from evomerge.optimizers.parameters import (
    DenoisingParameters,
    EvoMergingParameters,
    ScalingParameters,
    check_pool,
    check_seed,
)
from evomerge.optimizers.preselection import IndexArray, Preselection
from evomerge.optimizers.probe import PROBE, WARM_START, Probe, averages_of, warm_plan
from evomerge.optimizers.staged import Bests, RunningStage, StagedSearch, StagePlan

DENOISING: Final = "denoising"
SCALING: Final = "scaling"


class EvoMerging(StagedSearch):
    """CMA-ES over alpha with beta fixed, and over beta with alpha fixed, in either order.

    What a stage holds fixed is the best of an earlier stage, by that stage's own penalised
    objective as in the paper; before there is one, alpha is one everywhere and beta is
    `scaling.start`. The winner (`best`) is the lowest unpenalised loss of all stages.

    With `top_k` both stages see only the experts that did best in the probe, as if the pool held
    no others (whose beta is zero and whose alpha is one): CMA-ES needs more evaluations with every
    dimension than experts without any bearing on the task are worth.

    Args:
        experts: size N of the pool, at least 1.
        parameters: stages, budgets and so on.
        seed: any integer in [0, 2^32).
        groups: layer groups G, each with N weights of its own.
        starts: weights, (N,) each, that are scored after the probe; `start: best_expert` and
            `best_few` begin at the best of them and the probe.

    Raises:
        InvalidParameterError: an argument is outside its range, or the budget of a stage is
            smaller than one population.
    """

    def __init__(
        self,
        experts: int,
        parameters: EvoMergingParameters | None = None,
        *,
        seed: int,
        groups: int = 1,
        starts: Sequence[FloatArray] = (),
    ) -> None:
        check_pool(experts, groups)
        check_seed(seed)
        parameters = parameters or EvoMergingParameters()
        probe = Probe(experts)
        top_k = parameters.top_k and min(parameters.top_k, experts)
        pool = _Pool(Preselection(experts, top_k), probe, groups, parameters.scaling)
        plans = []
        if parameters.probe:
            plans.append(probe.plan(groups, competes=parameters.probe_competes))
            if warm := pool.warm_plan(starts, competes=parameters.probe_competes):
                plans.append(warm)
        for number, stage in enumerate(parameters.stages):
            random = _random(seed, number)
            if stage == DENOISING:
                plans.append(_denoising(parameters, pool, random))
            else:
                plans.append(_scaling(parameters, pool, random))
        super().__init__(plans)


class Cma(EvoMerging):
    """CMA-ES over beta alone: the scaling stage of Evo-Merging with every alpha one.

    Args and errors are those of `EvoMerging`.
    """

    def __init__(
        self,
        experts: int,
        scaling: ScalingParameters | None = None,
        *,
        seed: int,
        groups: int = 1,
        population: int | None = None,
        patience: int | None = None,
        diagonal_above: int = 200,
        probe: bool = False,
        probe_competes: bool = True,
        top_k: int | None = None,
        starts: Sequence[FloatArray] = (),
    ) -> None:
        parameters = EvoMergingParameters(
            stages=(SCALING,),
            scaling=scaling or ScalingParameters(),
            population=population,
            patience=patience,
            diagonal_above=diagonal_above,
            probe=probe,
            probe_competes=probe_competes,
            top_k=top_k,
        )
        super().__init__(experts, parameters, seed=seed, groups=groups, starts=starts)


@dataclass(frozen=True)
class _Pool:
    """Who takes part, and the weights that a search has before any stage has found better.

    A vector holds the K who take part in every group, (G K,).
    """

    selection: Preselection
    probe: Probe
    groups: int
    scaling: ScalingParameters

    @property
    def dimension(self) -> int:
        return self.groups * self.selection.size

    def warm_plan(self, starts: Sequence[FloatArray], *, competes: bool) -> StagePlan | None:
        """What is scored behind the probe; None where nothing is."""
        averages = self.scaling.start == "best_few"
        evaluations = len(starts) + (averages_of(self.selection.size) if averages else 0)
        if not evaluations:
            return None

        def vectors() -> FloatArray:
            known = np.array(starts).reshape(-1, self.selection.experts)
            if not averages:
                return known
            return np.concatenate([known, self.probe.averages(self.selection.size)])

        return warm_plan(vectors, evaluations, self.groups, competes=competes)

    def _members(self) -> IndexArray:
        return self.selection.members(self.probe.losses)

    def alpha(self, bests: Bests) -> FloatArray:
        """The best alpha found, (G, N); ones before any was."""
        if DENOISING in bests:
            return bests[DENOISING].candidate.alpha.copy()
        return np.ones((self.groups, self.selection.experts))

    def beta(self, bests: Bests) -> FloatArray:
        """The best beta found, (G, N); the start weights of those who take part before any was."""
        if SCALING in bests:
            return bests[SCALING].candidate.beta.copy()
        known = np.clip(self._start(bests), self.scaling.lower, self.scaling.high)
        return self.spread(self.taken(known), others=0.0)

    def _start(self, bests: Bests) -> FloatArray:
        experts = self.selection.experts
        if self.scaling.start == "zeros":
            return np.zeros((self.groups, experts))
        known = [bests[stage] for stage in (PROBE, WARM_START) if stage in bests]
        if self.scaling.start != "uniform" and known:
            return min(known, key=lambda best: best.loss).candidate.beta
        # Also where every probe broke: then nobody knows a best expert.
        return np.full((self.groups, experts), 1.0 / self.selection.size)

    def taken(self, weights: FloatArray) -> FloatArray:
        """The vector of those who take part out of (G, N)."""
        chosen: FloatArray = weights[:, self._members()].ravel()
        return chosen

    def spread(self, vector: FloatArray, *, others: float) -> FloatArray:
        """(G, N): the vector's values where experts take part, `others` elsewhere."""
        found = np.full((self.groups, self.selection.experts), others)
        found[:, self._members()] = vector.reshape(self.groups, -1)
        return found


def _denoising(
    parameters: EvoMergingParameters, pool: _Pool, random: np.random.RandomState
) -> StagePlan:
    stage = parameters.denoising
    settings = _settings(DENOISING, stage, stage.low, parameters)

    def begin(bests: Bests) -> RunningStage:
        beta = pool.beta(bests)
        search = CmaStage(settings, np.full(pool.dimension, stage.start), random)
        return RunningStage(
            search, lambda vector: Candidate(pool.spread(vector, others=1.0), beta.copy())
        )

    return _plan(settings, pool, begin)


def _scaling(
    parameters: EvoMergingParameters, pool: _Pool, random: np.random.RandomState
) -> StagePlan:
    settings = _settings(SCALING, parameters.scaling, parameters.scaling.lower, parameters)

    def begin(bests: Bests) -> RunningStage:
        alpha = pool.alpha(bests)
        search = CmaStage(settings, pool.taken(pool.beta(bests)), random)
        return RunningStage(
            search, lambda vector: Candidate(alpha.copy(), pool.spread(vector, others=0.0))
        )

    return _plan(settings, pool, begin)


def _settings(
    name: str,
    stage: DenoisingParameters | ScalingParameters,
    low: float,
    parameters: EvoMergingParameters,
) -> CmaParameters:
    return CmaParameters(
        name=name,
        evaluations=stage.evaluations,
        sigma=stage.sigma,
        low=low,
        high=stage.high,
        l1=stage.l1,
        population=parameters.population,
        patience=parameters.patience,
        diagonal_above=parameters.diagonal_above,
    )


def _plan(
    settings: CmaParameters, pool: _Pool, begin: Callable[[Bests], RunningStage]
) -> StagePlan:
    population = settings.population_for(pool.dimension)
    evaluations = settings.generations_for(pool.dimension) * population
    return StagePlan(settings.name, evaluations, True, begin)


def _random(seed: int, stage: int) -> np.random.RandomState:
    """A stream of its own for each stage; RandomState, because its draws never change.

    (numpy keeps RandomState's streams the same for ever and may change Generator's.)
    """
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence((seed, stage))))
