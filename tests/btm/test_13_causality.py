"""Feature 13: a token changes no weight up to its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.elm_texts import log_probs_of, prior_of, texts

from evomerge.merging.forest.ensemble import score
from evomerge.merging.forest.posterior import History, posterior


@pytest.mark.parametrize("history", ["full", "previous"])
@given(log_probs=texts(), data=st.data())
def test_what_comes_later_changes_no_weight(
    history: History, log_probs: np.ndarray, data: st.DataObject
) -> None:
    elms, tokens = log_probs.shape
    t = data.draw(st.integers(0, tokens - 1))
    prior = np.log(prior_of(data.draw(st.integers(0, 999)), elms))
    changed = log_probs.copy()
    changed[:, t:] = log_probs_of(data.draw(st.integers(0, 999)), elms, tokens - t)
    before = posterior(log_probs, prior, history)
    after = posterior(changed, prior, history)
    # To the last bit: weights are computed in the order of reading.
    np.testing.assert_array_equal(before[:, : t + 1], after[:, : t + 1])
    np.testing.assert_array_equal(
        score(log_probs, prior, history=history, top_k=1)[:t],
        score(changed, prior, history=history, top_k=1)[:t],
    )


@pytest.mark.parametrize("history", ["full", "previous"])
def test_what_came_before_does(history: History) -> None:
    log_probs, prior = log_probs_of(1, 2, 6), np.log([0.5, 0.5])
    changed = log_probs.copy()
    changed[0, 3] -= 1.0
    before, after = posterior(log_probs, prior, history), posterior(changed, prior, history)
    assert before[0, 4] > after[0, 4]
