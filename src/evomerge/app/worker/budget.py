"""How much more a job may score."""

from __future__ import annotations

import math

from evomerge.app.schemas.spec import Budget


class Allowance:
    """What is left of a budget, given what has been scored.

    Replaying a log through `spend` gives the same allowance as scoring it did, so a resumed
    search is cut where the uninterrupted one was (time apart, which never is the same).

    Args:
        budget: the job's.
        uncounted: evaluations, the first of the search, that its limit of evaluations is not
            about: what only the baselines need.

    Attributes:
        evaluations, tokens: spent so far.
    """

    def __init__(self, budget: Budget, uncounted: int = 0) -> None:
        self._budget = budget
        self._uncounted = uncounted
        self.evaluations = 0
        self.tokens = 0

    def spend(self, evaluations: int, tokens: int) -> None:
        """Note what a cut has cost."""
        self.evaluations += evaluations
        self.tokens += tokens

    def limit(self, name: str | None) -> float | None:
        """The job's limit of that name."""
        return None if name is None else getattr(self._budget, name)

    def affords(self, wanted: int, seconds: float) -> tuple[int, str | None]:
        """How many of the `wanted` candidates may still be scored, and what forbids the rest.

        Args:
            wanted: candidates of the next cut.
            seconds: running time so far, over all attempts.

        Returns:
            A number in 0..wanted, and below `wanted` the name of the budget that is reached.
            Tokens are foreseen by the mean of what candidates have cost; the first cut has no
            such mean and always goes.
        """
        limits = {
            "evaluations": self._evaluations_left(),
            "tokens": self._candidates_by_tokens(),
            "seconds": 0.0 if self._is_late(seconds) else math.inf,
        }
        name = min(limits, key=lambda key: limits[key])
        if limits[name] >= wanted:
            return wanted, None
        return max(0, int(limits[name])), name

    def _evaluations_left(self) -> float:
        limit = self._budget.evaluations
        return math.inf if limit is None else limit + self._uncounted - self.evaluations

    def _candidates_by_tokens(self) -> float:
        limit = self._budget.tokens
        if limit is None or self.tokens == 0:
            return math.inf
        return (limit - self.tokens) * self.evaluations // self.tokens

    def _is_late(self, seconds: float) -> bool:
        limit = self._budget.seconds
        return limit is not None and seconds >= limit
