"""Bootstrap intervals: against scipy, by simulation, and at their edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evomerge.evaluation.errors import InvalidArgumentError
from evomerge.evaluation.intervals import (
    Interval,
    bootstrap_interval,
    bootstrap_intervals,
    bootstrap_means,
    weighted_mean,
)
from evomerge.evaluation.objective import Objective


def test_the_weighted_mean_by_hand() -> None:
    assert weighted_mean(np.array([1.0, 4.0]), np.array([3.0, 1.0])) == 1.75


def test_it_agrees_with_scipys_bca_on_a_skewed_sample() -> None:
    losses = np.random.default_rng(0).exponential(size=40)
    ours = bootstrap_interval(losses, np.ones(40), seed=1)
    theirs = stats.bootstrap((losses,), np.mean, method="BCa", rng=1).confidence_interval
    assert ours is not None
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


def test_it_agrees_with_scipys_bca_of_two_samples_of_opposite_skew() -> None:
    """The light second sample is the more skewed: it must count by its share."""
    rng = np.random.default_rng(6)
    first, second = rng.lognormal(0, 1.2, size=14), -3 * rng.lognormal(0, 1.5, size=11)

    def objective(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        combined: np.ndarray = (4 * a.mean(axis=axis) + b.mean(axis=axis)) / 5
        return combined

    theirs = stats.bootstrap(
        (first, second), objective, method="BCa", vectorized=True, n_resamples=40_000, rng=1
    ).confidence_interval
    ours = bootstrap_interval(
        np.r_[first, second],
        np.ones(25),
        Objective((14, 11), (4.0, 1.0)),
        seed=1,
        resamples=40_000,
    )
    assert ours is not None
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02 * width)


def test_it_agrees_with_scipys_bca_where_the_median_is_far_from_the_mean() -> None:
    losses = np.random.default_rng(3).lognormal(0, 2, size=20)
    theirs = stats.bootstrap(
        (losses,), np.mean, method="BCa", n_resamples=40_000, rng=1
    ).confidence_interval
    ours = bootstrap_interval(losses, np.ones(20), seed=1, resamples=40_000)
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.05)


def test_it_agrees_with_scipys_bca_of_a_ratio_of_sums() -> None:
    rng = np.random.default_rng(3)
    weights = rng.integers(1, 20, size=60).astype(float)
    losses = rng.gamma(2.0, size=60)

    def ratio(loss: np.ndarray, weight: np.ndarray, axis: int) -> np.ndarray:
        total: np.ndarray = (loss * weight).sum(axis=axis) / weight.sum(axis=axis)
        return total

    theirs = stats.bootstrap(
        (losses, weights), ratio, method="BCa", paired=True, vectorized=True, rng=1
    ).confidence_interval
    ours = bootstrap_interval(losses, weights, seed=1)
    assert ours is not None
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.05 * width)


def test_about_nineteen_intervals_of_twenty_cover_the_truth() -> None:
    """Two datasets, weighted 2:1, with losses and weights that depend on each other."""
    rng = np.random.default_rng(11)
    objective = Objective((40, 25), (2.0, 1.0))
    # Within a dataset weights w are uniform on 1..3 and losses m * w: E[w l] / E[w] = m * 14/6.
    truth = (2 * 1.0 + 1 * 4.0) / 3 * 14 / 6
    covered = 0
    for trial in range(300):
        weights = rng.integers(1, 4, size=65).astype(float)
        losses = np.r_[np.full(40, 1.0), np.full(25, 4.0)] * weights * rng.exponential(size=65)
        interval = bootstrap_interval(losses, weights, objective, seed=trial, resamples=499)
        assert interval is not None
        covered += interval.low <= truth <= interval.high
    # Nominal 285; a wrong weighting or an unstratified draw falls far below.
    assert 264 <= covered <= 298


def test_datasets_are_resampled_apart() -> None:
    """Two constant datasets leave nothing to chance, however they are weighted."""
    losses = np.array([[1.0] * 5 + [9.0] * 5])
    drawn = bootstrap_means(losses, np.ones(10), Objective((5, 5)), seed=0, resamples=200)
    np.testing.assert_allclose(drawn, 5.0)


def test_a_sample_without_spread_has_an_interval_without_width() -> None:
    assert bootstrap_interval(np.full(6, 0.5), np.ones(6), seed=0) == Interval(0.5, 0.5)


def test_the_same_seed_gives_the_same_interval_and_leaves_numpys_generator_alone() -> None:
    losses = np.arange(12.0)
    np.random.seed(5)
    before = np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    first = bootstrap_interval(losses, np.ones(12), seed=3)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index, union-attr]
    assert first == bootstrap_interval(losses, np.ones(12), seed=3)
    assert first != bootstrap_interval(losses, np.ones(12), seed=4)


def test_blocks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    losses, objective = np.arange(20.0)[None], Objective((20,))
    whole = bootstrap_means(losses, np.ones(20), objective, seed=2, resamples=300)
    monkeypatch.setattr("evomerge.evaluation.intervals._BLOCK", 64)
    cut = bootstrap_means(losses, np.ones(20), objective, seed=2, resamples=300)
    np.testing.assert_allclose(whole, cut)


def test_examples_of_weight_zero_count_as_absent() -> None:
    losses, weights = np.array([1.0, 2.0, 5.0, np.nan]), np.array([1.0, 2.0, 1.0, 0.0])
    assert bootstrap_interval(losses, weights, seed=0) == bootstrap_interval(
        losses[:3], weights[:3], seed=0
    )


@pytest.mark.parametrize(
    ("losses", "objective"),
    [
        ([1.0], None),
        ([1.0, float("nan"), 2.0], None),
        ([1.0, float("inf"), 2.0], None),
        ([1.0, 2.0, 3.0], Objective((2, 1))),
    ],
)
def test_what_the_data_cannot_tell_is_none(
    losses: list[float], objective: Objective | None
) -> None:
    weights = np.ones(len(losses))
    assert bootstrap_interval(np.array(losses), weights, objective, seed=0) is None


def test_a_broken_row_does_not_spoil_the_others() -> None:
    rows = np.array([[1.0, np.nan, 3.0], [1.0, 2.0, 3.0]])
    broken, whole = bootstrap_intervals(rows, np.ones(3), seed=0)
    assert broken is None
    assert whole == bootstrap_interval(rows[1], np.ones(3), seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": 1.0}, "level=1.0"),
        ({"level": 0.0}, "level=0.0"),
        ({"resamples": 10}, "resamples=10"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        bootstrap_interval(np.ones(3), np.ones(3), seed=0, **change)  # type: ignore[arg-type]


def test_shapes_must_agree() -> None:
    with pytest.raises(InvalidArgumentError, match="losses"):
        bootstrap_interval(np.ones(3), np.ones(4), Objective((4,)), seed=0)
    with pytest.raises(InvalidArgumentError, match="weights"):
        bootstrap_interval(np.ones(3), np.ones(4), seed=0)


def test_a_level_near_one_stays_within_the_sample() -> None:
    losses = np.r_[np.zeros(30), 100.0]
    interval = bootstrap_interval(losses, np.ones(31), seed=0, level=0.999999)
    assert interval is not None
    assert 0 <= interval.low <= interval.high <= 100
