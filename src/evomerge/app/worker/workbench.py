"""What the run of a job needs of models, whatever they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from evomerge.app.db.repositories.calls import Cost
from evomerge.app.schemas.spec import Metric
from evomerge.app.worker.inputs import Data
from evomerge.app.worker.order import Desk, Order
from evomerge.connectors.base import Evaluator, Usage
from evomerge.evaluation import Example
from evomerge.optimizers import Candidate, FloatArray


class StoredModel(Protocol):
    """A merged model exactly as it is stored, rounding and all."""

    @property
    def rank(self) -> int | None:
        """The rank of the adapter that is stored; None where none is."""
        ...

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
    def base_hash(self) -> str | None:
        """SHA-256 of the base model; None where there is none, so that it is no baseline."""
        ...

    def starts(self) -> Sequence[FloatArray]:
        """Weights that are known to be worth a look before the search, (experts,) each."""
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
        """Scores what base, one expert alone and the average are, without any composition."""
        ...

    def merge(self, candidate: Candidate) -> StoredModel:
        """The model that a candidate means, rounded as it is stored."""
        ...


@dataclass(frozen=True)
class Baseline:
    """One more model that the winner is held beside.

    Attributes:
        candidate: its weights, for the log.
        evaluator: scores it, given `candidate`. Baselines of one evaluator are scored together.
        metrics: those it can be measured by; None for all.
    """

    candidate: Candidate
    evaluator: Callable[[Metric], Evaluator]
    metrics: frozenset[str] | None = None


@dataclass(frozen=True)
class Prepared:
    """A pool made ready for one job.

    Attributes:
        bench: the pool.
        data: what can be searched and proven on.
        ended_by: the budget that left part of the data or experts out; None where all is whole.
        left_out: why, by name, experts of the pool are not in it.
        calls: what was spent on calls to APIs, over all attempts, by model.
        baselines: by name, beside those that every job has.
        reading: what this attempt has spent on reading before the search; None where models read
            as they are scored.
        free: whether candidates are scored from answers that are there, at the cost of nothing.
    """

    bench: Workbench
    data: Data
    ended_by: str | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    calls: Mapping[str, Cost] = field(default_factory=dict)
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    reading: Usage | None = None
    free: bool = False


# Makes a job's pool ready; slow.
Prepare = Callable[[Order, Data, Desk], Awaitable[Prepared]]
