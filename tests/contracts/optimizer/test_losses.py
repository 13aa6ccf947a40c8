"""What every optimizer makes of losses, the broken ones too."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.searches import (
    FACTORIES,
    Factory,
    bits,
    broken_at_times,
    quadratic,
    run,
    signed_target,
)

from evomerge.optimizers import (
    Candidate,
)

pytestmark = pytest.mark.filterwarnings("error")


class TestBrokenLosses:
    def test_the_search_goes_on_and_the_best_is_finite(
        self, make: Factory, shape: tuple[int, int]
    ) -> None:
        optimizer = make(*shape, 0)
        told = run(optimizer, broken_at_times(quadratic(signed_target(shape[0]))))
        assert optimizer.done
        finite = told.competing_losses(optimizer)
        assert optimizer.best is not None
        assert optimizer.best.loss == finite[np.isfinite(finite)].min()
        for best in optimizer.stage_bests.values():
            assert math.isfinite(best.loss)
            assert math.isfinite(best.objective)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_nothing_but_broken_losses(
        self, make: Factory, shape: tuple[int, int], value: float
    ) -> None:
        optimizer = make(*shape, 0)
        told = run(optimizer, lambda candidate: value)
        assert optimizer.done
        assert optimizer.best is None
        assert optimizer.stage_bests == {}
        assert {stage for stage, _ in told.stages} == set(optimizer.stages)

    def test_every_kind_of_broken_loss_is_the_same(self, make: Factory) -> None:
        """The log keeps one mark for all of them, so that a replay could not tell them apart."""
        loss = quadratic(signed_target(5))
        as_told = run(make(5, 1, 0), broken_at_times(loss))
        broken = broken_at_times(loss)

        def as_nan(candidate: Candidate) -> float:
            value = broken(candidate)
            return value if math.isfinite(value) else math.nan

        assert bits(run(make(5, 1, 0), as_nan).populations) == bits(as_told.populations)

    def test_losses_at_the_end_of_the_range(self, make: Factory) -> None:
        optimizer = make(5, 1, 0)
        run(optimizer, lambda candidate: 1.7e308 * float(np.sign(candidate.beta.sum())))
        assert optimizer.best is not None

    def test_a_flat_loss_is_searched_to_the_end(self, make: Factory) -> None:
        optimizer = make(5, 1, 0)
        run(optimizer, lambda candidate: 0.5)
        assert optimizer.best is not None
        assert optimizer.best.generation == 0
        assert optimizer.best.index == 0


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(FACTORIES)),
    seed=st.integers(0, 2**32 - 1),
    losses=st.lists(st.floats(width=64), min_size=1, max_size=60),
)
def test_any_losses_whatever(name: str, seed: int, losses: list[float]) -> None:
    """The winner is the lowest finite loss that competes, the first of equals, always."""
    given_out = iter(losses * (600 // len(losses) + 1))
    optimizer = FACTORIES[name](3, 1, seed)
    told = run(optimizer, lambda candidate: next(given_out))
    objectives_finite = [v for v in told.competing_losses(optimizer) if math.isfinite(v)]
    assert optimizer.done
    if not objectives_finite:
        assert optimizer.best is None
        return
    assert optimizer.best is not None
    assert optimizer.best.loss == min(objectives_finite)
    for stage, best in optimizer.stage_bests.items():
        assert best.stage == stage
        assert best.objective >= best.loss
