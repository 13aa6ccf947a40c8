"""What the run of a job needs of models, whatever they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from evomerge.app.schemas.spec import Metric
from evomerge.connectors.base import Evaluator
from evomerge.evaluation import Example
from evomerge.optimizers import Candidate


class StoredModel(Protocol):
    """A merged model exactly as it is stored, rounding and all."""

    def evaluator(self, metric: Metric) -> Evaluator:
        """Scores the stored model: every candidate it is given stands for it."""
        ...

    def write(self, folder: Path) -> None:
        """Write the model's files into an empty folder; the same model, the same bytes.

        Raises:
            OSError: the disk is full or refuses.
        """
        ...


class Workbench(Protocol):
    """A pool, ready to be combined and scored."""

    @property
    def base_hash(self) -> str:
        """SHA-256 of the base model."""
        ...

    def check(self, metric: Metric, examples: Sequence[Example]) -> None:
        """Refuse, before anything is spent, examples that cannot be scored.

        Raises:
            ConnectorError: a row is longer than the context, or has nothing to score.
            EvaluationError: the metric does not suit the examples.
        """
        ...

    def evaluator(self, metric: Metric) -> Evaluator:
        """Scores candidates as the job's composition means them."""
        ...

    def plain(self, metric: Metric) -> Evaluator:
        """Scores candidates by exact composition: what base, one expert and the average are."""
        ...

    def merge(self, candidate: Candidate) -> StoredModel:
        """The model that a candidate means, rounded as it is stored."""
        ...
