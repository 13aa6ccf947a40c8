"""The particle swarm."""

from __future__ import annotations

import numpy as np
from tests.support.searches import quadratic, run

from evomerge.optimizers import Candidate, ParticleSwarm
from evomerge.optimizers.pso import INERTIA, PULL, SwarmStage


def betas(population: list[Candidate]) -> np.ndarray:
    return np.array([candidate.beta[0] for candidate in population])


def test_begins_at_the_average_and_every_expert_alone() -> None:
    first = betas(ParticleSwarm(4, seed=0, evaluations=20).ask())
    assert np.array_equal(first[0], np.full(4, 0.25))
    assert sorted(map(tuple, first[1:5])) == sorted(map(tuple, np.eye(4)))
    assert len(first) == 20


def test_draws_which_experts_where_not_all_have_room() -> None:
    firsts = [betas(ParticleSwarm(50, seed=s, evaluations=20).ask()) for s in range(2)]
    for first in firsts:
        assert len(first) == 20
        assert (first[1:].max(axis=1) == 1).all()
    assert not np.array_equal(*firsts)


def test_moves_by_the_equations() -> None:
    start = np.array([[0.0, 0.0], [1.0, -1.0]])
    stage = SwarmStage(start, 3, (-1.5, 1.5), np.random.RandomState(5))
    random = np.random.RandomState(5)
    stage.tell(stage.ask(), np.array([2.0, 1.0]))
    random.uniform(size=(2, 2))  # towards one's own best, where everybody still is
    shared = random.uniform(size=(2, 2))
    speeds = PULL * shared * (start[1] - start)
    assert np.allclose(stage.ask(), start + speeds)
    stage.tell(stage.ask(), np.array([3.0, 0.5]))
    own, shared = random.uniform(size=(2, 2)), random.uniform(size=(2, 2))
    places = start + speeds
    expected = INERTIA * speeds + PULL * own * (start - places) * [[1], [0]]
    expected += PULL * shared * (places[1] - places)
    assert np.allclose(stage.ask(), (places + expected).clip(-1.5, 1.5))


def test_stops_at_the_bounds() -> None:
    told = run(
        ParticleSwarm(3, seed=0, evaluations=200, low=-0.5, high=0.5), quadratic(np.full(3, 9.0))
    )
    every = np.concatenate([betas(population) for population in told.populations])
    assert every.min() >= -0.5
    assert every.max() == 0.5


def test_finds_a_signed_target() -> None:
    target = np.array([0.6, -0.4, 0.2, 0.0])
    search = ParticleSwarm(4, seed=1, evaluations=600)
    run(search, quadratic(target))
    assert search.best is not None
    assert np.allclose(search.best.candidate.beta[0], target, atol=0.02)


def test_a_broken_particle_is_nobodys_best() -> None:
    stage = SwarmStage(np.eye(2), 5, (-1.5, 1.5), np.random.RandomState(0))
    stage.tell(stage.ask(), np.array([np.nan, 1.0]))
    stage.tell(stage.ask(), np.array([np.nan, 1.0]))
    moved = stage.ask()
    assert np.isfinite(moved).all()
