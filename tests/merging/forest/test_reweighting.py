"""Many weightings of texts that were read once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.elm_texts import log_probs_of, prior_of, priors, texts

from evomerge.merging.forest.ensemble import mixture, score
from evomerge.merging.forest.errors import ArgumentError, LogProbsError, WeightsError
from evomerge.merging.forest.posterior import History
from evomerge.merging.forest.reweighting import Reweighting


def slow(log_probs: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """One mixture and one text at a time, by float64 logarithms."""
    with np.errstate(divide="ignore"):
        logs = np.log(weights)
    return np.array([[mixture(text, row).sum() for text in log_probs] for row in logs])


@given(texts(), st.integers(0, 2**32), st.data())
def test_equals_the_slow_loop(log_probs: np.ndarray, seed: int, data: st.DataObject) -> None:
    elms, tokens = log_probs.shape
    cuts = sorted(data.draw(st.lists(st.integers(0, tokens), max_size=5)))
    parts = np.split(log_probs, cuts, axis=1)
    weights = np.stack([data.draw(priors(elms)) for _ in range(4)])
    found = Reweighting(parts).mixtures(weights)
    expected = slow(parts, weights)
    lengths = np.array([max(1, part.shape[1]) for part in parts])
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(expected))
    np.testing.assert_allclose(found / lengths, expected / lengths, rtol=1e-6, atol=1e-6)


def test_a_million_nats_apart_is_exact_again() -> None:
    log_probs = -np.random.default_rng(1).exponential(2000.0, (3, 5000))
    weights = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1e-9, 1e-9, 1.0], [0.0, 1e-45, 1.0]])
    weights /= weights.sum(axis=1, keepdims=True)
    found = Reweighting([log_probs]).mixtures(weights)
    np.testing.assert_allclose(found, slow([log_probs], weights), rtol=1e-9)


@pytest.mark.parametrize("length", [1, 3, 60, 1024, 5000])
def test_rounding_stays_below_a_millionth_a_token(length: int) -> None:
    log_probs = log_probs_of(2, 8, 5000)
    parts = np.split(log_probs, range(length, 5000, length), axis=1)
    random = np.random.default_rng(3)
    weights = np.concatenate(
        [random.dirichlet(np.full(8, spread), 100) for spread in (0.02, 0.3, 3.0)]
    )
    logs = np.log(weights @ np.exp(log_probs))
    expected = np.add.reduceat(logs, range(0, 5000, length), axis=1)
    apart = Reweighting(parts).mixtures(weights) - expected
    lengths = np.array([part.shape[1] for part in parts])
    assert np.abs(apart / lengths).max() < 1e-6
    assert np.abs(apart.sum(axis=1)).max() / 5000 < 1e-7


def test_threads_and_company_change_nothing() -> None:
    log_probs = [log_probs_of(seed, 5, 700) for seed in range(3)]
    weights = np.random.default_rng(4).dirichlet(np.ones(5), 600)
    reweighting = Reweighting(log_probs)
    found = reweighting.mixtures(weights, threads=1)
    np.testing.assert_array_equal(found, reweighting.mixtures(weights, threads=3))
    assert found.shape == (600, 3)


def test_one_hot_mixtures_are_the_elms_own_sums() -> None:
    log_probs = [log_probs_of(5, 4, 333), log_probs_of(6, 4, 8)]
    found = Reweighting(log_probs).mixtures(np.eye(4))
    expected = np.stack([text.sum(axis=1) for text in log_probs], axis=1)
    np.testing.assert_allclose(found / [333, 8], expected / [333, 8], atol=1e-6)


@pytest.mark.parametrize("history", ["full", "previous"])
@given(log_probs=texts(), data=st.data())
def test_posteriors_equal_scoring(
    history: History, log_probs: np.ndarray, data: st.DataObject
) -> None:
    elms, tokens = log_probs.shape
    parts = np.split(log_probs, [data.draw(st.integers(0, tokens))], axis=1)
    prior = np.stack([data.draw(priors(elms)) for _ in range(3)])
    with np.errstate(divide="ignore"):
        logs = np.log(prior)
    expected = [[score(part, row, history=history).sum() for part in parts] for row in logs]
    found = Reweighting(parts).posteriors(prior, history)
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(expected))
    if history == "full":
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-9)
    else:
        largest = np.abs(log_probs[np.isfinite(log_probs)]).max(initial=1.0)
        np.testing.assert_allclose(found / tokens, np.array(expected) / tokens, atol=1e-6 * largest)


def test_tells_how_much_was_read() -> None:
    reweighting = Reweighting([np.zeros((2, 3)), np.zeros((2, 0)), np.zeros((2, 5))])
    assert reweighting.tokens.tolist() == [3, 0, 5]
    assert reweighting.elms == 2
    np.testing.assert_array_equal(reweighting.mixtures(np.array([[0.5, 0.5]]))[0, 1], 0.0)
    assert reweighting.mixtures(np.zeros((0, 2))).shape == (0, 3)


def test_nothing_but_empty_texts() -> None:
    reweighting = Reweighting([np.zeros((2, 0))])
    prior = prior_of(1, 2)[None]
    for found in (reweighting.mixtures(prior), reweighting.posteriors(prior, "previous")):
        np.testing.assert_array_equal(found, [[0.0]])


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(LogProbsError, match="texts"):
        Reweighting([])
    with pytest.raises(LogProbsError, match="shape"):
        Reweighting([np.zeros((2, 3)), np.zeros((3, 3))])
    with pytest.raises(LogProbsError, match="NaN"):
        Reweighting([np.full((2, 3), np.nan)])
    reweighting = Reweighting([np.zeros((2, 3))])
    with pytest.raises(WeightsError, match="shape"):
        reweighting.mixtures(np.zeros(2))
    with pytest.raises(WeightsError, match=r"row 1 .* sum 1, has 0\.9"):
        reweighting.mixtures(np.array([[0.5, 0.5], [0.5, 0.4]]))
    with pytest.raises(WeightsError, match="priors"):
        reweighting.posteriors(np.array([[1.5, -0.5]]))
    with pytest.raises(ArgumentError, match="history"):
        reweighting.posteriors(np.array([[1.0, 0.0]]), "none")  # type: ignore[arg-type]
