"""Feature 17: top-k, static and per token; k = n is the dense ensemble.

That a static top-k runs only k forwards is held where forwards are run.
"""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.elm_texts import log_probs_of, prior_of

from evomerge.merging.forest.ensemble import mixture, score
from evomerge.merging.forest.errors import TopKError
from evomerge.merging.forest.posterior import RunningPosterior, posterior
from evomerge.merging.forest.prior import chosen
from evomerge.merging.forest.top_k import foremost, keep_top

ELMS = 6
LOG_PROBS, PRIOR = log_probs_of(1, ELMS, 50, spread=0.3), prior_of(2, ELMS)


def test_all_of_n_is_the_dense_ensemble() -> None:
    dense = score(LOG_PROBS, np.log(PRIOR))
    np.testing.assert_array_equal(score(LOG_PROBS, np.log(PRIOR), top_k=ELMS), dense)
    elms = foremost(PRIOR, ELMS)
    np.testing.assert_array_equal(elms, np.arange(ELMS))
    static = score(LOG_PROBS[elms], np.log(chosen(PRIOR, elms)))
    np.testing.assert_allclose(static, dense, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_per_token_the_k_largest_weights_are_renormalised(k: int) -> None:
    weights = np.exp(posterior(LOG_PROBS, np.log(PRIOR)))
    for t in range(LOG_PROBS.shape[1]):
        weights[np.argsort(-weights[:, t], kind="stable")[k:], t] = 0.0
    weights /= weights.sum(axis=0)
    mixed = np.log((weights * np.exp(LOG_PROBS)).sum(axis=0))
    np.testing.assert_allclose(score(LOG_PROBS, np.log(PRIOR), top_k=k), mixed, rtol=1e-12)
    kept = keep_top(posterior(LOG_PROBS, np.log(PRIOR)), k)
    np.testing.assert_array_equal(np.isfinite(kept).sum(axis=0), k)
    # One that is left out at a token may come back: its history is kept.
    assert len({tuple(np.flatnonzero(np.isfinite(column))) for column in kept.T}) > 1


@pytest.mark.parametrize("k", [1, 2, 5])
def test_static_the_others_are_not_there_at_all(k: int) -> None:
    elms = foremost(PRIOR, k)
    assert PRIOR[elms].min() >= np.delete(PRIOR, elms).max()
    masked = np.where(np.isin(np.arange(ELMS), elms), PRIOR, 0.0)
    with np.errstate(divide="ignore"):
        expected = score(LOG_PROBS, np.log(masked / masked.sum()))
    found = score(LOG_PROBS[elms], np.log(chosen(PRIOR, elms)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_texts_that_are_being_written_keep_k_too() -> None:
    running = RunningPosterior(np.log(PRIOR), top_k=2)
    scores = score(LOG_PROBS, np.log(PRIOR), top_k=2)
    for t, token in enumerate(LOG_PROBS.T):
        weights = running.weights()
        assert (weights > 0).sum() == 2
        with np.errstate(divide="ignore"):
            assert mixture(token, np.log(weights)) == pytest.approx(scores[t], abs=1e-9)
        running.observe(token)


@pytest.mark.parametrize("k", [0, 7])
def test_more_than_there_are_is_an_error(k: int) -> None:
    with pytest.raises(TopKError, match=f"top_k={k}"):
        score(LOG_PROBS, np.log(PRIOR), top_k=k)
    with pytest.raises(TopKError, match=f"top_k={k}"):
        foremost(PRIOR, k)
