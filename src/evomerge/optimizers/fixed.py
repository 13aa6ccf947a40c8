"""Methods that look for nothing: the base, the average, the best expert, and a rule's grid.

Each scores every expert alone first, as every search does: for the best-expert baseline, and to
know who takes part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

from evomerge.optimizers.candidate import Candidate, FloatArray, base, uniform
from evomerge.optimizers.errors import InvalidParameterError
from evomerge.optimizers.parameters import check_pool
from evomerge.optimizers.preselection import Preselection
from evomerge.optimizers.probe import ListStage, Probe
from evomerge.optimizers.staged import Bests, RunningStage, StagedSearch, StagePlan

BASE, UNIFORM, GRID = "base", "uniform", "grid"

# The published grid of the merging rules.
SCALES = (0.1, 0.3, 0.5, 0.7, 1.0)
DENSITIES = (0.5, 0.7, 0.9, 1.0)


class BestExpert(StagedSearch):
    """Every expert alone; the best of them wins.

    Args:
        experts: size N of the pool, at least 1.
        groups: layer groups G.

    Raises:
        InvalidParameterError: an empty pool.
    """

    def __init__(self, experts: int, *, groups: int = 1) -> None:
        check_pool(experts, groups)
        super().__init__([Probe(experts).plan(groups, competes=True)])


class BaseAlone(StagedSearch):
    """The base without any expert. Args and errors are those of `BestExpert`."""

    def __init__(self, experts: int, *, groups: int = 1) -> None:
        check_pool(experts, groups)
        super().__init__(_one_point(BASE, base(experts, groups)))


class UniformAverage(StagedSearch):
    """Every expert whole, with weight 1/N. Args and errors are those of `BestExpert`."""

    def __init__(self, experts: int, *, groups: int = 1) -> None:
        check_pool(experts, groups)
        super().__init__(_one_point(UNIFORM, uniform(experts, groups)))


class RuleGrid(StagedSearch):
    """The settings of a merging rule: one density and one weight for all who take part.

    A candidate's alpha is the density of those who take part, its beta their weight; the others'
    beta is zero. Points come density by density, so that what depends on it alone can be kept.

    Args:
        experts: size N of the pool, at least 1.
        groups: layer groups G, all alike.
        densities: in (0, 1], different ones.
        scales: above 0, different ones.
        selection: who takes part; None for all.

    Raises:
        InvalidParameterError: an argument is outside its range.
    """

    def __init__(
        self,
        experts: int,
        *,
        groups: int = 1,
        densities: Sequence[float] = DENSITIES,
        scales: Sequence[float] = SCALES,
        selection: Preselection | None = None,
    ) -> None:
        check_pool(experts, groups)
        _check_values("densities", densities, 1.0)
        _check_values("scales", scales, math.inf)
        chosen = selection or Preselection(experts)
        points = np.array(list(product(densities, scales)))
        probe = Probe(experts)

        def begin(bests: Bests) -> RunningStage:
            members = chosen.members(probe.losses)

            def candidate(point: FloatArray) -> Candidate:
                found = base(experts, groups)
                found.alpha[:, members], found.beta[:, members] = point
                return found

            return RunningStage(ListStage(points), candidate)

        super().__init__(
            [probe.plan(groups, competes=False), StagePlan(GRID, len(points), True, begin)]
        )


def _one_point(name: str, point: Candidate) -> list[StagePlan]:
    """The experts alone, which do not compete, and then one candidate."""

    def begin(bests: Bests) -> RunningStage:
        return RunningStage(
            ListStage(np.zeros((1, 0))), lambda _: Candidate(point.alpha.copy(), point.beta.copy())
        )

    probe = Probe(point.experts).plan(point.groups, competes=False)
    return [probe, StagePlan(name, 1, True, begin)]


def _check_values(name: str, values: Sequence[float], high: float) -> None:
    if not values or len(set(values)) != len(values):
        raise InvalidParameterError(name, list(values), "needs different values")
    for value in values:
        if not (math.isfinite(value) and 0.0 < value <= high):
            upto = "" if math.isinf(high) else f" and at most {high:g}"
            raise InvalidParameterError(name, value, f"must be finite, above 0{upto}")
