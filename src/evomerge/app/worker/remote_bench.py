"""A pool that a provider merges, as a job uses it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.app.schemas.spec import Metric
from evomerge.app.worker.till import PaidEvaluator, Till
from evomerge.connectors.base import Evaluator, Scores
from evomerge.connectors.server import Most, RemoteScorer
from evomerge.evaluation import Example
from evomerge.optimizers import Candidate, FloatArray

MERGE = "merge.json"
# Winner, base, best expert and uniform average.
CONTENDERS = 4

# Writes what a candidate is at the provider into a folder, and tells of it; slow.
Keep = Callable[[Candidate, Path], dict[str, Any]]


def nothing_more(candidate: Candidate, folder: Path) -> dict[str, Any]:
    """For providers where weights by adapter id are all that a merge takes."""
    return {}


@dataclass(frozen=True)
class Place:
    """A provider as a job knows it.

    Attributes:
        about: what is told of it beside the weights.
        adapters: its names of the experts, in the candidates' order.
        base_hash: of the base; of who the server is, where its base is not here.
        scorer: of candidates as the job's composition means them, under a metric.
        plain: of what base, one expert alone and the average are.
        keep: what the result holds of the merge itself.
    """

    about: dict[str, Any]
    adapters: Sequence[str]
    base_hash: str
    scorer: Callable[[Metric], RemoteScorer]
    plain: Callable[[Metric], RemoteScorer]
    keep: Keep = nothing_more


class RemoteBench:
    """A `Workbench` over a provider; every request is paid at the till first."""

    def __init__(self, place: Place, till: Till) -> None:
        self._place = place
        self._till = till

    @property
    def base_hash(self) -> str:
        return self._place.base_hash

    def starts(self) -> Sequence[FloatArray]:
        return ()

    def check(self, metric: Metric, examples: Sequence[Example]) -> None:
        if examples:
            self._place.scorer(metric).check(examples)

    def hold_back(self, metrics: Sequence[Metric], examples: Sequence[Example]) -> None:
        """Keep what the proof will cost out of the search's reach."""
        costs = [self._place.plain(metric).most(CONTENDERS, examples) for metric in metrics]
        self._till.hold_back(sum(costs, Most()))

    def evaluator(self, metric: Metric) -> Evaluator:
        return PaidEvaluator(self._place.scorer(metric), self._till)

    def plain(self, metric: Metric) -> Evaluator:
        self._till.let_go()
        return PaidEvaluator(self._place.plain(metric), self._till)

    def merge(self, candidate: Candidate) -> StoredRemote:
        return StoredRemote(self, candidate)

    def proving(self, metric: Metric) -> Evaluator:
        """Scores the winner: what travels is what it is, so nothing else is stored."""
        self._till.let_go()
        return self.evaluator(metric)

    def write(self, candidate: Candidate, folder: Path) -> None:
        """What is needed to use the merge at the provider."""
        kept = self._place.keep(candidate, folder)
        weights = {
            name: {"alpha": float(alpha), "beta": float(beta)}
            for name, alpha, beta in zip(
                self._place.adapters, candidate.alpha[0], candidate.beta[0], strict=True
            )
        }
        merge = {**self._place.about, "adapters": weights, **kept}
        text = json.dumps(merge, indent=2, sort_keys=True, allow_nan=False)
        (folder / MERGE).write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True)
class StoredRemote:
    """A `StoredModel`: weights, and an adapter where the provider loads one."""

    bench: RemoteBench
    candidate: Candidate

    @property
    def rank(self) -> None:
        return None

    def evaluator(self, metric: Metric) -> Evaluator:
        return _Fixed(self.bench.proving(metric), self.candidate)

    def write(self, folder: Path) -> None:
        self.bench.write(self.candidate, folder)


@dataclass(frozen=True)
class _Fixed:
    """Scores one candidate, whichever is said to stand for it."""

    scorer: Evaluator
    candidate: Candidate

    def width(self, examples: Sequence[Example]) -> int:
        return 1

    async def score(self, candidates: Sequence[Candidate], examples: Sequence[Example]) -> Scores:
        return await self.scorer.score([self.candidate] * len(candidates), examples)
