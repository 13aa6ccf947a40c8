"""Methods that look for nothing: what they ask, and who takes part."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.searches import bits, quadratic, run, signed_target

from evomerge.optimizers import (
    BaseAlone,
    BestExpert,
    Candidate,
    InvalidParameterError,
    Preselection,
    RuleGrid,
    UniformAverage,
    replay,
)
from evomerge.optimizers.candidate import base, uniform

values = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5, unique=True)


@pytest.mark.parametrize(
    ("method", "expected"), [(BaseAlone, base(4, 2)), (UniformAverage, uniform(4, 2))]
)
def test_one_point_wins_even_where_an_expert_is_better(
    method: type[BaseAlone | UniformAverage], expected: Candidate
) -> None:
    optimizer = method(4, groups=2)
    told = run(optimizer, lambda candidate: 1.0 if candidate.agrees(expected) else 0.0)
    assert [len(population) for population in told.populations] == [4, 1]
    assert optimizer.planned_evaluations == 5
    assert optimizer.baseline_evaluations == 4
    assert optimizer.best is not None
    assert optimizer.best.candidate.agrees(expected)
    rebuilt = method(4, groups=2)
    assert replay(rebuilt, told.rows(1)) is None
    assert bits([rebuilt.ask()]) == bits([told.populations[1]])


def test_the_best_expert_is_the_one_that_loses_least() -> None:
    optimizer = BestExpert(3)
    losses = iter([0.5, 0.2, math.nan])
    run(optimizer, lambda candidate: next(losses))
    assert optimizer.best is not None
    assert optimizer.best.candidate.beta.tolist() == [[0.0, 1.0, 0.0]]


@given(
    experts=st.integers(1, 6),
    groups=st.integers(1, 3),
    densities=values,
    scales=values,
    data=st.data(),
)
def test_a_grid_is_every_pair_once(
    experts: int, groups: int, densities: list[float], scales: list[float], data: st.DataObject
) -> None:
    top_k = data.draw(st.integers(1, experts))
    losses = data.draw(
        st.lists(st.floats(0.0, 9.0) | st.just(math.nan), min_size=experts, max_size=experts)
    )
    grid = RuleGrid(
        experts,
        groups=groups,
        densities=densities,
        scales=scales,
        selection=Preselection(experts, top_k),
    )
    grid.tell(grid.ask(), np.array(losses))
    asked = grid.ask()
    assert len(asked) == grid.planned_evaluations - grid.baseline_evaluations
    members = np.flatnonzero(asked[0].beta[0])
    assert len(members) == top_k
    # Nobody who is left out has lost less than anybody who takes part.
    known = np.where(np.isnan(losses), np.inf, losses)
    assert known[members].max() <= min(np.delete(known, members), default=math.inf)
    found = []
    for candidate in asked:
        assert candidate.alpha.shape == candidate.beta.shape == (groups, experts)
        assert (np.flatnonzero(candidate.beta[0]) == members).all()
        (density,) = np.unique(candidate.alpha[:, members])
        (scale,) = np.unique(candidate.beta[:, members])
        found.append((density, scale))
        assert not np.delete(candidate.beta, members, axis=1).any()
    assert found == list(product(densities, scales))


def test_the_grid_takes_the_published_values() -> None:
    grid = RuleGrid(2)
    run(grid, quadratic(signed_target(2)))
    assert grid.planned_evaluations == 2 + 20


def test_an_order_stands_in_for_the_losses() -> None:
    chosen = Preselection(5, 2, [4, 1, 0])
    assert not chosen.needs_losses
    assert chosen.members(None).tolist() == [1, 4]
    assert Preselection(5, order=[3, 0]).members(None).tolist() == [0, 3]
    assert Preselection(3).members(None).tolist() == [0, 1, 2]
    assert Preselection(3, 2).members(np.array([math.nan, 2.0, -math.inf])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": 4}, "top_k=4: the pool has 3 experts"),
        ({"top_k": 2, "order": [1]}, "top_k=2: order names 1 experts"),
        ({"order": [1, 1]}, r"order=\[1, 1\]"),
        ({"order": [3]}, r"order=\[3\]"),
        ({"order": []}, r"order=\[\]"),
    ],
)
def test_who_cannot_take_part_is_named(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidParameterError, match=said):
        Preselection(3, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"densities": [0.0]}, r"densities=0\.0"),
        ({"densities": [1.5]}, r"densities=1\.5"),
        ({"densities": []}, r"densities=\[\]"),
        ({"scales": [0.5, 0.5]}, r"scales=\[0\.5, 0\.5\]"),
        ({"scales": [math.inf]}, "scales=inf"),
        ({"scales": [-0.1]}, r"scales=-0\.1"),
    ],
)
def test_a_value_that_is_none_is_named(arguments: dict[str, list[float]], said: str) -> None:
    with pytest.raises(InvalidParameterError, match=said):
        RuleGrid(3, **arguments)
