"""Which domain a text is of, before each of its tokens (arXiv 2208.03306, section 3.2).

    a_j(t) = log pi_j + sum_{s<t} log p_j(x_s | x_<s),   p(D=j | x_<t) = softmax_j a(t)

The weights of a token depend on what stands before it alone. History "previous" is what the
authors' released code does: of the sum only the last term is taken,
a_j(t) = log pi_j + log p_j(x_{t-1} | x_<t-1).

An ELM that gave probability 0 to a token of its history has weight 0. Where that is so of every
ELM with a part in the prior, the text says nothing about them, and the weights are the prior's.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.errors import ArgumentError, LogProbsError
from evomerge.merging.forest.logs import (
    checked_log_prior,
    checked_log_probs,
    checked_values,
    normalised,
)
from evomerge.merging.forest.top_k import checked_k, keep_top

# What a posterior has seen: the whole text so far (the paper), or only the token before (the
# authors' released code).
History = Literal["full", "previous"]


def posterior(
    log_probs: NDArray[np.floating],
    log_prior: NDArray[np.floating],
    history: History = "full",
) -> FloatArray:
    """Log-weights before each token of a text.

    Args:
        log_probs: (n, T) natural logarithms, of any float type; -inf is a probability of 0.
        log_prior: (n,), log pi; need not be normalised.
        history: see the module.

    Returns:
        (n, T) float64, normalised over the ELMs; column t depends on columns before t alone.

    Raises:
        LogProbsError: log_probs or log_prior has another shape, or impossible values.
        ArgumentError: an unknown history.
    """
    return _evidence(log_probs, log_prior, history)[:, :-1]


def after(
    log_probs: NDArray[np.floating],
    log_prior: NDArray[np.floating],
    history: History = "full",
) -> FloatArray:
    """Weights after a whole text, (n,) float64 with sum 1: what the text itself is taken for.

    Args and errors are those of `posterior`.
    """
    weights: FloatArray = np.exp(_evidence(log_probs, log_prior, history)[:, -1])
    return weights


def _evidence(
    log_probs: NDArray[np.floating], log_prior: NDArray[np.floating], history: History
) -> FloatArray:
    """Normalised a before each token and after the last, (n, T + 1)."""
    checked_history(history)
    prior = checked_log_prior(log_prior)
    if prior.ndim != 1:
        raise LogProbsError("log_prior", f"has shape {prior.shape}, must be (n,)")
    given = relative(checked_log_probs(log_probs, len(prior)))
    seen = np.zeros((len(prior), given.shape[1] + 1))
    if history == "full":
        np.cumsum(given, axis=1, out=seen[:, 1:])
    else:
        seen[:, 1:] = given
    return _weighed(prior[:, None], seen, axis=0)


class RunningPosterior:
    """The same, token by token, for texts that are being written; one text or many at once.

    Args:
        log_prior: (n,), or (rows, n) for many texts; need not be normalised.
        history: see the module.
        top_k: how many ELMs are mixed at each token; all for None.

    Raises:
        LogProbsError: log_prior has another shape, or impossible values.
        ArgumentError: an unknown history.
        TopKError: k is no number of ELMs.
    """

    def __init__(
        self,
        log_prior: NDArray[np.floating],
        history: History = "full",
        top_k: int | None = None,
    ) -> None:
        checked_history(history)
        self._prior = checked_log_prior(log_prior)
        self._full = history == "full"
        self._top_k = checked_k(top_k, self._prior.shape[-1])
        self._seen = np.zeros_like(self._prior)

    def weights(self) -> FloatArray:
        """Of the token that comes next, shape of the prior, float64 with sum 1 in each row."""
        log_weights = _weighed(self._prior, self._seen, axis=-1)
        weights: FloatArray = np.exp(keep_top(log_weights, self._top_k, axis=-1))
        return weights

    def observe(self, log_probs: NDArray[np.floating]) -> None:
        """A token was read or written.

        Args:
            log_probs: shape of the prior, what each ELM gave to it.

        Raises:
            LogProbsError: another shape, NaN, or above 0.
        """
        given = checked_values(log_probs)
        if given.shape != self._prior.shape:
            wanted = f"must be {self._prior.shape}"
            raise LogProbsError("log_probs", f"has shape {given.shape}, {wanted}")
        step = relative(given, axis=-1)
        self._seen = self._seen + step if self._full else step

    def read(self, log_probs: NDArray[np.floating]) -> None:
        """Many tokens of one text at once, as if each were observed; of a prompt, say.

        Args:
            log_probs: (n, T).

        Raises:
            LogProbsError: another shape, NaN, or above 0; or there are many texts.
        """
        if self._prior.ndim != 1:
            raise LogProbsError("log_probs", "many texts are read token by token, by `observe`")
        given = checked_log_probs(log_probs, len(self._prior))
        if given.shape[1]:
            steps = relative(given)
            self._seen = self._seen + steps.sum(axis=1) if self._full else steps[:, -1]


def checked_history(history: str) -> None:
    """Nothing but a known history passes.

    Raises:
        ArgumentError: another word.
    """
    if history not in get_args(History):
        raise ArgumentError("history", history, f"must be one of {', '.join(get_args(History))}")


def relative(log_probs: FloatArray, axis: int = 0) -> FloatArray:
    """Log-probabilities over the best ELM's at each token.

    No weight changes by it, but sums of the foremost ELMs stay small, and so keep their digits
    over 10^5 tokens. Where all are -inf they stay so.
    """
    best = log_probs.max(axis=axis, keepdims=True)
    over: FloatArray = log_probs - np.where(np.isneginf(best), 0.0, best)
    return over


def _weighed(prior: FloatArray, seen: FloatArray, axis: int) -> FloatArray:
    """Normalised log-weights, the prior's where nobody could have written what was seen."""
    joint = prior + seen
    nobody = np.isneginf(joint).all(axis=axis, keepdims=True)
    return normalised(np.where(nobody, prior, joint), axis=axis)
