"""Feature 11: full-history posterior, whose oracle is the mixture of whole texts, to 1e-9."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.elm_texts import log_probs_of, prior_of, priors, texts

from evomerge.merging.forest.ensemble import score
from evomerge.merging.forest.posterior import posterior


@given(texts(), st.data())
def test_sum_of_log_mixtures_is_the_log_mixture_of_sums(
    log_probs: np.ndarray, data: st.DataObject
) -> None:
    prior = data.draw(priors(len(log_probs)))
    with np.errstate(divide="ignore"):
        found = score(log_probs, np.log(prior)).sum()
        oracle = np.logaddexp.reduce(np.log(prior) + log_probs.sum(axis=1))
    assert found == pytest.approx(oracle, abs=1e-9)


def test_the_last_weights_tell_the_whole_history() -> None:
    log_probs, prior = log_probs_of(1, 4, 30), prior_of(2, 4)
    joint = np.log(prior) + log_probs[:, :-1].sum(axis=1)
    np.testing.assert_allclose(
        posterior(log_probs, np.log(prior))[:, -1],
        joint - np.logaddexp.reduce(joint),
        atol=1e-9,
    )
