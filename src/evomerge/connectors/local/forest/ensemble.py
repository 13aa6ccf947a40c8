"""Texts scored by the ensemble of a forest.

Each ELM reads each text once, one ELM after the other; what they gave is mixed afterwards. So n
ELMs cost n forwards, and a static top-k those of the k ELMs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.connectors.local.forest.cache import LogProbCache
from evomerge.connectors.local.forest.elms import Elms
from evomerge.connectors.local.forest.log_probs import text_rows, token_log_probs
from evomerge.connectors.local.forest.routing import Routing
from evomerge.connectors.local.rows import Row
from evomerge.connectors.local.stopping import Stopped, never
from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.ensemble import mixture, score_texts
from evomerge.merging.forest.errors import ArgumentError, LogProbsError
from evomerge.merging.forest.posterior import History
from evomerge.merging.forest.prior import LIMIT, WEIGHT, Prior, chosen, estimate
from evomerge.merging.forest.top_k import TopKKind, checked_k, foremost, keep_top

# static: the k ELMs of largest prior run, the others never do; token: all run, and at each token
# the k of largest posterior are mixed.


@dataclass(frozen=True)
class Mixing:
    """How the ELMs of a forest speak together.

    Attributes:
        prior: what each ELM weighs before a text, (n,), and what becomes of it after one.
        history: what the posterior has seen of a text.
        top_k: how many ELMs speak at most; None for all.
        top_k_kind: whether those are chosen by the prior, or anew at each token. A top-k per
            token saves no forward: an ELM that is not mixed now must read on to be weighed later.
        fixed: whether the prior's weights hold for every token, whatever was read; `history` then
            says nothing.

    Raises:
        TopKError: k is no number of these ELMs.
    """

    prior: Prior
    history: History = "full"
    top_k: int | None = None
    top_k_kind: TopKKind = "token"
    fixed: bool = False
    routing: Routing | None = None

    def __post_init__(self) -> None:
        checked_k(self.top_k, len(self.prior.weights))
        if self.routing is not None and len(self.routing.clusters) != len(self.running):
            reason = f"must be of the {len(self.running)} ELMs that run"
            raise ArgumentError("routing", self.routing.clusters, reason)

    @property
    def running(self) -> tuple[int, ...]:
        """Places of the ELMs that run at all; those without a part in the prior never speak."""
        k = self.top_k if self.top_k_kind == "static" else None
        places = foremost(self.prior.weights, k)
        return tuple(place for place in places.tolist() if self.prior.weights[place] > 0)

    @property
    def running_prior(self) -> Prior:
        """The prior of those that run, to sum 1."""
        weights = chosen(self.prior.weights, self.running)
        return Prior(weights, self.prior.mode, self.prior.weight)

    @property
    def token_top_k(self) -> int | None:
        """How many of those that run are mixed at each token; None for all."""
        few = self.top_k is not None and self.top_k < len(self.running)
        return self.top_k if self.top_k_kind == "token" and few else None


@dataclass(frozen=True)
class Scored:
    """Texts as the ensemble scored them.

    Attributes:
        log_probs: of each text (T,) float64, log p_mix of its scored tokens.
        elms: places of the ELMs that ran, k of them.
        prior: theirs after the last text, (k,); moved only where the prior is updated.
    """

    log_probs: list[FloatArray]
    elms: tuple[int, ...]
    prior: Prior


class ForestScorer:
    """Scores texts by the ELMs of one forest.

    Args:
        elms: of the forest.
        batch_tokens: padded tokens of one forward at most.
        context_tokens: tokens that one window of a text may have; the ELMs' context by default.
        cache: of log-probabilities, where they are kept.
        stopped: asked before each batch.
    """

    def __init__(
        self,
        elms: Elms,
        *,
        batch_tokens: int,
        context_tokens: int | None = None,
        cache: LogProbCache | None = None,
        stopped: Stopped = never,
    ) -> None:
        self._elms = elms
        self._batch_tokens = batch_tokens
        self._context_tokens = context_tokens
        self._cache = cache
        self._stopped = stopped

    def rows(self, texts: Sequence[str]) -> list[Row]:
        """Texts as rows, see `text_rows`; they are the same for every ELM."""
        return text_rows(self._elms.any(), texts)

    def log_probs(
        self, rows: Sequence[Row], places: Sequence[int] | None = None
    ) -> list[FloatArray]:
        """What each ELM gives to each scored token.

        Args:
            rows: of texts or blocks.
            places: of the ELMs that read them, k of them, all by default. No other one is loaded.

        Returns:
            Of each row (k, T) float64, in the order of `places`.

        Raises:
            BrokenElmError: an ELM gives NaN.
            ScoringCancelledError: `stopped` said so.
            LogProbCacheError: a cache's file cannot be used.
            BaseFolderError, ElmChangedError, ElmMismatchError: an ELM cannot be loaded.
        """
        wanted = range(len(self._elms)) if places is None else places
        read = [
            token_log_probs(
                self._elms.model(place),
                rows,
                batch_tokens=self._batch_tokens,
                context_tokens=self._context_tokens,
                cache=self._cache,
                stopped=self._stopped,
            )
            for place in wanted
        ]
        return [np.stack(of_row) for of_row in zip(*read, strict=True)]

    def score(self, rows: Sequence[Row], mixing: Mixing) -> Scored:
        """What the ensemble gives to each scored token.

        Only the ELMs that run under `mixing` read anything. A prior that is updated moves from
        row to row, in the order given.

        Raises:
            LogProbsError: the prior is of another number of ELMs.
            Others: see `log_probs`.
        """
        if len(mixing.prior.weights) != len(self._elms):
            raise LogProbsError(
                "prior", f"is of {len(mixing.prior.weights)} ELMs, there are {len(self._elms)}"
            )
        places, prior = mixing.running, mixing.running_prior
        read = self.log_probs(rows, places)
        if mixing.fixed:
            weights = keep_top(prior.log, mixing.token_top_k)
            return Scored([mixture(each, weights) for each in read], places, prior)
        if mixing.routing is not None:
            routed = mixing.routing.of_rows(self._elms.any().tokenizer, rows)
            kept = [keep_top(of_row, mixing.token_top_k) for of_row in routed]
            return Scored(list(map(mixture, read, kept)), places, prior)
        found, prior = score_texts(read, prior, history=mixing.history, top_k=mixing.token_top_k)
        return Scored(found, places, prior)

    def prior(
        self, development: Sequence[Row], *, weight: float = WEIGHT, limit: int = LIMIT
    ) -> FloatArray:
        """The prior of all ELMs from development texts, (n,); texts beyond `limit` are not read.

        Raises:
            ArgumentError: there is no text, or weight or limit is out of range.
            Others: see `log_probs`.
        """
        return estimate(self.log_probs(development[: max(limit, 0)]), weight, limit)
