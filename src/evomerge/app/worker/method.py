"""The optimizer that a spec asks for."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.app.schemas.spec import (
    CmaMethod,
    DenoisingStage,
    EvoMergingMethod,
    MergeJobSpec,
    PsoMethod,
    ScalingStage,
)
from evomerge.optimizers import (
    Cma,
    DenoisingParameters,
    EvoMerging,
    EvoMergingParameters,
    FloatArray,
    Optimizer,
    ParticleSwarm,
    RandomSearch,
    ScalingParameters,
)


def build_optimizer(
    spec: MergeJobSpec, experts: int, starts: Sequence[FloatArray] = ()
) -> Optimizer:
    """A fresh search over `experts` experts; it always scores each expert alone first.

    Args:
        starts: further weights, (experts,) each, that an evolutionary search looks at first.

    Raises:
        InvalidParameterError: a stage's evaluations are fewer than one population.
    """
    method = spec.method
    if isinstance(method, EvoMergingMethod):
        parameters = EvoMergingParameters(
            stages=tuple(method.stages),
            denoising=_denoising(method.denoising),
            scaling=_scaling(method.scaling),
            population=method.population,
            patience=method.patience,
            diagonal_above=method.diagonal_above,
            probe=True,
            probe_competes=method.probe_competes,
        )
        return EvoMerging(
            experts, parameters, seed=spec.seed, groups=spec.layer_groups, starts=starts
        )
    if isinstance(method, CmaMethod):
        return Cma(
            experts,
            _scaling(method.scaling),
            seed=spec.seed,
            groups=spec.layer_groups,
            population=method.population,
            patience=method.patience,
            diagonal_above=method.diagonal_above,
            probe=True,
            starts=starts,
        )
    search = ParticleSwarm if isinstance(method, PsoMethod) else RandomSearch
    return search(
        experts,
        seed=spec.seed,
        groups=spec.layer_groups,
        evaluations=method.evaluations,
        population=method.population,
        low=method.bounds.low,
        high=method.bounds.high,
        probe=True,
    )


def _denoising(stage: DenoisingStage) -> DenoisingParameters:
    return DenoisingParameters(
        evaluations=stage.evaluations,
        sigma=stage.sigma,
        low=stage.bounds.low,
        high=stage.bounds.high,
        l1=stage.l1,
        start=stage.start,
    )


def _scaling(stage: ScalingStage) -> ScalingParameters:
    return ScalingParameters(
        evaluations=stage.evaluations,
        sigma=stage.sigma,
        low=stage.bounds.low,
        high=stage.bounds.high,
        l1=stage.l1,
        start=stage.start,
        sign=stage.sign,
    )
