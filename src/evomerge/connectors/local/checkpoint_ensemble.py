"""The ensemble of ELMs beside which merges of their weights are held (arXiv 2208.03306, 3.2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.connectors.base import Scores, Usage
from evomerge.connectors.local.evaluator import LocalEvaluator
from evomerge.connectors.local.forest.errors import BrokenElmError
from evomerge.connectors.local.forest.log_probs import token_log_probs
from evomerge.connectors.local.merged_weights import MergedWeights
from evomerge.connectors.local.rows import Row
from evomerge.connectors.local.stopping import Stopped, in_thread, never
from evomerge.evaluation.example import Example
from evomerge.evaluation.metrics import check_metric
from evomerge.merging.checkpoint.space import CheckpointSpace
from evomerge.merging.forest import ensemble
from evomerge.merging.forest.prior import estimate
from evomerge.optimizers.candidate import Candidate, FloatArray, one_hot


class ElmReader:
    """Lets every ELM of a space read rows, one ELM after the other, in the memory of the seed.

    Args:
        merging: the seed, and the ELMs as candidates.
        batch_tokens: padded tokens of one forward at most.
    """

    def __init__(self, merging: MergedWeights[CheckpointSpace], batch_tokens: int) -> None:
        self._merging = merging
        self._batch_tokens = batch_tokens

    @property
    def elms(self) -> int:
        """N."""
        return self._merging.space.size

    def log_probs(self, rows: Sequence[Row], stopped: Stopped = never) -> list[FloatArray]:
        """What each ELM gives to every token of each row, its prompt's too.

        Returns:
            Of each row (N, T - 1) float64: of all its T tokens but the first.

        Raises:
            BrokenElmError: an ELM gives NaN.
            ScoringCancelledError: `stopped` said so.
        """
        whole = [Row(row.tokens, 1) for row in rows]
        read = []
        for elm in range(self.elms):
            alone = one_hot(elm, self.elms, self._merging.space.groups)
            with self._merging.merged(alone):
                read.append(
                    token_log_probs(
                        self._merging.base, whole, batch_tokens=self._batch_tokens, stopped=stopped
                    )
                )
        return [np.stack(of_row) for of_row in zip(*read, strict=True)]

    def prior(self, rows: Sequence[Row]) -> FloatArray:
        """What each ELM weighs before a text of this domain, (N,) float64 with sum 1.

        The moving average of the posteriors of the rows, in their order; see `prior.estimate`.

        Raises:
            BrokenElmError: an ELM gives NaN.
        """
        return estimate(self.log_probs(rows))


class EnsembleEvaluator:
    """Scores the ensemble of all ELMs; every candidate it is given stands for it.

    The posterior reads everything before a token: the prompt, then the answer so far. For metrics
    of `LIKELIHOODS`.

    Args:
        reader: of the ELMs.
        prior: (N,), what each weighs before a row.
        scoring: makes rows of examples and losses of likelihoods.
        metric: of `scoring`.
        clock: seconds, for the usage.
    """

    def __init__(
        self,
        reader: ElmReader,
        prior: FloatArray,
        scoring: LocalEvaluator,
        metric: str,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._reader = reader
        with np.errstate(divide="ignore"):
            self._log_prior = np.log(prior)
        self._scoring = scoring
        self._metric = metric
        self._clock = clock

    def width(self, examples: Sequence[Example]) -> int:
        """All candidates stand for the same, so that there is no reason to score several."""
        return 1

    async def score(self, candidates: Sequence[Candidate], examples: Sequence[Example]) -> Scores:
        """See `Evaluator.score`. NaN where an ELM is broken.

        Raises:
            LocalModelError: a row does not fit.
            MetricError: the metric does not suit the examples.
        """
        return await in_thread(lambda stopped: self._score(len(candidates), examples, stopped))

    def _score(self, candidates: int, examples: Sequence[Example], stopped: Stopped) -> Scores:
        started = self._clock()
        check_metric(self._metric, examples)
        losses = self._scoring.likelihood_losses(lambda rows: self._nll(rows, stopped), examples)
        tokens = self._reader.elms * self._scoring.tokens(examples)
        usage = Usage(tokens=tokens, seconds=self._clock() - started)
        weights = self._scoring.weights(examples)
        return Scores(np.repeat(losses, candidates, axis=0), weights, usage)

    def _nll(self, rows: Sequence[Row], stopped: Stopped) -> NDArray[np.float64]:
        """-log p_mix of the scored tokens, (1, rows)."""
        try:
            read = self._reader.log_probs(rows, stopped)
        except BrokenElmError:
            return np.full((1, len(rows)), np.nan)
        mixed = [ensemble.score(log_probs, self._log_prior) for log_probs in read]
        return np.array(
            [[-every[-row.scored :].sum() for every, row in zip(mixed, rows, strict=True)]]
        )
