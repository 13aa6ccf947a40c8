"""A pool of API experts as a job uses it: what they answered, fused by any candidate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from evomerge.app.outputs import StoredOutput
from evomerge.app.schemas.spec import Metric
from evomerge.app.worker.gathering import Answered, Gathered
from evomerge.connectors.base import Scores
from evomerge.connectors.expert import ApiExpert
from evomerge.connectors.output.evidence import fusion_of
from evomerge.connectors.output.questions import output_tokens, questions
from evomerge.connectors.output.task import Task
from evomerge.evaluation import Example
from evomerge.merging.output.fusion import Fusion, cost_share
from evomerge.merging.output.items import answer_format
from evomerge.merging.output.merge import OutputMerge
from evomerge.merging.output.starts import starts
from evomerge.optimizers import Candidate, FloatArray

# Candidates cost no call: a whole generation is scored, and logged, at once.
WIDTH = 1 << 20


@dataclass(frozen=True)
class Fused:
    """One side of the data, ready to score candidates on."""

    answered: Answered
    fusion: Fusion
    weights: FloatArray  # (n,) that sum to 1: how much each example counts in the objective

    @classmethod
    def of(cls, experts: Sequence[ApiExpert], answered: Answered, task: Task, head: float) -> Fused:
        """Slow: every answer is read.

        Raises:
            OutputTaskError: the answers of one expert cannot be fused with the others'.
        """
        examples, objective = answered.side.examples, answered.side.objective
        fusion = fusion_of(experts, examples, answered.given, task, head=head)
        return cls(answered, fusion, objective.example_weights(fusion.weights()))


class OutputBench:
    """A `Workbench` over answers.

    Args:
        task: how the experts were asked.
        gathered: what they answered.
        head, price: see `Fusion` of the job spec.

    Raises:
        OutputTaskError: the answers of one expert cannot be fused with the others'.
    """

    base_hash = None

    def __init__(
        self,
        task: Task,
        gathered: Gathered,
        *,
        head: float,
        price: float,
    ) -> None:
        experts = [one.expert for one in gathered.known]
        self._known = gathered.known
        self._task = task
        self._head = head
        self._price = price
        self._search = Fused.of(experts, gathered.search, task, head)
        self._held_out = Fused.of(experts, gathered.held_out, task, head)
        self._costs = _costs(experts, gathered.search.side.examples, task)

    def starts(self) -> Sequence[FloatArray]:
        examples = self._search.answered.side.examples
        options = (
            float(np.mean([len(one.choices) for one in examples]))
            if self._task.kind == "choice"
            else None
        )
        found = starts(self._search.fusion, self._task.metric, options, self._search.weights)
        # The first ones are every expert alone, which the search asks for anyway.
        return [candidate.beta[0] for candidate in found[len(self._known) :]]

    def check(self, metric: Metric, examples: Sequence[Example]) -> None:
        """Nothing is left to refuse: the job's creation looked at metric and experts."""

    def evaluator(self, metric: Metric) -> FusedEvaluator:
        return FusedEvaluator(self, metric)

    def plain(self, metric: Metric) -> FusedEvaluator:
        return FusedEvaluator(self, metric)

    def merge(self, candidate: Candidate) -> StoredMerge:
        alpha, beta = candidate.alpha[0], candidate.beta[0]
        thresholds = self._thresholds(candidate.alpha, candidate.beta)
        examples = self._search.answered.side.examples
        merge = OutputMerge(
            kind=self._task.kind,
            metric=self._task.metric,
            experts=tuple(one.name for one in self._known),
            alpha=tuple(alpha.tolist()),
            beta=tuple(beta.tolist()),
            threshold=None if thresholds is None else float(thresholds[0]),
            head=self._head,
            answer_format=answer_format([one.completion for one in examples]),
            choices=_shared_choices(examples),
        )
        return StoredMerge(self, candidate, StoredOutput(merge, self._task, self._known))

    def losses(
        self, metric: Metric, candidates: Sequence[Candidate], examples: Sequence[Example]
    ) -> tuple[FloatArray, FloatArray]:
        """(candidates, examples) losses and (examples,) weights; on search data with the price."""
        searching = examples is self._search.answered.side.examples
        fusion = (self._search if searching else self._held_out).fusion
        alpha = np.concatenate([one.alpha for one in candidates])
        beta = np.concatenate([one.beta for one in candidates])
        losses = fusion.losses(alpha, beta, metric, self._thresholds(alpha, beta))
        if searching and self._price:
            share = cost_share(fusion.kept(alpha, beta), self._costs)
            losses = losses + self._price * share[:, None]
        return losses, fusion.weights()

    def _thresholds(self, alpha: FloatArray, beta: FloatArray) -> FloatArray | None:
        # Always of the search side, under the search's metric: the proof is of a finished model.
        side = self._search
        return side.fusion.fit(alpha, beta, self._task.metric, side.weights)


class Losses(Protocol):
    """What candidates lose, from what is there already."""

    def losses(
        self, metric: Metric, candidates: Sequence[Candidate], examples: Sequence[Example]
    ) -> tuple[FloatArray, FloatArray]:
        """(candidates, examples) losses and (examples,) weights."""
        ...


class Stored(Protocol):
    """What a merge leaves on the disk."""

    def write(self, folder: Path) -> None:
        """See `StoredModel.write`."""
        ...


class FusedEvaluator:
    """Scores candidates from answers that are there already."""

    def __init__(
        self,
        bench: Losses,
        metric: Metric,
        meant: Callable[[Candidate], Candidate] = lambda candidate: candidate,
    ) -> None:
        self._bench = bench
        self._metric = metric
        self._meant = meant

    def width(self, examples: Sequence[Example]) -> int:
        return WIDTH

    async def score(self, candidates: Sequence[Candidate], examples: Sequence[Example]) -> Scores:
        meant = [self._meant(candidate) for candidate in candidates]
        losses, weights = await asyncio.to_thread(self._bench.losses, self._metric, meant, examples)
        return Scores(losses, weights)


@dataclass(frozen=True)
class StoredMerge:
    """A `StoredModel`: nothing is rounded, so it is the candidate itself."""

    bench: Losses
    candidate: Candidate
    stored: Stored

    @property
    def rank(self) -> None:
        return None

    def evaluator(self, metric: Metric) -> FusedEvaluator:
        return FusedEvaluator(self.bench, metric, lambda _: self.candidate)

    def write(self, folder: Path) -> None:
        self.stored.write(folder)


def _costs(experts: Sequence[ApiExpert], examples: Sequence[Example], task: Task) -> FloatArray:
    """Dollars that a question to each expert is expected to cost, (N,) float64."""
    return np.array(
        [
            sum(
                expert.price.of(
                    expert.input_tokens(one), output_tokens(expert, example, one).typical
                )
                for example in examples
                for one in questions(expert, example, task)
            )
            / len(examples)
            for expert in experts
        ]
    )


def _shared_choices(examples: Sequence[Example]) -> tuple[str, ...] | None:
    """The options that all rows share."""
    first = examples[0].choices
    return first if first and all(one.choices == first for one in examples) else None
