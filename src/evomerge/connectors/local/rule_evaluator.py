"""The evaluator of merging rules: experts alone as they are, all others by their merged weights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from evomerge.connectors.base import Evaluator, Scores, Usage
from evomerge.evaluation.example import Example
from evomerge.merging.rules.space import is_alone
from evomerge.optimizers.candidate import Candidate


class RuleEvaluator:
    """Scores candidates of a rule.

    Args:
        merged: scores what the rule makes of several experts.
        alone: scores one expert alone, and the base: many beside each other, where it can.
    """

    def __init__(self, merged: Evaluator, alone: Evaluator) -> None:
        self._merged = merged
        self._alone = alone

    def width(self, examples: Sequence[Example]) -> int:
        """See `Evaluator.width`; that of experts alone."""
        return self._alone.width(examples)

    async def score(self, candidates: Sequence[Candidate], examples: Sequence[Example]) -> Scores:
        """See `Evaluator.score`. Raises as its two evaluators."""
        # Cut by cut, so that who is scored beside whom does not depend on how much is asked.
        step = self.width(examples)
        parts = [
            await (self._alone if alone else self._merged).score(list(some), examples)
            for at in range(0, len(candidates), step)
            for alone, some in groupby(candidates[at : at + step], is_alone)
        ]
        return Scores(
            losses=np.concatenate([each.losses for each in parts]),
            weights=parts[0].weights,
            usage=sum((each.usage for each in parts), Usage()),
        )
