"""The optimizer that a spec asks for."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.app.schemas.methods import (
    BaseMethod,
    BestExpertMethod,
    LorahubMethod,
    Preselected,
    PsoMethod,
    RuleMethod,
    UniformMethod,
)
from evomerge.app.schemas.spec import (
    CmaMethod,
    DenoisingStage,
    EvoMergingMethod,
    MergeJobSpec,
    ScalingStage,
)
from evomerge.optimizers import (
    BaseAlone,
    BestExpert,
    Cma,
    DenoisingParameters,
    EvoMerging,
    EvoMergingParameters,
    FloatArray,
    InvalidParameterError,
    LoraHub,
    Optimizer,
    ParticleSwarm,
    Preselection,
    RandomSearch,
    RuleGrid,
    ScalingParameters,
    UniformAverage,
)


def build_optimizer(
    spec: MergeJobSpec,
    experts: int,
    starts: Sequence[FloatArray] = (),
    names: Sequence[str] = (),
) -> Optimizer:
    """A fresh search over `experts` experts; it always scores each expert alone first.

    Args:
        starts: further weights, (experts,) each, that an evolutionary search looks at first.
        names: of the experts, for methods that are told an order of them.

    Raises:
        InvalidParameterError: a stage's evaluations are fewer than one population, or experts are
            asked for that there are not.
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
            top_k=method.top_k,
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
            top_k=method.top_k,
            starts=starts,
        )
    if isinstance(method, BaseMethod):
        return BaseAlone(experts, groups=spec.layer_groups)
    if isinstance(method, BestExpertMethod):
        return BestExpert(experts, groups=spec.layer_groups)
    if isinstance(method, UniformMethod):
        return UniformAverage(experts, groups=spec.layer_groups)
    selection = _selection(method, experts, names)
    if isinstance(method, RuleMethod):
        densities, scales = method.grid
        return RuleGrid(
            experts,
            groups=spec.layer_groups,
            densities=densities,
            scales=scales,
            selection=selection,
        )
    if isinstance(method, LorahubMethod):
        return LoraHub(
            experts,
            seed=spec.seed,
            groups=spec.layer_groups,
            evaluations=method.evaluations,
            low=method.bounds.low,
            high=method.bounds.high,
            l1=method.l1,
            probe=True,
            selection=selection,
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
        selection=selection,
    )


def _selection(method: Preselected, experts: int, names: Sequence[str]) -> Preselection:
    if method.order is None:
        return Preselection(experts, method.top_k)
    for name in method.order:
        if name not in names:
            raise InvalidParameterError("order", name, "is no expert of the pool")
    return Preselection(experts, method.top_k, [names.index(name) for name in method.order])


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
