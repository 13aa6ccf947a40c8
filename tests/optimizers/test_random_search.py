"""Random search."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.searches import bits, run

from evomerge.optimizers import InvalidParameterError, Preselection, RandomSearch


def test_draws_uniformly_within_the_bounds() -> None:
    told = run(RandomSearch(10, seed=0, evaluations=1000, low=-0.5, high=1.5), lambda c: 0.0)
    betas = np.array([c.beta for population in told.populations for c in population])
    assert betas.min() >= -0.5
    assert betas.max() <= 1.5
    # Mean 0.5 and deviation 2 / sqrt(12) of 10,000 draws, at six standard errors.
    assert abs(betas.mean() - 0.5) < 6 * 0.577 / 100
    assert abs(betas.std() - 0.577) < 0.02


def test_has_twenty_a_generation_and_no_penalty() -> None:
    optimizer = RandomSearch(3, seed=0, evaluations=59)
    assert optimizer.planned_evaluations == 40
    told = run(optimizer, lambda c: 1.0)
    assert [len(population) for population in told.populations] == [20, 20]
    assert optimizer.best is not None
    assert optimizer.best.objective == optimizer.best.loss == 1.0
    assert all((c.alpha == 1).all() for population in told.populations for c in population)


def test_a_probe_comes_first_and_changes_no_draw() -> None:
    plain = RandomSearch(3, seed=5, evaluations=40)
    probed = RandomSearch(3, seed=5, evaluations=40, probe=True)
    assert probed.stages == ("probe", "random")
    assert probed.planned_evaluations == plain.planned_evaluations + 3
    expected = run(plain, lambda c: 1.0).populations
    populations = run(probed, lambda c: float(c.beta[0, 1] != 1.0)).populations
    assert bits(populations[1:]) == bits(expected)
    assert probed.best is not None
    assert (probed.best.stage, probed.best.index) == ("probe", 1)


def test_those_who_are_left_out_stay_out() -> None:
    few = Preselection(6, 2)
    search = RandomSearch(6, seed=1, groups=2, evaluations=40, probe=True, selection=few)
    search.tell(search.ask(), np.array([5.0, 1.0, 4.0, 3.0, 0.5, 9.0]))
    for candidate in search.ask():
        assert np.flatnonzero(candidate.beta.all(axis=0)).tolist() == [1, 4]
        assert not np.delete(candidate.beta, [1, 4], axis=1).any()


def test_who_is_best_is_not_known_without_a_probe() -> None:
    with pytest.raises(InvalidParameterError, match="top_k=2: needs probe=True"):
        RandomSearch(6, seed=1, selection=Preselection(6, 2))
