"""What every optimizer promises of ask, tell and its budget, whatever its method."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from tests.support.searches import (
    Factory,
    bits,
    quadratic,
    run,
    signed_target,
)

from evomerge.optimizers import (
    Candidate,
    InvalidParameterError,
    ProtocolError,
)

pytestmark = pytest.mark.filterwarnings("error")


class TestProtocol:
    def test_tell_before_ask(self, make: Factory) -> None:
        optimizer = make(5, 1, 0)
        with pytest.raises(ProtocolError, match="nothing was asked"):
            optimizer.tell([], np.empty(0))

    def test_ask_twice(self, make: Factory) -> None:
        optimizer = make(5, 1, 0)
        optimizer.ask()
        with pytest.raises(ProtocolError, match="not told yet"):
            optimizer.ask()

    def test_tell_twice(self, make: Factory) -> None:
        optimizer = make(5, 1, 0)
        population = optimizer.ask()
        optimizer.tell(population, np.zeros(len(population)))
        with pytest.raises(ProtocolError, match="nothing was asked"):
            optimizer.tell(population, np.zeros(len(population)))

    def test_ask_when_done(self, make: Factory) -> None:
        optimizer = make(5, 1, 0)
        run(optimizer, quadratic(signed_target(5)))
        assert optimizer.done
        with pytest.raises(ProtocolError, match="done"):
            optimizer.ask()

    def test_a_refused_tell_leaves_the_search_as_it_was(self, make: Factory) -> None:
        loss = quadratic(signed_target(5))
        optimizer = make(5, 1, 0)
        population = optimizer.ask()
        size = len(population)
        with pytest.raises(ProtocolError, match=f"{size - 1} candidates"):
            optimizer.tell(population[1:], np.zeros(size - 1))
        with pytest.raises(ProtocolError, match="losses of shape"):
            optimizer.tell(population, np.zeros((size, 2)))
        with pytest.raises(ProtocolError, match="candidate 0 is not the one"):
            optimizer.tell(population[::-1], np.zeros(size))
        optimizer.tell(population, np.array([loss(c) for c in population]))
        rest = run(optimizer, loss)
        assert bits([population, *rest.populations]) == bits(run(make(5, 1, 0), loss).populations)

    def test_generations_count_from_zero_within_each_stage(self, make: Factory) -> None:
        optimizer = make(5, 1, 0)
        assert optimizer.best is None
        assert optimizer.stage_bests == {}
        told = run(optimizer, quadratic(signed_target(5)))
        assert told.stages[0] == (optimizer.stages[0], 0)
        seen = [
            (stage, [generation for _, generation in rows])
            for stage, rows in groupby(told.stages, key=lambda row: row[0])
        ]
        assert tuple(stage for stage, _ in seen) == optimizer.stages
        for _, generations in seen:
            assert generations == list(range(len(generations)))
        assert optimizer.stage == optimizer.stages[-1]

    def test_stage_and_generation_stand_still_between_ask_and_tell(self, make: Factory) -> None:
        optimizer = make(5, 1, 0)
        while not optimizer.done:
            before = (optimizer.stage, optimizer.generation)
            population = optimizer.ask()
            assert (optimizer.stage, optimizer.generation) == before
            optimizer.tell(population, np.zeros(len(population)))

    def test_a_candidate_may_be_changed_once_told(self, make: Factory) -> None:
        """Nothing inside shares memory with the arrays given out, but the recorded bests."""
        loss = quadratic(signed_target(5))
        optimizer = make(5, 1, 0)
        asked: list[bytes] = []
        while not optimizer.done:
            population = optimizer.ask()
            asked += bits([population])
            losses = np.array([loss(c) for c in population])
            optimizer.tell([Candidate(c.alpha.copy(), c.beta.copy()) for c in population], losses)
            for candidate in population:
                candidate.alpha[:], candidate.beta[:] = 9.0, 9.0
            losses[:] = -1.0
        assert asked == bits(run(make(5, 1, 0), loss).populations)


class TestCandidates:
    def test_shapes_types_and_bounds(self, make: Factory, shape: tuple[int, int]) -> None:
        experts, groups = shape
        optimizer = make(experts, groups, 0)
        # Far beyond the bounds, so that the search presses against them.
        told = run(optimizer, quadratic(np.full(experts, 5.0)))
        for population in told.populations:
            for candidate in population:
                for values in (candidate.alpha, candidate.beta):
                    assert values.shape == (groups, experts)
                    assert values.dtype == np.float64
                assert ((candidate.alpha >= 0) & (candidate.alpha <= 1)).all()
                assert ((candidate.beta >= -1.5) & (candidate.beta <= 1.5)).all()

    def test_groups_get_weights_of_their_own(self, search: Factory) -> None:
        told = run(search(4, 3, 0), lambda c: float(((c.alpha * c.beta - 0.3) ** 2).mean()))
        last = told.populations[-1][0]
        assert any(len({row.tobytes() for row in v}) == 3 for v in (last.alpha, last.beta))

    def test_no_two_candidates_share_memory(self, make: Factory) -> None:
        population = make(4, 2, 0).ask()
        arrays = [a for c in population for a in (c.alpha, c.beta)]
        for i, one in enumerate(arrays):
            assert not any(np.shares_memory(one, other) for other in arrays[i + 1 :])


class TestBudget:
    def test_never_more_than_planned_and_whole_generations(
        self, make: Factory, shape: tuple[int, int]
    ) -> None:
        optimizer = make(*shape, 0)
        planned = optimizer.planned_evaluations
        told = run(optimizer, quadratic(signed_target(shape[0])))
        assert 0 < told.evaluations <= planned
        for _, rows in groupby(
            zip(told.stages, told.populations, strict=True), key=lambda row: row[0][0]
        ):
            assert len({len(population) for _, population in rows}) == 1

    def test_what_does_not_compete_comes_first_and_is_foreseen(
        self, make: Factory, shape: tuple[int, int]
    ) -> None:
        optimizer = make(*shape, 0)
        assert optimizer.competing <= set(optimizer.stages)
        assert optimizer.competing
        told = run(optimizer, quadratic(signed_target(shape[0])))
        competes = [stage in optimizer.competing for stage, _ in told.stages]
        assert competes == sorted(competes)
        others = [len(p) for p, c in zip(told.populations, competes, strict=True) if not c]
        assert sum(others) == optimizer.baseline_evaluations

    @pytest.mark.parametrize(("experts", "groups"), [(0, 1), (-3, 1), (5, 0)])
    def test_an_empty_pool_is_refused(self, make: Factory, experts: int, groups: int) -> None:
        with pytest.raises(InvalidParameterError, match=r"(experts|groups)=(0|-3)"):
            make(experts, groups, 0)

    @pytest.mark.parametrize("seed", [-1, 2**32])
    def test_a_seed_outside_32_bits_is_refused(self, search: Factory, seed: int) -> None:
        with pytest.raises(InvalidParameterError, match=f"seed={seed}"):
            search(5, 1, seed)
