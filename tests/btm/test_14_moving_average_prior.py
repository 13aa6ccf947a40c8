"""Feature 14: the prior is the moving average, 0.3 a text, of 100 texts' posteriors."""

from __future__ import annotations

import numpy as np
from tests.support.elm_texts import log_probs_of

from evomerge.merging.forest.prior import LIMIT, WEIGHT, estimate, moving_average


def test_equals_the_recursion() -> None:
    assert (WEIGHT, LIMIT) == (0.3, 100)
    sequences = [log_probs_of(seed, 5, 12, spread=0.3) for seed in range(130)]
    prior = np.full(5, 0.2)
    for log_probs in sequences[:100]:
        joint = prior * np.exp(log_probs.sum(axis=1) - log_probs.sum(axis=1).max())
        prior = 0.7 * prior + 0.3 * joint / joint.sum()
    np.testing.assert_allclose(estimate(sequences), prior, rtol=1e-9)


def test_of_given_posteriors_it_equals_the_recursion_too() -> None:
    posteriors = np.random.default_rng(1).dirichlet(np.ones(3), 100)
    prior = np.full(3, 1 / 3)
    for posterior in posteriors:
        prior = 0.7 * prior + 0.3 * posterior
    np.testing.assert_allclose(moving_average(posteriors), prior, rtol=1e-12)
