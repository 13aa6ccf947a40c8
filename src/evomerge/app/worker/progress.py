"""Where a job is, as its row and its events show it."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import Any

from evomerge.app.db.repositories.evaluations import Recorded
from evomerge.app.worker.ledger import Note


class Progress:
    """Counts what is scored and foresees the rest."""

    def __init__(self) -> None:
        self._evaluations = 0
        self._tokens = 0
        self._seconds = 0.0  # spent scoring
        self._best = math.inf
        self._stage = "loading"
        self._generation = 0

    def add(self, rows: Sequence[Recorded], competing: Container[str]) -> None:
        """Count scored candidates of the search; those of `competing` stages may be its best."""
        for row in rows:
            self._evaluations += 1
            self._tokens += row.tokens
            self._seconds += row.seconds
            self._stage, self._generation = row.stage, row.generation
            if row.stage in competing and row.loss < self._best:
                self._best = row.loss

    def snapshot(self, planned: int, stage: str | None = None) -> dict[str, Any]:
        """The `progress` of the job: JSON, without NaN.

        Args:
            planned: evaluations of the whole search at most.
            stage: what is under way when it is no stage of the search.
        """
        left = max(0, planned - self._evaluations)
        pace = self._seconds / self._evaluations if self._evaluations else None
        return {
            "stage": stage or self._stage,
            "generation": self._generation,
            "evaluations": self._evaluations,
            "planned_evaluations": max(planned, self._evaluations),
            "best_loss": finite(self._best),
            "tokens": self._tokens,
            "tokens_per_second": self._tokens / self._seconds if self._seconds > 0 else None,
            "eta_seconds": None if pace is None else left * pace,
        }

    def metrics(self, rows: Sequence[Recorded]) -> Note:
        """The event of one whole generation."""
        losses = [row.loss for row in rows if math.isfinite(row.loss)]
        first = rows[0]
        data = {
            "stage": first.stage,
            "generation": first.generation,
            "evaluations": self._evaluations,
            "best_loss": finite(self._best),
            "generation_best": min(losses, default=None),
            "generation_mean": sum(losses) / len(losses) if losses else None,
            "broken": len(rows) - len(losses),
            "tokens": self._tokens,
        }
        best = "none" if math.isinf(self._best) else f"{self._best:.6g}"
        message = f"{first.stage} generation {first.generation}: best loss {best}"
        return Note(message, type="metrics", data=data)


def finite(value: float) -> float | None:
    """`value`, or None where JSON has no word for it."""
    return value if math.isfinite(value) else None
