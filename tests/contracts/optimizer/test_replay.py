"""Every optimizer is a function of its seed and the losses: it can be played again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.searches import (
    Factory,
    Told,
    bits,
    broken_at_times,
    quadratic,
    run,
    signed_target,
    step,
)

from evomerge.optimizers import (
    Candidate,
    Optimizer,
    RecordedEvaluation,
    ReplayMismatchError,
    replay,
)

pytestmark = pytest.mark.filterwarnings("error")


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
