"""Every weighting of a forest, from log-probabilities that were gathered once.

An ensemble of fixed weights w gives a text  sum_t log sum_j w_j p_j(t): see `token_blocks` for how
that is had for thousands of w.

An ensemble by posterior needs no mixing with the full history: it gives the text
log sum_j pi_j prod_t p_j(t) (see `ensemble`). With the previous token alone, a token gets
sum_j pi_j p_j(t-1) p_j(t) / sum_j pi_j p_j(t-1), a quotient of two such mixtures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.averages import checked_rows
from evomerge.merging.forest.errors import LogProbsError
from evomerge.merging.forest.logs import checked_log_probs, log_sum
from evomerge.merging.forest.posterior import History, checked_history
from evomerge.merging.forest.token_blocks import TokenBlocks


class Reweighting:
    """Texts that each ELM has read, ready to be weighted in any way.

    Args:
        texts: log-probabilities (n, T) of each text, at least one text; T may differ. -inf is a
            probability of 0.

    Raises:
        LogProbsError: no text, no ELM, texts of different ELMs, NaN, or above 0.
    """

    def __init__(self, texts: Sequence[NDArray[np.floating]]) -> None:
        if not texts:
            raise LogProbsError("texts", "must be at least one")
        first = checked_log_probs(texts[0])
        self._texts = [first, *(checked_log_probs(text, len(first)) for text in texts[1:])]
        self.elms = len(first)
        self.tokens: NDArray[np.int64] = np.array([text.shape[1] for text in self._texts])

    def mixtures(self, weights: NDArray[np.floating], threads: int = 1) -> FloatArray:
        """What ensembles of fixed weights give to each text.

        Args:
            weights: (m, n) at least 0, with sum 1 in each row.
            threads: so many work beside each other; the result does not depend on it.

        Returns:
            (m, texts) float64, sum_t log p_mix, nats, within 10^-6 nats a token of float64's.

        Raises:
            WeightsError: another shape, or a row that is no distribution.
        """
        return self._tokens.sums(checked_rows(weights, self.elms, "weights"), threads)

    def posteriors(
        self, priors: NDArray[np.floating], history: History = "full", threads: int = 1
    ) -> FloatArray:
        """What ensembles by posterior, of all ELMs, give to each text.

        Args:
            priors: (m, n) at least 0, with sum 1 in each row; probabilities, not logarithms.
            history: what the posterior has seen, see `posterior`.
            threads: see `mixtures`.

        Returns:
            (m, texts) float64, sum_t log p_mix, nats; with the full history by float64 alone.

        Raises:
            WeightsError: another shape, or a row that is no distribution.
            ArgumentError: an unknown history.
        """
        checked_history(history)
        given = checked_rows(priors, self.elms, "priors")
        if history == "full":
            with np.errstate(divide="ignore"):
                return log_sum(np.log(given)[:, :, None] + self._whole, axis=1)
        pairs, before = self._previous
        impossible = np.isneginf(below := before.sums(given, threads))
        above = pairs.sums(given, threads)
        # Where a history is impossible, so is the text that it is part of.
        return np.where(impossible, -np.inf, above - np.where(impossible, 0.0, below))

    @cached_property
    def _tokens(self) -> TokenBlocks:
        return TokenBlocks(self._texts)

    @cached_property
    def _whole(self) -> FloatArray:
        """sum_t log p_j(t), (n, texts)."""
        return np.stack([text.sum(axis=1) for text in self._texts], axis=1)

    @cached_property
    def _previous(self) -> tuple[TokenBlocks, TokenBlocks]:
        """Above: p_j(0) and every p_j(t-1) p_j(t); below: every p_j(t-1)."""
        below = [text[:, :-1] for text in self._texts]
        above = [text.copy() for text in self._texts]
        for pairs, before in zip(above, below, strict=True):
            pairs[:, 1:] += before
        return TokenBlocks(above), TokenBlocks(below)
