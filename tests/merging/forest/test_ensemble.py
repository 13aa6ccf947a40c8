"""Mixed probabilities of ELMs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.elm_texts import log_probs_of, prior_of, priors, texts

from evomerge.merging.forest.ensemble import mixture, score, score_texts
from evomerge.merging.forest.errors import LogProbsError, TopKError
from evomerge.merging.forest.logs import log_sum
from evomerge.merging.forest.posterior import posterior
from evomerge.merging.forest.prior import Prior
from evomerge.merging.forest.top_k import keep_top


@given(texts(), st.data())
def test_the_tokens_sum_to_the_mixture_of_whole_texts(
    log_probs: np.ndarray, data: st.DataObject
) -> None:
    with np.errstate(divide="ignore"):
        log_prior = np.log(data.draw(priors(len(log_probs))))
    found = score(log_probs, log_prior)
    whole = log_sum(log_prior + log_probs.sum(axis=1))
    assert found.sum() == pytest.approx(whole, abs=1e-9)
    assert (found <= 0).all()


@given(texts(), st.integers(1, 7), st.data())
def test_the_slow_loop(log_probs: np.ndarray, k: int, data: st.DataObject) -> None:
    prior = data.draw(priors(len(log_probs)))
    k = min(k, len(log_probs))
    with np.errstate(divide="ignore"):
        weights = np.exp(keep_top(posterior(log_probs, np.log(prior)), k))
        found = score(log_probs, np.log(prior), top_k=k)
    for t in range(log_probs.shape[1]):
        mixed = sum(
            w * np.exp(p) for w, p in zip(weights[:, t], log_probs[:, t], strict=True) if w > 0
        )
        # Below, a product of probabilities is no longer a normal number, and the loop is wrong.
        if mixed > 1e-280:
            assert found[t] == pytest.approx(np.log(mixed), abs=1e-9)


def test_one_hot_priors_are_the_elm_alone() -> None:
    log_probs = log_probs_of(1, 3, 50)
    with np.errstate(divide="ignore"):
        for elm in range(3):
            np.testing.assert_allclose(
                score(log_probs, np.log(np.eye(3)[elm])), log_probs[elm], atol=1e-12
            )


def test_texts_in_turn_under_a_prior_that_moves() -> None:
    some = [log_probs_of(seed, 3, 6) for seed in range(3)]
    prior = Prior.updating(prior_of(1, 3))
    scores, last = score_texts(some, prior, top_k=2)
    for text, found in zip(some, scores, strict=True):
        np.testing.assert_array_equal(found, score(text, prior.log, top_k=2))
        prior = prior.after(text)
    np.testing.assert_array_equal(last.weights, prior.weights)


def test_mixture_over_a_vocabulary() -> None:
    words = np.random.default_rng(1).dirichlet(np.ones(11), (4, 2))
    weights = np.random.default_rng(2).dirichlet(np.ones(4), 2).T
    mixed = np.exp(mixture(np.log(words), np.log(weights)[:, :, None]))
    np.testing.assert_allclose(mixed, np.einsum("jr,jrv->rv", weights, words))
    np.testing.assert_allclose(mixed.sum(axis=1), 1)


def test_certainty_is_not_exceeded() -> None:
    tenths = np.log(np.full(10, 0.1))
    assert (mixture(np.zeros((10, 5)), tenths) <= 0).all()
    assert score(np.zeros((10, 5)), tenths).max() <= 0


def test_refuses_what_does_not_fit() -> None:
    for weights in (np.zeros(3), np.zeros((2, 4)), np.zeros((1, 3)), np.full(2, np.nan)):
        with pytest.raises(LogProbsError, match="log_weights"):
            mixture(np.zeros((2, 3)), weights)
    with pytest.raises(LogProbsError, match="log_probs"):
        mixture(np.full((2, 3), 0.5), np.zeros(2))
    with pytest.raises(TopKError, match="top_k=3"):
        score(np.zeros((2, 3)), np.zeros(2), top_k=3)
