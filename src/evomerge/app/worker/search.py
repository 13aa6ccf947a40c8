"""The search: ask, score, log, tell, until the optimizer is done or the budget is reached."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from evomerge.app.db.repositories.evaluations import Recorded, Scored
from evomerge.app.worker.budget import Allowance
from evomerge.app.worker.errors import JobError, StoppedError
from evomerge.app.worker.ledger import Ledger, Note
from evomerge.app.worker.progress import Progress
from evomerge.app.worker.spending import BudgetReachedError
from evomerge.connectors.base import Evaluator, Scores
from evomerge.evaluation.example import Example
from evomerge.evaluation.objective import Objective
from evomerge.optimizers import (
    PROBE,
    Best,
    Candidate,
    OpenGeneration,
    Optimizer,
    RecordedEvaluation,
    replay,
)
from evomerge.optimizers.probe import WARM_START


@dataclass(frozen=True)
class GenerationSummary:
    """The losses of one generation; None where none was finite."""

    stage: str
    generation: int
    evaluations: int
    best: float | None
    mean: float | None


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        best: the optimizer's.
        best_expert: its index in the pool; None when no expert alone was scored well.
        generations: how the losses went.
        evaluations, tokens, seconds: what scoring cost, over all attempts.
        ended_by: the budget that cut the search short; None when it ran its course.
    """

    best: Best
    best_expert: int | None
    generations: tuple[GenerationSummary, ...]
    evaluations: int
    tokens: int
    seconds: float
    ended_by: str | None


@dataclass(frozen=True)
class Target:
    """What candidates are scored on.

    Attributes:
        free: whether scoring costs nothing but arithmetic. What is known to be worth a look is
            then scored however late it is: the answers may have taken all the time.
    """

    evaluator: Evaluator
    examples: Sequence[Example]
    objective: Objective
    free: bool = False


@dataclass
class Search:
    """One job's search, resumable at any cut.

    A population is scored in cuts of the evaluator's width. Each cut is logged, in one
    transaction, before the next is scored or the optimizer is told; what the log already holds
    is replayed. So the search after a crash is the search that would have been.

    Attributes:
        closed: whether an earlier attempt has gone on to the proof, and so has told already
            how the search ended.
    """

    optimizer: Optimizer
    target: Target
    allowance: Allowance
    ledger: Ledger
    progress: Progress
    stopping: asyncio.Event
    closed: bool = False
    _rows: list[Recorded] = field(default_factory=list)
    _ended_by: str | None = None
    _numbers: dict[str, int] = field(default_factory=dict)

    async def run(self) -> Found:
        """Search to the end.

        Raises:
            StoppedError: a stop was asked for; everything scored is logged.
            ReplayMismatchError: the log is not of this search.
            JobError: no candidate has a finite loss, or the budget allows none at all.
            ConnectorError: the models cannot be run.
            LeaseLostError: another worker has the job.
        """
        pending = self._replay(await self.ledger.search_log())
        while self._ended_by is None and (pending or not self.optimizer.done):
            await self._generation(pending or self._ask())
            pending = None
        if self._ended_by is not None and not self.closed:
            self.ledger.note(
                f"The budget of {self._ended_by} is reached: the best so far is taken.",
                level="warn",
                budget=self._ended_by,
            )
        return self._found()

    def _replay(self, log: Sequence[Recorded]) -> OpenGeneration | None:
        recorded = (
            RecordedEvaluation(row.stage, row.generation, row.index, row.candidate, row.loss)
            for row in log
        )
        pending = replay(self.optimizer, recorded)
        self._count(log)
        for row in log:
            self._numbers.setdefault(row.stage, len(self._numbers))
        if log and pending is None and not self.closed:
            # The note was waiting for the next cut when the earlier attempt ended.
            self._note_stage_end(log[-1].stage)
        return pending

    def _ask(self) -> OpenGeneration:
        stage, generation = self.optimizer.stage, self.optimizer.generation
        self._numbers.setdefault(stage, len(self._numbers))
        return OpenGeneration(stage, generation, self.optimizer.ask(), {})

    async def _generation(self, population: OpenGeneration) -> None:
        while population.missing and self._ended_by is None:
            await self._cut(population)
        # What the budget left unscored is told as broken: it teaches nothing that is used again,
        # and the optimizer's best is then the best of everything that was scored.
        losses = [population.losses.get(i, math.nan) for i in range(len(population.candidates))]
        self.optimizer.tell(population.candidates, np.array(losses))
        if not population.missing:
            self._note_stage_end(population.stage)

    async def _cut(self, population: OpenGeneration) -> None:
        """Score and log the next cut of a population, or find the budget reached."""
        if self.stopping.is_set():
            raise StoppedError
        start = population.missing[0]
        width = self.target.evaluator.width(self.target.examples)
        wanted = population.candidates[start : (start // width + 1) * width]
        allowed, self._ended_by = self.allowance.affords(len(wanted), self._seconds())
        if not allowed:
            return
        place = Place(
            self._numbers[population.stage], population.stage, population.generation, start
        )
        try:
            scores = await self.target.evaluator.score(wanted[:allowed], self.target.examples)
        except BudgetReachedError as reached:
            self._ended_by = reached.budget
            return
        rows = scored_rows(place, wanted[:allowed], scores, self.target.objective)
        self._count(rows)
        population.losses.update((row.index, row.loss) for row in rows)
        stop = await self.ledger.record(
            rows,
            progress=self.progress.snapshot(self.optimizer.planned_evaluations),
            metrics=None if population.missing else self._metrics(len(population.candidates)),
        )
        if stop:
            raise StoppedError

    def _seconds(self) -> float:
        """Running time, as far as it may end the search here."""
        known = self.optimizer.stage in (PROBE, WARM_START)
        if self.target.free and (known or not self._may_win()):
            return 0.0
        return self.ledger.seconds

    def _may_win(self) -> bool:
        """Whether a candidate that may be the winner is scored."""
        return any(row.stage in self.optimizer.competing for row in self._rows)

    def _metrics(self, size: int) -> Note:
        return self.progress.metrics(self._rows[-size:])

    def _count(self, rows: Sequence[Recorded]) -> None:
        self._rows.extend(rows)
        self.allowance.spend(len(rows), sum(row.tokens for row in rows))
        self.progress.add(rows, self.optimizer.competing)

    def _note_stage_end(self, stage: str) -> None:
        if not self.optimizer.done and self.optimizer.stage == stage:
            return
        rows = [row for row in self._rows if row.stage == stage]
        best = min((row.loss for row in rows if math.isfinite(row.loss)), default=None)
        shown = "none was finite" if best is None else f"{best:.6g}"
        self.ledger.note(
            f"Stage {stage} ended after {len(rows)} evaluations; its best loss: {shown}.",
            stage=stage,
            best_loss=best,
        )

    def _found(self) -> Found:
        best, best_expert = self.optimizer.best, self.optimizer.stage_bests.get(PROBE)
        if not self._may_win():
            raise JobError(
                "budget_too_small",
                f"the budget of {self._ended_by} ({self.allowance.limit(self._ended_by)}) ran out "
                "before a candidate that may win was scored",
                f"budget.{self._ended_by}",
            )
        if best is None:
            raise JobError(
                "no_finite_loss",
                f"none of the {len(self._rows)} candidates has a finite loss: "
                "the adapters or the base may hold broken weights",
            )
        return Found(
            best=best,
            best_expert=None if best_expert is None else best_expert.index,
            generations=_summaries(self._rows),
            evaluations=len(self._rows),
            tokens=sum(row.tokens for row in self._rows),
            seconds=sum(row.seconds for row in self._rows),
            ended_by=self._ended_by,
        )


@dataclass(frozen=True)
class Place:
    """Where a cut stands: its first candidate is number `start` of its generation."""

    stage_number: int
    stage: str
    generation: int
    start: int


def scored_rows(
    place: Place,
    candidates: Sequence[Candidate],
    scores: Scores,
    objective: Objective,
    *,
    keep_weights: bool = False,
) -> list[Scored]:
    """The rows to log of one scored cut; usage is shared out evenly."""
    means = objective.means(scores.losses, scores.weights)
    count = len(candidates)
    tokens, odd = divmod(scores.usage.tokens, count)
    return [
        Scored(
            stage_number=place.stage_number,
            stage=place.stage,
            generation=place.generation,
            index=place.start + number,
            candidate=candidate,
            loss=float(means[number]),
            tokens=tokens + (number < odd),
            seconds=scores.usage.seconds / count,
            losses=scores.losses[number],
            weights=scores.weights if keep_weights else None,
        )
        for number, candidate in enumerate(candidates)
    ]


def _summaries(rows: Sequence[Recorded]) -> tuple[GenerationSummary, ...]:
    summaries = []
    for (stage, generation), members in groupby(rows, key=lambda r: (r.stage, r.generation)):
        group = list(members)
        losses = [row.loss for row in group if math.isfinite(row.loss)]
        summaries.append(
            GenerationSummary(
                stage=stage,
                generation=generation,
                evaluations=len(group),
                best=min(losses, default=None),
                mean=sum(losses) / len(losses) if losses else None,
            )
        )
    return tuple(summaries)
