"""The proof: the stored winner beside the baselines, once, on data the search never saw."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from evomerge.app.db.repositories.evaluations import HELD_OUT, HELD_OUT_NUMBER, Scored
from evomerge.app.schemas.spec import Metric
from evomerge.app.worker.errors import StoppedError
from evomerge.app.worker.ledger import Ledger
from evomerge.app.worker.search import Place, scored_rows
from evomerge.app.worker.workbench import Baseline, StoredModel, Workbench
from evomerge.connectors.base import Evaluator
from evomerge.evaluation import Example, Objective, Report, compare
from evomerge.optimizers.candidate import Candidate, base, one_hot, uniform

WINNER = "winner"


@dataclass(frozen=True)
class Proof:
    """What held-out data says.

    Attributes:
        reports: by metric, in the order asked.
        evaluations, tokens, seconds: what it cost, over all attempts.
    """

    reports: dict[Metric, Report]
    evaluations: int
    tokens: int
    seconds: float


def contenders(
    winner: Candidate, best_expert: int | None, *, has_base: bool = True
) -> dict[str, Candidate]:
    """The candidates of the proof by name, the winner first."""
    experts, groups = winner.experts, winner.groups
    found = {WINNER: winner}
    if has_base:
        found["base"] = base(experts, groups)
    if best_expert is not None:
        found["best_expert"] = one_hot(best_expert, experts, groups)
    found["uniform"] = uniform(experts, groups)
    return found


@dataclass(frozen=True)
class Trial:
    """Scores the contenders and logs each cut, so that a crash pays for nothing twice.

    `baselines` stand behind the `contenders`, where a metric can measure them.
    """

    workbench: Workbench
    stored: StoredModel
    contenders: dict[str, Candidate]
    baselines: Mapping[str, Baseline]
    examples: Sequence[Example]
    objective: Objective
    ledger: Ledger
    progress: Mapping[str, object]
    stopping: asyncio.Event

    async def run(self, metrics: Sequence[Metric], seed: int) -> Proof:
        """Score what is not logged yet and weigh it all.

        Raises:
            StoppedError: a stop was asked for; everything scored is logged.
            ConnectorError: the models cannot be run.
            EvaluationError: the losses cannot be weighed.
            LeaseLostError: another worker has the job.
        """
        logged = await self.ledger.proof_log()
        rows = {
            metric: [row for row in logged if row.generation == number]
            for number, metric in enumerate(metrics)
        }
        for number, metric in enumerate(metrics):
            await self._complete(number, metric, rows[metric])
        every = [row for found in rows.values() for row in found]
        return Proof(
            reports={metric: self._report(metric, found, seed) for metric, found in rows.items()},
            evaluations=len(every),
            tokens=sum(row.tokens for row in every),
            seconds=sum(row.seconds for row in every),
        )

    async def _complete(self, number: int, metric: Metric, rows: list[Scored]) -> None:
        contenders = list(self._measured(metric).values())
        while len(rows) < len(contenders):
            start = len(rows)
            chosen = _alike(contenders[start:])
            evaluator = chosen[0].evaluator(metric)
            candidates = [one.candidate for one in chosen[: evaluator.width(self.examples)]]
            place = Place(HELD_OUT_NUMBER, HELD_OUT, number, start)
            rows.extend(await self._score(evaluator, place, candidates))

    def _measured(self, metric: Metric) -> dict[str, Baseline]:
        """Everything that the metric can measure, the winner first."""
        every = {
            name: Baseline(
                candidate, self.stored.evaluator if name == WINNER else self.workbench.plain
            )
            for name, candidate in self.contenders.items()
        }
        every |= self.baselines
        return {
            name: one for name, one in every.items() if one.metrics is None or metric in one.metrics
        }

    async def _score(
        self, evaluator: Evaluator, place: Place, chosen: Sequence[Candidate]
    ) -> list[Scored]:
        if self.stopping.is_set():
            raise StoppedError
        scores = await evaluator.score(chosen, self.examples)
        rows = scored_rows(place, chosen, scores, self.objective, keep_weights=True)
        if await self.ledger.record(rows, progress=self.progress):
            raise StoppedError
        return rows

    def _report(self, metric: Metric, rows: Sequence[Scored], seed: int) -> Report:
        names = self._measured(metric)
        losses = {name: row.losses for name, row in zip(names, rows, strict=True)}
        weights = rows[0].weights
        if weights is None:
            raise ValueError("a held-out row was logged without its weights")
        return compare(losses, weights, self.objective, winner=WINNER, seed=seed)


def _alike(contenders: Sequence[Baseline]) -> list[Baseline]:
    """The first, and those behind it that the same evaluator scores."""
    return list(takewhile(lambda one: one.evaluator == contenders[0].evaluator, contenders))
