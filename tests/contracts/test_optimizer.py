"""What every optimizer promises, whatever its method."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.searches import (
    FACTORIES,
    SEARCHES,
    Factory,
    Loss,
    Told,
    bits,
    quadratic,
    run,
    signed_target,
    step,
)

from evomerge.optimizers import (
    Candidate,
    InvalidParameterError,
    Optimizer,
    ProtocolError,
    RecordedEvaluation,
    ReplayMismatchError,
    replay,
)

pytestmark = pytest.mark.filterwarnings("error")

SHAPES = [(1, 1), (2, 1), (5, 3), (300, 1)]


@pytest.fixture(params=sorted(FACTORIES))
def make(request: pytest.FixtureRequest) -> Factory:
    return FACTORIES[request.param]


@pytest.fixture(params=sorted(SEARCHES))
def search(request: pytest.FixtureRequest) -> Factory:
    """One that draws, group by group and generation by generation."""
    return SEARCHES[request.param]


@pytest.fixture(params=SHAPES, ids=lambda shape: f"N{shape[0]}-G{shape[1]}")
def shape(request: pytest.FixtureRequest) -> tuple[int, int]:
    experts, groups = request.param
    return experts, groups


def broken_at_times(loss: Loss) -> Loss:
    """Every third candidate NaN or infinite, and all from number 30 to 70."""
    calls: Iterator[int] = iter(range(1_000_000))

    def broken(candidate: Candidate) -> float:
        call = next(calls)
        if call % 3 == 0 or 30 <= call < 70:
            return (math.nan, math.inf, -math.inf)[call % 9 // 3]
        return loss(candidate)

    return broken


class TestDeterminism:
    @pytest.mark.parametrize("seed", [0, 2**32 - 1])
    def test_same_seed_and_losses_give_the_same_bits(
        self, make: Factory, shape: tuple[int, int], seed: int
    ) -> None:
        loss = quadratic(signed_target(shape[0]))
        first = run(make(*shape, seed), loss)
        second = run(make(*shape, seed), loss)
        assert bits(first.populations) == bits(second.populations)
        assert first.stages == second.stages

    def test_another_seed_asks_other_candidates(self, search: Factory) -> None:
        loss = quadratic(signed_target(5))
        assert bits(run(search(5, 1, 0), loss).populations) != bits(
            run(search(5, 1, 1), loss).populations
        )

    def test_two_interleaved_give_what_each_gives_alone(self, make: Factory) -> None:
        targets = [quadratic(signed_target(6)), quadratic(-signed_target(6))]
        alone = [run(make(6, 1, seed), loss) for seed, loss in enumerate(targets)]
        both = [make(6, 1, seed) for seed in range(2)]
        together = [Told(), Told()]
        while not all(optimizer.done for optimizer in both):
            for optimizer, loss, told in zip(both, targets, together, strict=True):
                np.random.seed(3)
                np.random.randn(5)
                if not optimizer.done:
                    step(optimizer, loss, told)
        for expected, got in zip(alone, together, strict=True):
            assert bits(got.populations) == bits(expected.populations)

    def test_leaves_the_global_generator_alone(self, make: Factory) -> None:
        np.random.seed(123)
        before = np.random.get_state(legacy=False)
        run(make(5, 1, 0), quadratic(signed_target(5)))
        after = np.random.get_state(legacy=False)
        assert before["state"]["pos"] == after["state"]["pos"]
        assert np.array_equal(before["state"]["key"], after["state"]["key"])

    def test_prints_nothing_and_writes_nothing(
        self,
        search: Factory,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        # pycma would obey a file of this name in the working folder.
        signals = tmp_path / "cma_signals.in"
        signals.write_text('{"tolx": 1e9, "maxiter": 1}')
        told = run(search(5, 1, 0), broken_at_times(quadratic(signed_target(5))))
        signals_ignored = max(generation for _, generation in told.stages) > 1
        assert signals_ignored
        assert list(tmp_path.iterdir()) == [signals]
        assert capfd.readouterr() == ("", "")


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


class TestReplay:
    @pytest.mark.parametrize("noise", [False, True], ids=["sound", "broken"])
    def test_goes_on_bit_for_bit_from_every_generation(self, make: Factory, noise: bool) -> None:
        loss = quadratic(signed_target(5))
        whole = run(make(5, 1, 0), broken_at_times(loss) if noise else loss)
        for cut in range(len(whole.stages) + 1):
            rebuilt = make(5, 1, 0)
            assert replay(rebuilt, whole.rows(cut)) is None
            for population, losses in zip(whole.populations[cut:], whole.losses[cut:], strict=True):
                asked = rebuilt.ask()
                assert bits([asked]) == bits([population])
                rebuilt.tell(asked, losses)
            assert rebuilt.done

    def test_the_rebuilt_search_knows_the_same_bests(self, make: Factory) -> None:
        optimizer = make(5, 1, 0)
        whole = run(optimizer, quadratic(signed_target(5)))
        rebuilt = make(5, 1, 0)
        replay(rebuilt, whole.rows(len(whole.stages)))
        assert _places(rebuilt) == _places(optimizer)

    def test_a_generation_recorded_in_part_is_left_open(self, make: Factory) -> None:
        loss = quadratic(signed_target(5))
        whole = run(make(5, 1, 0), loss)
        cut = min(3, len(whole.stages) - 1)
        size = len(whole.populations[cut])
        rows = whole.rows(cut) + [
            row for row in whole.rows(cut + 1) if _at(row) == whole.stages[cut] and row.index == 0
        ]
        rebuilt = make(5, 1, 0)
        opened = replay(rebuilt, rows)
        assert opened is not None
        assert (opened.stage, opened.generation) == whole.stages[cut]
        assert opened.missing == list(range(1, size))
        assert opened.losses == {0: whole.losses[cut][0]}
        rebuilt.tell(opened.candidates, whole.losses[cut])
        assert bits(run(rebuilt, loss).populations) == bits(whole.populations[cut + 1 :])

    def test_what_another_kernel_changes_is_tolerated(self, make: Factory) -> None:
        whole = run(make(5, 1, 0), quadratic(signed_target(5)))
        replay(make(5, 1, 0), _shifted(whole, 1e-14))

    def test_another_candidate_is_refused(self, make: Factory) -> None:
        whole = run(make(5, 1, 0), quadratic(signed_target(5)))
        with pytest.raises(ReplayMismatchError, match="generation 0, candidate 0: differs"):
            replay(make(5, 1, 0), _shifted(whole, 1e-6))

    def test_a_log_longer_than_the_search_is_refused(self, make: Factory) -> None:
        whole = run(make(5, 1, 0), quadratic(signed_target(5)))
        rows = whole.rows(len(whole.stages))
        more = [RecordedEvaluation("later", 0, 0, rows[-1].candidate, 0.0)]
        with pytest.raises(ReplayMismatchError, match="the search is done"):
            replay(make(5, 1, 0), rows + more)


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


def _at(row: RecordedEvaluation) -> tuple[str, int]:
    return row.stage, row.generation


def _places(optimizer: Optimizer) -> list[tuple[str, int, int, float, float]]:
    assert optimizer.best is not None
    bests = [optimizer.best, *optimizer.stage_bests.values()]
    return [(b.stage, b.generation, b.index, b.loss, b.objective) for b in bests]


def _shifted(told: Told, by: float) -> list[RecordedEvaluation]:
    return [
        RecordedEvaluation(
            row.stage,
            row.generation,
            row.index,
            Candidate(row.candidate.alpha * (1 + by), row.candidate.beta + by),
            row.loss,
        )
        for row in told.rows(len(told.stages))
    ]
