"""Feature 12: the posterior of the authors' released code, by the previous token, has a name."""

from __future__ import annotations

import numpy as np
from tests.support.elm_texts import log_probs_of, prior_of

from evomerge.merging.forest.ensemble import score
from evomerge.merging.forest.posterior import RunningPosterior, posterior


def test_weights_are_of_the_prior_and_the_token_before() -> None:
    log_probs, prior = log_probs_of(1, 3, 40), prior_of(2, 3)
    weights = np.exp(posterior(log_probs, np.log(prior), history="previous"))
    np.testing.assert_allclose(weights[:, 0], prior)
    joint = prior[:, None] * np.exp(log_probs[:, :-1])
    np.testing.assert_allclose(weights[:, 1:], joint / joint.sum(axis=0), rtol=1e-12)
    mixed = (weights * np.exp(log_probs)).sum(axis=0)
    np.testing.assert_allclose(
        score(log_probs, np.log(prior), history="previous"), np.log(mixed), rtol=1e-12
    )


def test_it_forgets_all_that_was_before() -> None:
    log_probs = log_probs_of(3, 3, 10)
    other = np.concatenate([log_probs_of(4, 3, 8), log_probs[:, 8:]], axis=1)
    prior = np.log(prior_of(5, 3))
    np.testing.assert_allclose(
        posterior(log_probs, prior, "previous")[:, 9], posterior(other, prior, "previous")[:, 9]
    )
    assert abs(posterior(log_probs, prior)[:, 9] - posterior(other, prior)[:, 9]).max() > 0.1


def test_texts_that_are_being_written_have_it_too() -> None:
    log_probs, prior = log_probs_of(6, 3, 5), np.log(prior_of(7, 3))
    running = RunningPosterior(prior, history="previous")
    for t, token in enumerate(log_probs.T):
        expected = np.exp(posterior(log_probs, prior, "previous")[:, t])
        np.testing.assert_allclose(running.weights(), expected, rtol=1e-12)
        running.observe(token)
