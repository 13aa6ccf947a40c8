"""Priors over domains."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tests.support.elm_texts import log_probs_of, prior_of

from evomerge.merging.forest.errors import ArgumentError, LogProbsError, WeightsError
from evomerge.merging.forest.posterior import after
from evomerge.merging.forest.prior import Prior, chosen, estimate, moving_average, without


def test_moving_average_is_the_recursion_and_the_closed_form() -> None:
    posteriors = np.random.default_rng(1).dirichlet(np.ones(3), 5)
    average = np.full(3, 1 / 3)
    for row in posteriors:
        average = 0.7 * average + 0.3 * row
    np.testing.assert_allclose(moving_average(posteriors), average, rtol=1e-14)
    shares = 0.3 * 0.7 ** np.arange(4, -1, -1)
    closed = shares @ posteriors + 0.7**5 / 3
    np.testing.assert_allclose(moving_average(posteriors), closed, rtol=1e-12)


def test_moving_average_goes_on_where_it_stopped() -> None:
    posteriors = np.random.default_rng(2).dirichlet(np.ones(4), 9)
    half = moving_average(posteriors[:4], 0.5)
    np.testing.assert_allclose(
        moving_average(posteriors[4:], 0.5, half), moving_average(posteriors, 0.5)
    )
    np.testing.assert_allclose(moving_average(np.zeros((0, 4))), np.full(4, 0.25))


def test_estimate_takes_each_posterior_under_the_prior_so_far() -> None:
    sequences = [log_probs_of(seed, 3, 5, spread=0.2) for seed in range(4)]
    prior = np.full(3, 1 / 3)
    for sequence in sequences:
        prior = 0.8 * prior + 0.2 * after(sequence, np.log(prior))
    np.testing.assert_allclose(estimate(iter(sequences), weight=0.2), prior, rtol=1e-12)


def test_estimate_draws_no_more_than_its_limit() -> None:
    def endless() -> Iterator[np.ndarray]:
        for seed in range(100):
            yield log_probs_of(seed, 2, 3)
        pytest.fail("the text after the hundredth was drawn")

    assert estimate(endless()).sum() == pytest.approx(1)
    first = [log_probs_of(seed, 2, 3) for seed in range(2)]
    np.testing.assert_array_equal(estimate(endless(), limit=2), estimate(first))


def test_an_elm_that_is_always_wrong_keeps_next_to_nothing() -> None:
    wrong = [np.array([[-1.0, -1.0], [-np.inf, -1.0]])] * 100
    prior = estimate(wrong)
    assert prior[1] == pytest.approx(0.5 * 0.7**100)
    assert prior[0] == pytest.approx(1)


def test_uniform_and_cached_stay_and_updating_moves() -> None:
    text = log_probs_of(3, 4, 9)
    cached = Prior.cached(prior_of(1, 4))
    assert cached.after(text) is cached
    assert Prior.uniform(4).after(text).weights.tolist() == [0.25] * 4
    updating = Prior.updating(prior_of(1, 4), weight=0.4)
    moved = updating.after(text)
    np.testing.assert_allclose(
        moved.weights, 0.6 * updating.weights + 0.4 * after(text, updating.log)
    )
    assert (moved.mode, moved.weight) == ("updating", 0.4)


def test_without_one_the_others_keep_their_shares() -> None:
    np.testing.assert_allclose(without(np.array([0.5, 0.2, 0.3]), 0), [0.4, 0.6])
    np.testing.assert_allclose(without(np.array([0.0, 1.0, 0.0]), 1), [0.5, 0.5])
    np.testing.assert_allclose(chosen(np.array([0.5, 0.2, 0.3]), [0, 2]), [0.625, 0.375])
    np.testing.assert_allclose(chosen(np.array([0.5, 0.2, 0.3]), [2, 0]), [0.375, 0.625])
    np.testing.assert_allclose(chosen(np.array([0.0, 1.0, 0.0]), [0, 2]), [0.5, 0.5])


def test_refuses_what_is_no_prior() -> None:
    with pytest.raises(WeightsError, match=r"prior=\[0.5, 0.4\]: must have sum 1, has 0.9"):
        Prior.cached(np.array([0.5, 0.4]))
    with pytest.raises(ArgumentError, match="mode='fixed'"):
        Prior(np.array([1.0]), "fixed")  # type: ignore[arg-type]
    for weight in (0.0, 1.1, float("nan")):
        with pytest.raises(ArgumentError, match="weight="):
            Prior.updating(np.array([1.0]), weight)
        with pytest.raises(ArgumentError, match="weight="):
            moving_average(np.ones((1, 1)), weight)
    with pytest.raises(WeightsError, match="posteriors"):
        moving_average(np.ones(3))
    with pytest.raises(WeightsError, match="posteriors"):
        moving_average(np.ones((2, 2)))
    with pytest.raises(WeightsError, match="start"):
        moving_average(np.ones((2, 1)), start=np.ones(2))
    with pytest.raises(ArgumentError, match="at least one development text"):
        estimate([])
    with pytest.raises(ArgumentError, match="limit=0"):
        estimate([np.zeros((1, 1))], limit=0)
    with pytest.raises(LogProbsError, match="shape"):
        estimate([np.zeros((2, 1)), np.zeros((3, 1))])
    with pytest.raises(ArgumentError, match="elm=0: is the last"):
        without(np.array([1.0]), 0)
    with pytest.raises(ArgumentError, match="elm=2"):
        without(np.array([0.5, 0.5]), 2)
    for elms in ([], [0, 0], [2], [-1]):
        with pytest.raises(ArgumentError, match="elms="):
            chosen(np.array([0.5, 0.5]), elms)
