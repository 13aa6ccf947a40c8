"""Watches a training: tells its progress, and ends it when it is asked to or time is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from evomerge.app.worker.ledger import Note
from evomerge.app.worker.teller import Teller
from evomerge.connectors.local.training.progress import Progress

# So many lines of metrics in a job's history at most, whatever its length.
_LINES = 100


class TrainingWatch:
    """A `Watch` of a training job.

    Args:
        teller: the job's books.
        reported: the step that earlier attempts have told of; it is not told of again.
        seconds: running time of the job after which its training ends; None for any.

    Attributes:
        late: whether the time was up.
        pace: tokens a second of this attempt; None before its first step.
    """

    def __init__(
        self,
        teller: Teller,
        reported: int,
        seconds: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._teller = teller
        self._reported = reported
        self._seconds = seconds
        self._clock = clock
        self._first: tuple[int, float] | None = None  # tokens and time as training began
        self.pace: float | None = None
        self.late = False

    def __call__(self, progress: Progress) -> bool:
        """See `Watch`. Between the pieces of what is no step, only a stop ends the work."""
        training = progress.phase == "training"
        if training:
            self._measure(progress)
        metrics = self._metrics(progress) if training else None
        if metrics is not None:
            self._reported = progress.step
        stopping = self._teller.tell(self.snapshot(progress), metrics)
        if training and self._seconds is not None and self._teller.seconds >= self._seconds:
            self.late = True
        return stopping or (training and self.late)

    def no_longer(self) -> None:
        """The time is up and the training ended: what remains to be done is done."""
        self._seconds, self.late = None, False

    def snapshot(self, progress: Progress) -> dict[str, Any]:
        """The `progress` of the job: JSON, without NaN."""
        each = progress.own_tokens // progress.step if progress.step else 0
        planned = each * progress.steps
        left = planned - progress.own_tokens
        return {
            "stage": progress.phase,
            "step": progress.step,
            "planned_steps": progress.steps,
            "tokens": progress.own_tokens,
            "planned_tokens": planned,
            "loss": progress.loss,
            "learning_rate": progress.learning_rate,
            "tokens_per_second": self.pace,
            "eta_seconds": left / self.pace if self.pace and planned else None,
            "reported_step": self._reported,
        }

    def _measure(self, progress: Progress) -> None:
        now = self._clock()
        if self._first is None:
            self._first = progress.own_tokens, now
        tokens, since = self._first
        if progress.own_tokens > tokens and now > since:
            self.pace = (progress.own_tokens - tokens) / (now - since)

    def _metrics(self, progress: Progress) -> Note | None:
        every = max(1, progress.steps // _LINES)
        due = progress.step % every == 0 or progress.step == progress.steps
        if not due or progress.step <= self._reported or progress.loss is None:
            return None
        data = {
            "step": progress.step,
            "planned_steps": progress.steps,
            "loss": progress.loss,
            "learning_rate": progress.learning_rate,
            "tokens": progress.own_tokens,
            "tokens_per_second": self.pace,
        }
        message = f"step {progress.step} of {progress.steps}: loss {progress.loss:.4g}"
        return Note(message, type="metrics", data=data)
