"""Feature 18: no NaN at 10^5 tokens, nor in half precision."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.elm_texts import log_probs_of, prior_of

from evomerge.merging.forest.ensemble import score
from evomerge.merging.forest.posterior import RunningPosterior, after, posterior
from evomerge.merging.forest.reweighting import Reweighting

TOKENS = 100_000
LOG_PROBS = log_probs_of(1, 4, TOKENS)
PRIOR = prior_of(2, 4)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("history", ["full", "previous"])
def test_long_texts_in_any_precision(dtype: type, history: str) -> None:
    given = LOG_PROBS.astype(dtype)
    weights = np.exp(posterior(given, np.log(PRIOR).astype(dtype), history))  # type: ignore[arg-type]
    assert weights.dtype == np.float64
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, rtol=1e-9)
    found = score(given, np.log(PRIOR), history=history)  # type: ignore[arg-type]
    assert np.isfinite(found).all()
    best, worst = given.max(axis=0), given.min(axis=0)
    assert (found <= best + 1e-12).all()
    assert (found >= worst - 1e-12).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_the_oracle_at_ten_to_the_five_tokens(dtype: type) -> None:
    given = LOG_PROBS.astype(dtype)
    wide = given.astype(np.float64)
    oracle = np.logaddexp.reduce(np.log(PRIOR) + wide.sum(axis=1))
    found = score(given, np.log(PRIOR)).sum()
    # A sum of 10^5 tokens of some nats has itself no more than 16 digits.
    assert found == pytest.approx(oracle, rel=1e-12)


def test_two_that_are_equal_stay_so_over_the_whole_text() -> None:
    twins = np.stack([LOG_PROBS[0], LOG_PROBS[0]])
    np.testing.assert_allclose(after(twins, np.log([0.3, 0.7])), [0.3, 0.7], rtol=1e-9)
    # The same tokens in another order: what they say of the ELMs cancels out.
    turned = np.stack([LOG_PROBS[0], LOG_PROBS[0][::-1]])
    np.testing.assert_allclose(after(turned, np.log([0.3, 0.7])), [0.3, 0.7], rtol=1e-6)


def test_texts_that_are_being_written() -> None:
    running = RunningPosterior(np.log(PRIOR))
    running.read(LOG_PROBS.astype(np.float16))
    for token in LOG_PROBS.T[:100].astype(np.float16):
        running.observe(token)
        assert running.weights().sum() == pytest.approx(1)


def test_impossible_and_next_to_impossible_tokens() -> None:
    hard = LOG_PROBS.copy()
    hard[0, ::1000] = -np.inf
    hard[:, 500::1000] -= 60_000.0
    assert np.isfinite(score(hard, np.log(PRIOR))).all()
    hard[:, -1] = -np.inf
    found = score(hard, np.log(PRIOR))
    assert np.isneginf(found[-1])
    assert np.isfinite(found[:-1]).all()


def test_reweighting_in_half_precision() -> None:
    given = LOG_PROBS.astype(np.float16)
    found = Reweighting([given]).mixtures(PRIOR[None])
    expected = np.log(PRIOR @ np.exp(given.astype(np.float64))).sum()
    assert found[0, 0] / TOKENS == pytest.approx(expected / TOKENS, abs=1e-7)
