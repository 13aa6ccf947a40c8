"""What the stages hand on to each other, and who wins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.searches import bits, quadratic, run, signed_target

from evomerge.optimizers import (
    Candidate,
    Cma,
    DenoisingParameters,
    EvoMerging,
    EvoMergingParameters,
    InvalidParameterError,
    RandomSearch,
    ScalingParameters,
)

DENOISING = DenoisingParameters(evaluations=80, sigma=0.2)
SCALING = ScalingParameters(evaluations=120, sigma=0.2)


def search(experts: int = 4, *, seed: int = 0, groups: int = 1, **changes: object) -> EvoMerging:
    values: dict[str, object] = {"denoising": DENOISING, "scaling": SCALING, "population": 10}
    parameters = EvoMergingParameters(**(values | changes))  # type: ignore[arg-type]
    return EvoMerging(experts, parameters, seed=seed, groups=groups)


class TestStages:
    def test_denoising_first_holds_the_uniform_weights_and_hands_on_its_best_alpha(self) -> None:
        optimizer = search()
        told = run(optimizer, quadratic(np.array([0.1, 0.2, 0.0, 0.05])))
        denoised = optimizer.stage_bests["denoising"].candidate.alpha
        assert (denoised < 1).any()
        for (stage, _), population in zip(told.stages, told.populations, strict=True):
            for candidate in population:
                if stage == "denoising":
                    assert (candidate.beta == 0.25).all()
                else:
                    assert np.array_equal(candidate.alpha, denoised)

    def test_scaling_first_holds_ones_and_hands_on_its_best_beta(self) -> None:
        optimizer = search(stages=("scaling", "denoising"))
        told = run(optimizer, quadratic(signed_target(4)))
        scaled = optimizer.stage_bests["scaling"].candidate.beta
        for (stage, _), population in zip(told.stages, told.populations, strict=True):
            for candidate in population:
                if stage == "scaling":
                    assert (candidate.alpha == 1).all()
                else:
                    assert np.array_equal(candidate.beta, scaled)

    def test_what_is_handed_on_is_best_by_the_penalised_objective(self) -> None:
        """The lowest loss of the stage is another candidate than its lowest objective."""
        scaling = ScalingParameters(evaluations=120, sigma=0.2, l1=1.0)
        optimizer = search(stages=("scaling", "denoising"), scaling=scaling)
        told = run(optimizer, lambda c: -0.1 * float(np.abs(c.beta).mean()))
        scored = [
            (float(loss), float(loss) + float(np.abs(candidate.beta).mean()), candidate)
            for (stage, _), population, losses in zip(
                told.stages, told.populations, told.losses, strict=True
            )
            for candidate, loss in zip(population, losses, strict=True)
            if stage == "scaling"
        ]
        lowest_loss = min(scored, key=lambda row: row[0])
        lowest_objective = min(scored, key=lambda row: row[1])
        assert lowest_loss[2] is not lowest_objective[2]
        best = optimizer.stage_bests["scaling"]
        assert best.candidate is lowest_objective[2]
        assert best.objective == pytest.approx(lowest_objective[1])
        assert np.array_equal(told.populations[-1][0].beta, lowest_objective[2].beta)
        assert optimizer.best is not None
        assert optimizer.best.loss == lowest_loss[0]

    def test_objectives_of_stages_are_never_compared(self) -> None:
        """Scaling finds far lower losses at a far higher penalty, and has to win."""
        optimizer = search(
            2,
            denoising=DenoisingParameters(evaluations=80, l1=0.0),
            scaling=ScalingParameters(evaluations=120, l1=10.0),
        )
        run(optimizer, lambda c: float(((c.beta - 1.0) ** 2).mean()))
        bests = optimizer.stage_bests
        assert bests["denoising"].objective < bests["scaling"].objective
        assert optimizer.best is not None
        assert optimizer.best.stage == "scaling"
        assert optimizer.best.loss < bests["denoising"].loss

    def test_an_earlier_stage_wins_when_its_loss_is_lower(self) -> None:
        optimizer = search(
            2,
            denoising=DenoisingParameters(evaluations=80, l1=10.0),
            scaling=ScalingParameters(evaluations=120, l1=0.0),
        )
        # The penalty drives alpha to zero; the loss wants it whole.
        run(optimizer, lambda c: float(((c.alpha - 1.0) ** 2).mean()))
        bests = optimizer.stage_bests
        assert bests["scaling"].objective < bests["denoising"].objective
        assert optimizer.best is not None
        assert optimizer.best.stage == "denoising"

    def test_a_stage_without_any_finite_loss_hands_on_the_start(self) -> None:
        optimizer = search()
        losses = {"denoising": math.nan, "scaling": 1.0}
        while not optimizer.done:
            loss = losses[optimizer.stage]
            population = optimizer.ask()
            optimizer.tell(population, np.full(len(population), loss))
        assert set(optimizer.stage_bests) == {"scaling"}
        assert (optimizer.stage_bests["scaling"].candidate.alpha == 1).all()

    def test_stages_draw_from_streams_of_their_own(self) -> None:
        """Both start at one half within [0, 1]: one stream would draw the same vectors twice."""
        optimizer = search(
            2,
            denoising=DenoisingParameters(evaluations=80, sigma=0.1, start=0.5),
            scaling=ScalingParameters(evaluations=80, sigma=0.1, low=0.0, high=1.0),
        )
        told = run(optimizer, lambda candidate: 1.0)
        first = dict(zip(told.stages, told.populations, strict=True))
        alphas = np.array([c.alpha for c in first["denoising", 0]])
        betas = np.array([c.beta for c in first["scaling", 0]])
        assert abs(alphas.mean() - betas.mean()) < 0.2
        assert not np.allclose(alphas, betas)


class TestStart:
    @pytest.mark.parametrize(("start", "value"), [("uniform", 0.25), ("zeros", 0.0)])
    def test_scaling_starts_there(self, start: str, value: float) -> None:
        scaling = ScalingParameters(evaluations=100, sigma=1e-6, start=start)  # type: ignore[arg-type]
        population = Cma(4, scaling, seed=0).ask()
        assert all(np.allclose(c.beta, value, atol=1e-4) for c in population)

    def test_the_start_is_clipped_into_the_bounds(self) -> None:
        scaling = ScalingParameters(evaluations=100, sigma=1e-6, start="zeros", low=0.2)
        population = Cma(4, scaling, seed=0).ask()
        assert all(np.allclose(c.beta, 0.2, atol=1e-4) for c in population)

    def test_nonnegative_never_asks_a_negative_weight(self) -> None:
        scaling = ScalingParameters(evaluations=200, sigma=0.5, sign="nonnegative")
        told = run(Cma(4, scaling, seed=0), quadratic(np.full(4, -1.0)))
        assert all((c.beta >= 0).all() for population in told.populations for c in population)


class TestProbe:
    def test_asks_every_expert_alone_and_starts_at_the_best(self) -> None:
        scaling = ScalingParameters(evaluations=100, sigma=1e-6, start="best_expert")
        optimizer = Cma(5, scaling, seed=0, groups=2, probe=True)
        assert (optimizer.stage, optimizer.generation) == ("probe", 0)
        probes = optimizer.ask()
        assert [c.beta.tolist() for c in probes] == [[row, row] for row in np.eye(5).tolist()]
        assert all((c.alpha == 1).all() for c in probes)
        optimizer.tell(probes, np.array([5.0, math.nan, 1.0, math.inf, 3.0]))
        best = optimizer.stage_bests["probe"]
        assert (best.index, best.loss, best.objective) == (2, 1.0, 1.0)
        assert (optimizer.stage, optimizer.generation) == ("scaling", 0)
        expected = np.eye(5)[[2, 2]]
        assert all(np.allclose(c.beta, expected, atol=1e-4) for c in optimizer.ask())

    def test_starts_uniform_when_every_probe_broke(self) -> None:
        scaling = ScalingParameters(evaluations=100, sigma=1e-6, start="best_expert")
        optimizer = Cma(5, scaling, seed=0, probe=True)
        optimizer.tell(optimizer.ask(), np.full(5, math.nan))
        assert all(np.allclose(c.beta, 0.2, atol=1e-4) for c in optimizer.ask())

    @pytest.mark.parametrize("competes", [True, False])
    def test_may_win_or_not(self, competes: bool) -> None:
        optimizer = Cma(5, SCALING, seed=0, probe=True, probe_competes=competes)
        optimizer.tell(optimizer.ask(), np.array([3.0, -9.0, 3.0, 3.0, 3.0]))
        assert (optimizer.best is not None) is competes
        run(optimizer, lambda candidate: 1.0)
        assert optimizer.best is not None
        assert optimizer.best.stage == ("probe" if competes else "scaling")
        assert optimizer.stage_bests["probe"].loss == -9.0

    def test_counts_in_the_plan_and_changes_no_later_draw(self) -> None:
        loss = quadratic(signed_target(5))
        without = Cma(5, SCALING, seed=3)
        probed = Cma(5, SCALING, seed=3, probe=True)
        assert probed.planned_evaluations == without.planned_evaluations + 5
        assert probed.stages == ("probe", "scaling")
        expected = run(without, loss).populations
        assert bits(run(probed, loss).populations[1:]) == bits(expected)


class TestBestFew:
    def search(self, experts: int, **changes: object) -> EvoMerging:
        scaling = ScalingParameters(evaluations=40, sigma=1e-6, start="best_few")
        values: dict[str, object] = {"stages": ("scaling",), "scaling": scaling, "probe": True}
        return search(experts, **(values | changes))

    def test_averages_of_the_best_are_scored_behind_the_probe(self) -> None:
        optimizer = self.search(5, groups=2)
        optimizer.tell(optimizer.ask(), np.array([5.0, math.nan, 1.0, 4.0, 2.0]))
        averages = optimizer.ask()
        assert (optimizer.stage, optimizer.generation) == ("warm_start", 0)
        of_two = [[0, 0, each, 0, each] for each in (0.5, 0.75, 1.0)]
        of_four = [[each, 0, each, each, each] for each in (0.25, 0.375, 0.5)]
        assert [c.beta[0].tolist() for c in averages] == of_two + of_four
        assert all(np.array_equal(c.beta[0], c.beta[1]) for c in averages)
        assert all((c.alpha == 1).all() for c in averages)

    def test_no_more_of_them_than_take_part(self) -> None:
        optimizer = self.search(20, top_k=5)
        optimizer.tell(optimizer.ask(), np.arange(20.0))
        averages = optimizer.ask()
        assert [np.count_nonzero(c.beta) for c in averages] == [2, 2, 2, 4, 4, 4]
        assert optimizer.planned_evaluations == 20 + 6 + 40

    @pytest.mark.parametrize("winner", [None, 0, 4])
    def test_scaling_starts_at_the_best_of_both(self, winner: int | None) -> None:
        optimizer = self.search(4)
        optimizer.tell(optimizer.ask(), np.array([3.0, 2.0, 4.0, 1.0]))
        averages = optimizer.ask()
        losses = np.full(len(averages), 1.5)
        if winner is not None:
            losses[winner] = 0.5
        optimizer.tell(averages, losses)
        expected = np.eye(4)[3] if winner is None else averages[winner].beta
        assert all(np.allclose(c.beta, expected, atol=1e-4) for c in optimizer.ask())

    def test_starts_of_the_space_come_first(self) -> None:
        scaling = ScalingParameters(evaluations=40, start="best_few")
        own = (np.array([0.1, 0.9]), np.array([0.9, 0.1]))
        optimizer = Cma(2, scaling, seed=0, probe=True, starts=own)
        optimizer.tell(optimizer.ask(), np.array([1.0, 2.0]))
        asked = [c.beta[0].tolist() for c in optimizer.ask()]
        assert asked == [[0.1, 0.9], [0.9, 0.1], [0.5, 0.5], [0.75, 0.75], [1.0, 1.0]]

    def test_an_expert_has_no_average_with_itself(self) -> None:
        assert self.search(1).stages == ("probe", "scaling")

    def test_needs_a_probe(self) -> None:
        scaling = ScalingParameters(start="best_few")
        with pytest.raises(InvalidParameterError, match=r"scaling.start='best_few': needs probe"):
            EvoMergingParameters(scaling=scaling)


class TestTopK:
    LOSSES = np.array([5.0, math.nan, 1.0, 4.0, math.inf, 2.0])

    @pytest.mark.parametrize("stages", [("denoising", "scaling"), ("scaling", "denoising")])
    def test_the_stages_see_the_best_of_the_probe_alone(self, stages: tuple[str, ...]) -> None:
        optimizer = search(6, stages=stages, groups=2, probe=True, top_k=3)
        optimizer.tell(optimizer.ask(), self.LOSSES)
        told = run(optimizer, lambda c: float(((c.alpha * c.beta - 0.3) ** 2).mean()))
        chosen, others = [2, 3, 5], [0, 1, 4]
        searched = {"denoising": False, "scaling": False}
        for (stage, _), population in zip(told.stages, told.populations, strict=True):
            for candidate in population:
                assert (candidate.beta[:, others] == 0).all()
                assert (candidate.alpha[:, others] == 1).all()
                values = candidate.alpha if stage == "denoising" else candidate.beta
                searched[stage] |= len(np.unique(values[:, chosen])) == 6
        assert searched == {"denoising": True, "scaling": True}

    @pytest.mark.parametrize(
        ("start", "weights"),
        [
            ("uniform", [0.0, 0.0, 0.5, 0.0, 0.0, 0.5]),
            ("best_expert", [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]),
        ],
    )
    def test_scaling_starts_among_them(self, start: str, weights: list[float]) -> None:
        scaling = ScalingParameters(evaluations=100, sigma=1e-6, start=start)  # type: ignore[arg-type]
        optimizer = Cma(6, scaling, seed=0, probe=True, top_k=2)
        optimizer.tell(optimizer.ask(), self.LOSSES)
        assert all(np.allclose(c.beta, weights, atol=1e-4) for c in optimizer.ask())

    def test_who_takes_no_part_stays_out_whatever_the_bounds(self) -> None:
        scaling = ScalingParameters(evaluations=100, low=0.2)
        optimizer = search(4, scaling=scaling, probe=True, top_k=2)
        optimizer.tell(optimizer.ask(), np.array([2.0, 1.0, 4.0, 3.0]))
        told = run(optimizer, quadratic(np.full(4, 0.3)))
        assert all((c.beta[:, 2:] == 0).all() for some in told.populations for c in some)
        assert all((c.beta[:, :2] >= 0.2).all() for some in told.populations for c in some)

    def test_a_smaller_pool_takes_part_whole(self) -> None:
        loss = quadratic(signed_target(4))
        whole = search(4, probe=True)
        limited = search(4, probe=True, top_k=16)
        assert bits(run(limited, loss).populations) == bits(run(whole, loss).populations)

    @settings(max_examples=20, deadline=None)
    @given(
        losses=st.lists(st.floats(), min_size=5, max_size=5),
        top_k=st.integers(1, 5),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_it_is_the_search_over_a_pool_of_them(
        self, losses: list[float], top_k: int, seed: int
    ) -> None:
        """What the others would do has no say, and not even a draw."""
        target = signed_target(5)
        optimizer = search(5, seed=seed, probe=True, top_k=top_k)
        optimizer.tell(optimizer.ask(), np.array(losses))
        population = optimizer.ask()
        members = np.flatnonzero(population[0].beta[0])
        alone = search(top_k, seed=seed)
        asked = [Candidate(c.alpha[:, members], c.beta[:, members]) for c in population]
        assert len(members) == top_k
        assert bits([asked]) == bits([alone.ask()])
        optimizer.tell(population, np.zeros(len(population)))
        alone.tell(asked, np.zeros(len(population)))
        among = run(optimizer, lambda c: float((c.alpha * c.beta)[0, members] @ target[members]))
        only = run(alone, lambda c: float((c.alpha * c.beta)[0] @ target[members]))
        assert among.stages == only.stages

    def test_needs_a_probe(self) -> None:
        with pytest.raises(InvalidParameterError, match=r"top_k=3: needs probe=True"):
            EvoMergingParameters(top_k=3)

    def test_is_at_least_one(self) -> None:
        with pytest.raises(InvalidParameterError, match=r"top_k=0"):
            EvoMergingParameters(top_k=0, probe=True)


class TestConvergence:
    def test_finds_the_signed_optimum_far_better_than_random_search(self) -> None:
        target = signed_target(10)
        loss = quadratic(target)
        for seed in range(3):
            cma = Cma(10, ScalingParameters(evaluations=400, sigma=0.2, l1=0.0), seed=seed)
            chance = RandomSearch(10, seed=seed, evaluations=400)
            run(cma, loss)
            run(chance, loss)
            assert cma.best is not None
            assert chance.best is not None
            assert cma.best.loss < 0.05 * chance.best.loss
            assert np.array_equal(np.sign(cma.best.candidate.beta[0]), np.sign(target))

    def test_denoising_drops_an_expert_that_only_harms(self) -> None:
        def loss(candidate: Candidate) -> float:
            return float((candidate.alpha[0, 0] - 0.9) ** 2 + candidate.alpha[0, 1])

        optimizer = search(2, denoising=DenoisingParameters(evaluations=300, sigma=0.2))
        run(optimizer, loss)
        alpha = optimizer.stage_bests["denoising"].candidate.alpha[0]
        assert alpha[0] > 0.8
        assert alpha[1] < 0.02

    def test_groups_find_different_optima(self) -> None:
        target = np.array([[1.0, -0.5], [-0.5, 1.0], [0.3, 0.3]])
        scaling = ScalingParameters(evaluations=600, sigma=0.2, l1=0.0)
        optimizer = Cma(2, scaling, seed=0, groups=3)
        run(optimizer, lambda c: float(((c.beta - target) ** 2).sum()))
        assert optimizer.best is not None
        assert np.allclose(optimizer.best.candidate.beta, target, atol=0.05)


class TestWarmStarts:
    STARTS = (np.array([0.4, 0.3, 0.0, 0.0]), np.array([0.25, 0.25, 0.25, 0.25]))

    def search(self) -> Cma:
        scaling = ScalingParameters(evaluations=40, sigma=1e-6, start="best_expert")
        return Cma(4, scaling, seed=1, groups=2, population=8, probe=True, starts=self.STARTS)

    def test_they_are_scored_behind_the_probe_in_every_group(self) -> None:
        optimizer = self.search()
        told = run(optimizer, quadratic(np.array([0.4, 0.3, 0.0, 0.0])))
        assert optimizer.stages == ("probe", "warm_start", "scaling")
        assert [stage for stage, _ in told.stages[:2]] == ["probe", "warm_start"]
        for start, candidate in zip(self.STARTS, told.populations[1], strict=True):
            assert np.array_equal(candidate.beta, np.stack([start, start]))
            assert (candidate.alpha == 1).all()

    @pytest.mark.parametrize("best", [np.array([0.4, 0.3, 0.0, 0.0]), np.array([0.0, 0.0, 1, 0])])
    def test_the_search_begins_at_the_best_of_them_and_the_probe(self, best: np.ndarray) -> None:
        told = run(self.search(), quadratic(best))
        for candidate in told.populations[2]:
            assert np.allclose(candidate.beta, best, atol=1e-4)
