"""Parameters of the searches, checked when made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from evomerge.optimizers.errors import InvalidParameterError

StageName: TypeAlias = Literal["denoising", "scaling"]
Start: TypeAlias = Literal["uniform", "zeros", "best_expert", "best_few"]
Sign: TypeAlias = Literal["signed", "nonnegative"]

MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class DenoisingParameters:
    """Stage 1 of Evo-Merging: CMA-ES over alpha. Defaults are the released recipe.

    Attributes:
        evaluations: candidates that may be scored; only whole generations are asked.
        sigma: first standard deviation of every alpha.
        low, high: bounds of alpha, within [0, 1].
        l1: weight of the penalty on the mean of |alpha|.
        start: every alpha at the start, within the bounds.

    Raises:
        InvalidParameterError: a value is outside its range.
    """

    evaluations: int = 400
    sigma: float = 0.05
    low: float = 0.0
    high: float = 1.0
    l1: float = 0.05
    start: float = 1.0

    def __post_init__(self) -> None:
        _check_stage("denoising", self.evaluations, self.sigma, self.low, self.high, self.l1)
        if self.low < 0:
            raise InvalidParameterError("denoising.low", self.low, "must be at least 0")
        if self.high > 1:
            raise InvalidParameterError("denoising.high", self.high, "must be at most 1")
        if not self.low <= self.start <= self.high:
            reason = f"must lie within the bounds [{self.low}, {self.high}]"
            raise InvalidParameterError("denoising.start", self.start, reason)


@dataclass(frozen=True)
class ScalingParameters:
    """Stage 2 of Evo-Merging: CMA-ES over beta. Defaults are the released recipe.

    Attributes:
        evaluations: candidates that may be scored; only whole generations are asked.
        sigma: first standard deviation of every beta.
        low, high: bounds of beta.
        l1: weight of the penalty on the mean of |beta|.
        start: every weight 1/K with K experts taking part, every weight zero, one on the best
            probed expert, or the best of those and of averages of the best few (see
            `Probe.averages`); clipped into the bounds.
        sign: nonnegative raises the lower bound to zero (the paper's ablation without sign flip).

    Raises:
        InvalidParameterError: a value is outside its range.
    """

    evaluations: int = 800
    sigma: float = 0.05
    low: float = -1.5
    high: float = 1.5
    l1: float = 0.05
    start: Start = "uniform"
    sign: Sign = "signed"

    def __post_init__(self) -> None:
        _check_stage("scaling", self.evaluations, self.sigma, self.low, self.high, self.l1)
        _check_one_of("scaling.start", self.start, get_args(Start))
        _check_one_of("scaling.sign", self.sign, get_args(Sign))
        if self.sign == "nonnegative" and self.high <= 0:
            raise InvalidParameterError(
                "scaling.high", self.high, "must be above 0 for sign='nonnegative'"
            )

    @property
    def lower(self) -> float:
        """The lower bound in force, after `sign`."""
        return max(self.low, 0.0) if self.sign == "nonnegative" else self.low


@dataclass(frozen=True)
class EvoMergingParameters:
    """The whole search.

    Attributes:
        stages: denoising, scaling or both, in the order they run.
        denoising, scaling: parameters of either stage, used where the stage runs;
            `scaling.start` also gives the fixed weights of a denoising stage that runs first.
        population: candidates a generation; None for 4 + floor(3 ln dimension) (pycma's).
        patience: generations without a better best that end a stage; None for never.
        diagonal_above: more dimensions than this get a diagonal covariance.
        probe: ask every expert alone before the first stage.
        probe_competes: whether a probed expert may be the winner.
        top_k: how many experts, the best of the probe, the stages see at most; None for all.

    Raises:
        InvalidParameterError: a value is outside its range, or two contradict each other.
    """

    stages: tuple[StageName, ...] = ("denoising", "scaling")
    denoising: DenoisingParameters = field(default_factory=DenoisingParameters)
    scaling: ScalingParameters = field(default_factory=ScalingParameters)
    population: int | None = None
    patience: int | None = None
    diagonal_above: int = 200
    probe: bool = False
    probe_competes: bool = True
    top_k: int | None = None

    def __post_init__(self) -> None:
        if not self.stages:
            raise InvalidParameterError("stages", self.stages, "needs at least one stage")
        for stage in self.stages:
            _check_one_of("stages", stage, get_args(StageName))
        if len(set(self.stages)) != len(self.stages):
            raise InvalidParameterError("stages", self.stages, "names a stage twice")
        check_population(self.population)
        if self.patience is not None:
            check_at_least("patience", self.patience, 1)
        check_at_least("diagonal_above", self.diagonal_above, 1)
        if self.top_k is not None:
            check_at_least("top_k", self.top_k, 1)
            if not self.probe:
                raise InvalidParameterError("top_k", self.top_k, "needs probe=True")
        if self.scaling.start in ("best_expert", "best_few") and not self.probe:
            raise InvalidParameterError("scaling.start", self.scaling.start, "needs probe=True")
        if self.stages[0] == "denoising" and self.scaling.start == "zeros":
            raise InvalidParameterError(
                "scaling.start", "zeros", "leaves a denoising stage that runs first no weights"
            )


def default_population(dimension: int) -> int:
    """4 + floor(3 ln dimension), the default of CMA-ES (Hansen 2016, table 1)."""
    return 4 + math.floor(3 * math.log(dimension))


def whole_generations(name: str, evaluations: int, population: int) -> int:
    """Generations of `population` that fit wholly into `evaluations`.

    Raises:
        InvalidParameterError: not even one fits.
    """
    if evaluations < population:
        reason = f"is less than one population of {population}"
        raise InvalidParameterError(name, evaluations, reason)
    return evaluations // population


def check_pool(experts: int, groups: int) -> None:
    check_at_least("experts", experts, 1)
    check_at_least("groups", groups, 1)


def check_seed(seed: int) -> None:
    check_at_least("seed", seed, 0)
    if seed > MAX_SEED:
        raise InvalidParameterError("seed", seed, f"must be at most {MAX_SEED}")


def check_population(population: int | None) -> None:
    if population is not None:
        check_at_least("population", population, 2)


def check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InvalidParameterError(name, value, f"must be at least {least}")


def check_bounds(prefix: str, low: float, high: float) -> None:
    for name, value in (("low", low), ("high", high)):
        if not math.isfinite(value):
            raise InvalidParameterError(f"{prefix}{name}", value, "must be finite")
    if not low < high:
        raise InvalidParameterError(f"{prefix}low", low, f"must be below high={high!r}")


def check_penalty(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise InvalidParameterError(name, value, "must be finite and at least 0")


def _check_stage(
    name: str, evaluations: int, sigma: float, low: float, high: float, l1: float
) -> None:
    check_at_least(f"{name}.evaluations", evaluations, 1)
    if not (math.isfinite(sigma) and sigma > 0):
        raise InvalidParameterError(f"{name}.sigma", sigma, "must be finite and above 0")
    check_bounds(f"{name}.", low, high)
    check_penalty(f"{name}.l1", l1)


def _check_one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidParameterError(name, value, f"must be one of {', '.join(allowed)}")
