"""The evaluator of merged checkpoints: weights written into a seed in memory, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from evomerge.connectors.base import Scores, Usage
from evomerge.connectors.local.evaluator import LocalEvaluator, Scoring
from evomerge.connectors.local.merged_weights import MergedWeights, WeightSpace
from evomerge.connectors.local.stopping import Stopped, in_thread
from evomerge.evaluation.example import Example
from evomerge.evaluation.metrics import CROSS_ENTROPY
from evomerge.merging.checkpoint.filling import Rounding
from evomerge.merging.lora.population import Population
from evomerge.optimizers.candidate import Candidate

# The model as it is, without an update.
AS_IT_IS = Population(1, {})


class CheckpointEvaluator:
    """Scores candidates over ELMs of one seed; see `LocalEvaluator` for what losses are.

    The whole model is another one for each candidate, so that they run one after the other.

    Args:
        merging: the seed, and what candidates mean; several evaluators may share it.
        metric: what the losses are.
        dtype: see `MergedWeights.merged`.
        scoring: see `LocalEvaluator`.
    """

    def __init__(
        self,
        merging: MergedWeights[WeightSpace],
        metric: str = CROSS_ENTROPY,
        *,
        dtype: Rounding = None,
        **scoring: Unpack[Scoring],
    ) -> None:
        self._merging = merging
        self._dtype = dtype
        self._scoring = LocalEvaluator(merging.base, Unchanged(), metric, **scoring)

    def check(self, examples: Sequence[Example]) -> None:
        """See `LocalEvaluator.check`."""
        self._scoring.check(examples)

    def width(self, examples: Sequence[Example]) -> int:
        """One: see the class."""
        return 1

    async def score(self, candidates: Sequence[Candidate], examples: Sequence[Example]) -> Scores:
        """See `Evaluator.score`. Runs in a thread; when cancelled it stops after its batch.

        Raises:
            CandidateError: a candidate does not fit the space.
            LocalModelError: a row does not fit.
            MetricError: the metric does not suit the examples.
        """
        return await in_thread(lambda stopped: self._score(candidates, examples, stopped))

    def _score(
        self, candidates: Sequence[Candidate], examples: Sequence[Example], stopped: Stopped
    ) -> Scores:
        parts = []
        for candidate in candidates:
            with self._merging.merged(candidate, self._dtype):
                parts.append(self._scoring.score_now(AS_IT_IS, examples, stopped))
        return Scores(
            losses=np.concatenate([each.losses for each in parts]),
            weights=parts[0].weights,
            usage=sum((each.usage for each in parts), Usage()),
        )


class Unchanged:
    """A space without candidates: what is scored is the model as it is."""

    def realise(self, candidates: Sequence[Candidate]) -> Population:
        return AS_IT_IS
