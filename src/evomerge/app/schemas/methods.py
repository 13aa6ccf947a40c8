"""The methods that a search is compared with, by name: what users ask for beside Evo-Merging."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from evomerge.app.schemas.base import Body, Reference

Election = Annotated[
    Literal["total", "frequency"],
    Field(description="Of signs: by their sums, or by numbers of votes."),
]
Scale = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Density = Annotated[float, Field(gt=0, le=1)]


class Bounds(Body):
    """An interval, low < high."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")
        return self


class Preselected(Body):
    """Who takes part: all of the pool, or the best few of it."""

    top_k: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Only so many experts take part: those that alone lose least on search data, "
        "or the first of `order`.",
    )
    order: list[Reference] | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Names of experts, best first, in place of their order by loss; without top_k "
        "all of them take part, and nobody else.",
    )

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        order = self.order or []
        for name in order:
            if order.count(name) > 1:
                raise ValueError(f"order: {name!r} stands more than once")
        if self.order is not None and self.top_k is not None and self.top_k > len(order):
            raise ValueError(f"top_k={self.top_k}: order names {len(order)} experts")
        return self


class Boxed(Preselected):
    """Searches for beta within bounds."""

    population: int | None = Field(None, ge=2, le=10_000, description="By default 20.")
    evaluations: int = Field(800, ge=1, le=1_000_000)
    bounds: Bounds = Bounds(low=-1.5, high=1.5)


class RandomMethod(Boxed):
    """Random search over beta, uniform in its bounds."""

    name: Literal["random"] = "random"


class PsoMethod(Boxed):
    """Particle swarm over beta, begun at the experts alone and their average."""

    name: Literal["pso"] = "pso"


class LorahubMethod(Preselected):
    """LoRAHub's search over beta: nevergrad's NGOpt, begun at the base (arXiv 2307.13269).

    composition is factor unless given. Needs the extra `baselines`.
    """

    name: Literal["lorahub"] = "lorahub"
    evaluations: int = Field(
        40, ge=1, le=1_000_000, description="NGOpt plans by it; LoRAHub's own is 40."
    )
    bounds: Bounds = Bounds(low=-1.5, high=1.5)
    l1: float = Field(0.05, ge=0, le=100, description="Penalty on the mean of |beta|.")

    @model_validator(mode="after")
    def _begins_at_zero(self) -> Self:
        if not self.bounds.low <= 0 <= self.bounds.high:
            raise ValueError(f"bounds=[{self.bounds.low}, {self.bounds.high}] must hold 0")
        return self


class BaseMethod(Body):
    """The base alone, without any expert."""

    name: Literal["base"] = "base"


class BestExpertMethod(Body):
    """The expert that alone loses least on search data."""

    name: Literal["best_expert"] = "best_expert"


class UniformMethod(Body):
    """The average of all experts, each with weight 1/N."""

    name: Literal["uniform"] = "uniform"


class RuleMethod(Preselected):
    """Task vectors merged by a published rule, its settings chosen on search data."""

    scales: list[Scale] = Field(
        default_factory=lambda: [0.1, 0.3, 0.5, 0.7, 1.0],
        min_length=1,
        max_length=1000,
        description="Lambda, the weight of everyone who takes part: each value is tried.",
    )

    @property
    def grid(self) -> tuple[list[float], list[float]]:
        """Densities and scales; every pair is tried."""
        return [1.0], self.scales

    @model_validator(mode="after")
    def _different(self) -> Self:
        for name, values in zip(("densities", "scales"), self.grid, strict=True):
            for value in values:
                if values.count(value) > 1:
                    raise ValueError(f"{name}: {value} stands more than once")
        return self


class DenseRuleMethod(RuleMethod):
    """A rule that keeps a part of each task vector."""

    densities: list[Density] = Field(
        default_factory=lambda: [0.5, 0.7, 0.9, 1.0],
        min_length=1,
        max_length=1000,
        description="What is kept of everyone who takes part: each value is tried with each scale.",
    )

    @property
    def grid(self) -> tuple[list[float], list[float]]:
        """See `RuleMethod.grid`."""
        return self.densities, self.scales


class TaskArithmeticMethod(RuleMethod):
    """The sum of task vectors (arXiv 2212.04089)."""

    name: Literal["task_arithmetic"] = "task_arithmetic"


class TiesMethod(DenseRuleMethod):
    """Trim by magnitude, elect signs, mean of those that agree (arXiv 2306.01708)."""

    name: Literal["ties"] = "ties"
    election: Election = "total"


class DareLinearMethod(DenseRuleMethod):
    """Drop at random, rescale, sum (arXiv 2311.03099)."""

    name: Literal["dare_linear"] = "dare_linear"


class DareTiesMethod(DenseRuleMethod):
    """Drop at random and rescale, then elect signs and take the mean as TIES does."""

    name: Literal["dare_ties"] = "dare_ties"
    election: Election = "total"


class DellaMethod(DenseRuleMethod):
    """Drop by rank of magnitude, elect signs, mean of those that agree (arXiv 2406.11617)."""

    name: Literal["della"] = "della"
    epsilon: float = Field(
        0.1, ge=0, le=1, description="How much likelier the largest entry stays than the middle."
    )
    election: Election = "total"


class BreadcrumbsMethod(DenseRuleMethod):
    """Drop the largest and the small entries, sum (arXiv 2312.06795)."""

    name: Literal["breadcrumbs"] = "breadcrumbs"
    gamma: float = Field(0.01, ge=0, lt=1, description="Share of the largest that is dropped.")


class EmrMethod(RuleMethod):
    """The unified task vector of EMR-Merging, rescaled (arXiv 2405.17461).

    EMR puts a task's own mask on at inference; one model for everything has none, and takes the
    mean of the rescalers.
    """

    name: Literal["emr"] = "emr"
    scales: list[Scale] = Field(
        default_factory=lambda: [1.0],
        min_length=1,
        max_length=1000,
        description="EMR has no setting; further values are tried beside its own.",
    )


Baseline: TypeAlias = (
    RandomMethod
    | PsoMethod
    | LorahubMethod
    | BaseMethod
    | BestExpertMethod
    | UniformMethod
    | TaskArithmeticMethod
    | TiesMethod
    | DareLinearMethod
    | DareTiesMethod
    | DellaMethod
    | BreadcrumbsMethod
    | EmrMethod
)
