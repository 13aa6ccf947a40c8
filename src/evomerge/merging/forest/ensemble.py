"""The ensemble of a forest: ELMs' probabilities mixed by weights (arXiv 2208.03306, section 3.2).

    p(x_t | x_<t) = sum_j p(D=j | x_<t) p_j(x_t | x_<t)

Probabilities are mixed, not logits. With the full history and all ELMs, the tokens' sum is known
without mixing anything, which tests rely on:
sum_t log p(x_t | x_<t) = logsumexp_j(log pi_j + sum_t log p_j(x_t | x_<t)).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.errors import LogProbsError
from evomerge.merging.forest.logs import checked_log_prior, checked_values, log_sum
from evomerge.merging.forest.posterior import History, posterior
from evomerge.merging.forest.prior import Prior
from evomerge.merging.forest.top_k import checked_k, keep_top


def score(
    log_probs: NDArray[np.floating],
    log_prior: NDArray[np.floating],
    *,
    history: History = "full",
    top_k: int | None = None,
) -> FloatArray:
    """What the ensemble gives to each token of a text.

    Args:
        log_probs: (n, T), see `posterior`.
        log_prior: (n,), see `posterior`.
        top_k: how many ELMs are mixed at each token; all for None. For a static top-k give the
            rows of the ELMs that run, and their prior (`prior.chosen`).

    Returns:
        (T,) float64, log p_mix, at most 0; -inf where no ELM that is mixed gave the token a
        probability.

    Raises:
        LogProbsError: log_probs or log_prior has another shape, or impossible values.
        ArgumentError: an unknown history.
        TopKError: k is no number of ELMs.
    """
    kept = checked_k(top_k, len(checked_log_prior(log_prior)))
    weights = posterior(log_probs, log_prior, history)
    return mixture(log_probs, keep_top(weights, kept))


def score_texts(
    texts: Iterable[NDArray[np.floating]],
    prior: Prior,
    *,
    history: History = "full",
    top_k: int | None = None,
) -> tuple[list[FloatArray], Prior]:
    """`score` of each text in turn, (T,) each, and the prior after the last.

    A prior that is updated is moved by a text after that text was scored, never before.
    """
    scores = []
    for log_probs in texts:
        scores.append(score(log_probs, prior.log, history=history, top_k=top_k))
        prior = prior.after(log_probs)
    return scores, prior


def mixture(log_probs: NDArray[np.floating], log_weights: NDArray[np.floating]) -> FloatArray:
    """Log of the mixed probabilities, log sum_j w_j p_j.

    Args:
        log_probs: (n, ...): of the tokens of a text, say, or of all words that could follow.
        log_weights: (n, ...) of as many axes, each as long or 1; or (n,), the same weights
            everywhere. With sum 1 over the ELMs.

    Returns:
        (...) float64, at most 0.

    Raises:
        LogProbsError: shapes that do not fit, NaN, or log-probabilities above 0.
    """
    given = checked_values(log_probs)
    weights = np.asarray(log_weights, dtype=np.float64)
    if weights.ndim == 1:
        weights = weights.reshape(-1, *[1] * (given.ndim - 1))
    fits = weights.ndim == given.ndim and all(
        one in (1, other) for one, other in zip(weights.shape, given.shape, strict=True)
    )
    if not given.ndim or not fits or len(weights) != len(given):
        raise LogProbsError("log_weights", f"{weights.shape} do not fit log_probs {given.shape}")
    if np.isnan(weights).any():
        raise LogProbsError("log_weights", "holds NaN")
    # Weights' sum is 1 but for rounding, which must not make a certain token more than certain.
    return np.minimum(log_sum(given + weights), 0.0)
