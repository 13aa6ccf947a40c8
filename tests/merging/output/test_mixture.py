"""Mixtures of token probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.merging.output.errors import EvidenceError
from evomerge.merging.output.mixture import MixtureFusion, TokenScores

P = np.array([[0.5, 0.1, 0.9], [0.1, 0.8, 0.3]])
BOTH = np.ones(2, bool)


def loss(beta: list[float], alpha: list[float] | None = None, answered: object = BOTH) -> float:
    fusion = MixtureFusion([TokenScores(np.log(P), answered, bytes=6)])  # type: ignore[arg-type]
    a, b = np.array([alpha or [1.0, 1.0]]), np.array([beta])
    return float(fusion.losses(a, b, "cross_entropy")[0, 0])


def test_probabilities_are_mixed_not_their_logarithms() -> None:
    assert loss([3.0, 1.0]) == pytest.approx(-np.log(0.75 * P[0] + 0.25 * P[1]).mean())


def test_an_expert_alone_gives_its_own_loss() -> None:
    assert loss([0.4, 0.0]) == pytest.approx(-np.log(P[0]).mean())
    assert loss([0.0, 0.4]) == pytest.approx(-np.log(P[1]).mean())


def test_a_negative_weight_is_none_and_alpha_only_drops() -> None:
    assert loss([1.0, -3.0]) == loss([1.0, 0.0])
    assert loss([1.0, 1.0], [0.3, 1.0]) == loss([1.0, 1.0])
    assert loss([1.0, 1.0], [0.04, 1.0]) == loss([0.0, 1.0])
    fusion = MixtureFusion([TokenScores(np.log(P), BOTH, bytes=6)])
    kept = fusion.kept(np.ones((1, 2)), np.array([[1.0, -3.0]]))
    np.testing.assert_array_equal(kept, [[True, False]])


def test_nobody_to_ask_is_a_guess_of_every_byte() -> None:
    guess = 6 * np.log(256) / 3
    assert loss([-1.0, 0.0]) == pytest.approx(guess)
    assert loss([1.0, 1.0], answered=np.zeros(2, bool)) == pytest.approx(guess)
    assert loss([1.0, 0.0], answered=np.array([False, True])) == pytest.approx(guess)


def test_examples_count_by_their_tokens() -> None:
    long, short = np.log(P), np.log(P[:, :1])
    fusion = MixtureFusion([TokenScores(long, BOTH, 6), TokenScores(short, BOTH, 2)])
    assert fusion.weights().tolist() == [3, 1]
    one = np.array([[1.0, 0.0]])
    np.testing.assert_allclose(
        fusion.losses(np.ones((1, 2)), one, "cross_entropy"),
        [[-np.log(P[0]).mean(), -np.log(P[0, 0])]],
    )


def test_log_probs_are_what_losses_are_the_means_of() -> None:
    long, short = np.log(P), np.log(P[:, :1])
    alone = np.array([True, False])
    fusion = MixtureFusion([TokenScores(long, BOTH, 6), TokenScores(short, alone, 2)])
    alpha, beta = np.ones((2, 2)), np.array([[3.0, 1.0], [-1.0, 2.0]])
    first, second = fusion.log_probs(alpha, beta)
    np.testing.assert_allclose(np.exp(first), [0.75 * P[0] + 0.25 * P[1], P[1]])
    np.testing.assert_allclose(np.exp(second), [[P[0, 0]], [np.nan]])
    losses = fusion.losses(alpha, beta, "cross_entropy")
    np.testing.assert_allclose(losses[:, 0], -first.mean(axis=1))
    np.testing.assert_allclose(losses[0, 1], -second[0, 0])


def test_next_to_impossible_tokens_stay_finite() -> None:
    scores = TokenScores(np.array([[-1e9, -500.0]]), np.ones(1, bool), 2)
    found = MixtureFusion([scores]).losses(np.ones((1, 1)), np.ones((1, 1)), "cross_entropy")
    assert found == pytest.approx((600 + 500) / 2)


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(EvidenceError, match="evidence"):
        MixtureFusion([])
    with pytest.raises(EvidenceError, match="log_probs"):
        TokenScores(np.zeros((2, 0)), BOTH, 1)
    with pytest.raises(EvidenceError, match="log_probs"):
        TokenScores(np.full((2, 1), 0.1), BOTH, 1)
    with pytest.raises(EvidenceError, match="log_probs"):
        TokenScores(np.full((2, 1), np.nan), BOTH, 1)
    with pytest.raises(EvidenceError, match="answered"):
        TokenScores(np.zeros((2, 1)), np.ones(3, bool), 1)
