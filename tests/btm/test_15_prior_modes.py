"""Feature 15: a cached prior is the same on all of the test texts, an updating one is not."""

from __future__ import annotations

import numpy as np
from tests.support.elm_texts import log_probs_of

from evomerge.merging.forest.ensemble import score, score_texts
from evomerge.merging.forest.prior import Prior, estimate

DEVELOPMENT = [log_probs_of(seed, 3, 10, spread=0.3) for seed in range(20)]
TEST = [log_probs_of(seed, 3, 10) for seed in range(100, 110)]


def test_cached_stays() -> None:
    prior = Prior.cached(estimate(DEVELOPMENT))
    scores, after = score_texts(TEST, prior)
    np.testing.assert_array_equal(after.weights, estimate(DEVELOPMENT))
    backwards, _ = score_texts(TEST[::-1], prior)
    for text, found, again in zip(TEST, scores, backwards[::-1], strict=True):
        np.testing.assert_array_equal(found, score(text, np.log(estimate(DEVELOPMENT))))
        np.testing.assert_array_equal(found, again)


def test_updating_moves_after_each_text_by_its_posterior() -> None:
    weights = estimate(DEVELOPMENT)
    scores, after = score_texts(TEST, Prior.updating(weights))
    for text, found in zip(TEST, scores, strict=True):
        np.testing.assert_allclose(found, score(text, np.log(weights)), rtol=1e-12)
        joint = np.log(weights) + text.sum(axis=1)
        weights = 0.7 * weights + 0.3 * np.exp(joint - np.logaddexp.reduce(joint))
    np.testing.assert_allclose(after.weights, weights, rtol=1e-9)
    assert abs(after.weights - estimate(DEVELOPMENT)).max() > 0.01


def test_uniform_knows_nothing_and_learns_nothing() -> None:
    scores, after = score_texts(TEST, Prior.uniform(3))
    np.testing.assert_array_equal(after.weights, np.full(3, 1 / 3))
    for text, found in zip(TEST, scores, strict=True):
        np.testing.assert_array_equal(found, score(text, np.log(np.full(3, 1 / 3))))
