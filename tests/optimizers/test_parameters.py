"""Every parameter outside its range is refused by name and value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from evomerge.optimizers import (
    Cma,
    DenoisingParameters,
    EvoMerging,
    EvoMergingParameters,
    InvalidParameterError,
    RandomSearch,
    ScalingParameters,
)
from evomerge.optimizers.parameters import default_population

BAD: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (DenoisingParameters, {"low": 0.8, "high": 0.2}, "denoising.low=0.8: must be below high=0.2"),
    (DenoisingParameters, {"low": -0.1}, "denoising.low=-0.1"),
    (DenoisingParameters, {"high": 1.1}, "denoising.high=1.1"),
    (DenoisingParameters, {"start": 0.2, "low": 0.5}, "denoising.start=0.2"),
    (DenoisingParameters, {"start": math.nan}, "denoising.start=nan"),
    (DenoisingParameters, {"evaluations": 0}, "denoising.evaluations=0"),
    (DenoisingParameters, {"sigma": 0.0}, "denoising.sigma=0.0"),
    (DenoisingParameters, {"l1": -1.0}, "denoising.l1=-1.0"),
    (ScalingParameters, {"low": 1.0, "high": 1.0}, "scaling.low=1.0"),
    (ScalingParameters, {"low": math.nan}, "scaling.low=nan"),
    (ScalingParameters, {"high": math.inf}, "scaling.high=inf"),
    (ScalingParameters, {"sigma": math.inf}, "scaling.sigma=inf"),
    (ScalingParameters, {"l1": math.nan}, "scaling.l1=nan"),
    (ScalingParameters, {"evaluations": -5}, "scaling.evaluations=-5"),
    (ScalingParameters, {"start": "ones"}, "scaling.start='ones'"),
    (ScalingParameters, {"sign": "positive"}, "scaling.sign='positive'"),
    (ScalingParameters, {"sign": "nonnegative", "high": -0.5}, "scaling.high=-0.5"),
    (EvoMergingParameters, {"stages": ()}, "stages=()"),
    (EvoMergingParameters, {"stages": ("scaling", "scaling")}, "names a stage twice"),
    (EvoMergingParameters, {"stages": ("polish",)}, "stages='polish'"),
    (EvoMergingParameters, {"population": 1}, "population=1"),
    (EvoMergingParameters, {"patience": 0}, "patience=0"),
    (EvoMergingParameters, {"diagonal_above": 0}, "diagonal_above=0"),
    (EvoMergingParameters, {"scaling": ScalingParameters(start="best_expert")}, "needs probe"),
    (EvoMergingParameters, {"scaling": ScalingParameters(start="zeros")}, "'zeros'"),
    (RandomSearch, {"experts": 3, "seed": 0, "population": 1}, "population=1"),
    (RandomSearch, {"experts": 3, "seed": 0, "low": 2.0}, "low=2.0: must be below high=1.5"),
]


@pytest.mark.parametrize(("make", "arguments", "message"), BAD, ids=[row[2] for row in BAD])
def test_refused(make: Callable[..., Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameterError) as refused:
        make(**arguments)
    assert message in str(refused.value)


def _denoising_budget(evaluations: int) -> EvoMerging:
    denoising = DenoisingParameters(evaluations=evaluations)
    return EvoMerging(10, EvoMergingParameters(denoising=denoising, population=20), seed=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_denoising_budget, "denoising.evaluations=19: is less than one population of 20"),
        (
            lambda n: Cma(10, ScalingParameters(evaluations=n), seed=0, population=20),
            "scaling.evaluations=19: is less than one population of 20",
        ),
        (
            lambda n: RandomSearch(10, seed=0, evaluations=n),
            "evaluations=19: is less than one population of 20",
        ),
    ],
)
def test_a_budget_below_one_population_names_both(make: Callable[[int], Any], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=f"^{message}$"):
        make(19)
    assert make(20).planned_evaluations >= 20


def test_zeros_may_start_a_search_that_scales_first() -> None:
    scaling = ScalingParameters(start="zeros")
    EvoMergingParameters(stages=("scaling", "denoising"), scaling=scaling)


@pytest.mark.parametrize(("dimension", "population"), [(1, 4), (2, 6), (10, 10), (300, 21)])
def test_default_population(dimension: int, population: int) -> None:
    assert default_population(dimension) == population
