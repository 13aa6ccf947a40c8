"""Posteriors over domains."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.elm_texts import log_probs_of, prior_of, priors, texts

from evomerge.merging.forest.errors import ArgumentError, LogProbsError, TopKError
from evomerge.merging.forest.posterior import History, RunningPosterior, after, posterior
from evomerge.merging.forest.top_k import keep_top

HISTORIES: tuple[History, ...] = ("full", "previous")


def logs(weights: object) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(weights, dtype=np.float64))


def by_hand(log_probs: np.ndarray, prior: np.ndarray, history: History) -> np.ndarray:
    """The weights before each token and after the last, by plain products of probabilities."""
    found = [prior]
    for t in range(1, log_probs.shape[1] + 1):
        seen = log_probs[:, :t] if history == "full" else log_probs[:, t - 1 : t]
        joint = prior * np.exp(seen.sum(axis=1))
        found.append(joint / joint.sum() if joint.sum() > 0 else prior)
    return np.array(found).T


@pytest.mark.parametrize("history", HISTORIES)
def test_equals_products_of_probabilities(history: History) -> None:
    log_probs, prior = log_probs_of(1, 4, 20), prior_of(2, 4)
    expected = by_hand(log_probs, prior, history)
    np.testing.assert_allclose(
        np.exp(posterior(log_probs, np.log(prior), history)), expected[:, :-1], rtol=1e-12
    )
    np.testing.assert_allclose(
        after(log_probs, np.log(prior), history), expected[:, -1], rtol=1e-12
    )


@given(texts(), st.sampled_from(HISTORIES), st.data())
def test_always_a_distribution(
    log_probs: np.ndarray, history: History, data: st.DataObject
) -> None:
    prior = data.draw(priors(len(log_probs)))
    weights = np.exp(posterior(log_probs, logs(prior), history))
    assert weights.shape == log_probs.shape
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, rtol=1e-12)
    np.testing.assert_allclose(weights[:, 0], prior, atol=1e-15)
    assert (weights[prior == 0] == 0).all()


@given(texts(), st.sampled_from(HISTORIES), st.data())
def test_elms_may_be_listed_in_any_order(
    log_probs: np.ndarray, history: History, data: st.DataObject
) -> None:
    prior = data.draw(priors(len(log_probs)))
    order = data.draw(st.permutations(range(len(log_probs))))
    moved = posterior(log_probs[order], logs(prior)[order], history)
    np.testing.assert_allclose(
        np.exp(moved), np.exp(posterior(log_probs, logs(prior), history))[order], atol=1e-12
    )


@given(texts(most_tokens=12), st.sampled_from(HISTORIES), st.integers(1, 7), st.data())
def test_running_equals_the_whole(
    log_probs: np.ndarray, history: History, k: int, data: st.DataObject
) -> None:
    prior = data.draw(priors(len(log_probs)))
    k = min(k, len(log_probs))
    whole = np.exp(keep_top(posterior(log_probs, logs(prior), history), k))
    running = RunningPosterior(logs(prior), history, top_k=k)
    for t, token in enumerate(log_probs.T):
        np.testing.assert_allclose(running.weights(), whole[:, t], atol=1e-9)
        running.observe(token)
    read = RunningPosterior(logs(prior), history, top_k=k)
    read.read(log_probs)
    np.testing.assert_allclose(read.weights(), running.weights(), atol=1e-9)


def test_many_texts_at_once_are_each_one_alone() -> None:
    both = [log_probs_of(seed, 3, 6) for seed in (1, 2)]
    prior = np.log(np.stack([prior_of(3, 3), prior_of(4, 3)]))
    many = RunningPosterior(prior, top_k=2)
    alone = [RunningPosterior(row, top_k=2) for row in prior]
    for t in range(6):
        many.observe(np.stack([one[:, t] for one in both]))
        for text, one in zip(both, alone, strict=True):
            one.observe(text[:, t])
        np.testing.assert_allclose(many.weights(), [one.weights() for one in alone], rtol=1e-12)


def test_a_text_that_nobody_could_have_written_says_nothing() -> None:
    never = np.array([[-1.0, -np.inf, -1.0], [-2.0, -np.inf, -3.0]])
    prior = np.array([0.3, 0.7])
    weights = np.exp(posterior(never, np.log(prior)))
    assert weights[:, 1] @ [1, 0] > 0.3
    np.testing.assert_allclose(weights[:, 2], prior)
    np.testing.assert_allclose(after(never, np.log(prior)), prior)


def test_an_elm_that_was_wrong_once_is_out_for_good_but_not_without_history() -> None:
    once = np.array([[-1.0, -np.inf, -1.0, -1.0], [-2.0, -2.0, -2.0, -2.0]])
    even = np.log([0.5, 0.5])
    np.testing.assert_array_equal(np.exp(posterior(once, even))[:, 2:], [[0, 0], [1, 1]])
    assert np.exp(posterior(once, even, "previous"))[0, 3] > 0.5


def test_nothing_read_yet_is_the_prior() -> None:
    prior = np.array([0.2, 0.8])
    assert posterior(np.zeros((2, 0)), np.log(prior)).shape == (2, 0)
    np.testing.assert_allclose(after(np.zeros((2, 0)), np.log(prior)), prior)
    running = RunningPosterior(np.log(prior))
    running.read(np.zeros((2, 0)))
    np.testing.assert_allclose(running.weights(), prior)


def test_a_prior_need_not_be_normalised() -> None:
    log_probs = log_probs_of(5, 2, 4)
    np.testing.assert_allclose(
        posterior(log_probs, np.array([3.0, 3.0])),
        posterior(log_probs, np.log([0.5, 0.5])),
        atol=1e-12,
    )


@pytest.mark.parametrize(
    ("log_probs", "log_prior", "field"),
    [
        (np.zeros(3), np.zeros(3), "log_probs"),
        (np.zeros((2, 3)), np.zeros(3), "log_probs"),
        (np.full((2, 3), np.nan), np.zeros(2), "log_probs"),
        (np.full((2, 3), 0.1), np.zeros(2), "log_probs"),
        (np.zeros((2, 3)), np.full(2, -np.inf), "log_prior"),
        (np.zeros((2, 3)), np.full(2, np.nan), "log_prior"),
        (np.zeros((2, 3)), np.full(2, np.inf), "log_prior"),
        (np.zeros((2, 3)), np.zeros((2, 2)), "log_prior"),
        (np.zeros((2, 3)), np.zeros(0), "log_prior"),
    ],
)
def test_refuses_what_is_no_probability(
    log_probs: np.ndarray, log_prior: np.ndarray, field: str
) -> None:
    with pytest.raises(LogProbsError) as caught:
        posterior(log_probs, log_prior)
    assert caught.value.field == field


def test_running_refuses_what_does_not_fit() -> None:
    with pytest.raises(TopKError, match="3"):
        RunningPosterior(np.zeros(2), top_k=3)
    with pytest.raises(ArgumentError, match="history='some'"):
        RunningPosterior(np.zeros(2), "some")  # type: ignore[arg-type]
    running = RunningPosterior(np.zeros(2))
    with pytest.raises(LogProbsError, match="shape"):
        running.observe(np.zeros(3))
    with pytest.raises(LogProbsError, match="NaN"):
        running.observe(np.array([0.0, np.nan]))
    with pytest.raises(LogProbsError, match="shape"):
        running.read(np.zeros((3, 2)))
    with pytest.raises(LogProbsError, match="observe"):
        RunningPosterior(np.zeros((2, 2))).read(np.zeros((2, 2)))
