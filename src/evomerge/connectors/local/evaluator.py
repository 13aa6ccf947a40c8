"""The evaluator of white-box candidates: a base in memory, candidates as low-rank updates."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from evomerge.connectors.base import Scores, Usage
from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.batches import width
from evomerge.connectors.local.forward import answer_nll
from evomerge.connectors.local.generation import Answer, greedy_answers
from evomerge.connectors.local.rows import Row, RowEncoder
from evomerge.connectors.local.stopping import Stopped, in_thread, never
from evomerge.evaluation.example import Example
from evomerge.evaluation.metrics import CROSS_ENTROPY, check_metric, metric_losses
from evomerge.merging.lora.population import Population
from evomerge.optimizers.candidate import Candidate

# Metrics that need no answer to be written.
LIKELIHOODS = frozenset({CROSS_ENTROPY, "choice_accuracy"})
# (models, rows) of rows.
Nll = Callable[[Sequence[Row]], NDArray[np.float64]]

_REMEMBERED_ROWS = 100_000


class Space(Protocol):
    """Turns candidates into updates of the base's weights."""

    def realise(self, candidates: Sequence[Candidate]) -> Population: ...


class Scoring(TypedDict, total=False):
    """How rows are made and run; see `LocalEvaluator`."""

    batch_tokens: int
    context_tokens: int | None
    answer_prefix: str
    end_of_text: bool
    max_new_tokens: int
    clock: Callable[[], float]


class LocalEvaluator:
    """Scores candidates of a space over one base under one metric.

    `cross_entropy` is the mean negative log-likelihood (nats a token) of each example's answer,
    weighted by its tokens. `choice_accuracy` compares the log-likelihood of all options, each
    divided by its length in bytes; a loss is 0 or 1. Every other metric scores greedy answers;
    a loss is 1 - score. NaN stands where a candidate broke the model.

    Args:
        base: the loaded base model; several evaluators may share it, one runs at a time.
        space: what a candidate means.
        metric: what the losses are.
        batch_tokens: padded tokens of one forward at most (a longer row runs alone).
        context_tokens, answer_prefix, end_of_text: see `RowEncoder`.
        max_new_tokens: limit of greedy generation.
        clock: seconds, for the usage.
    """

    def __init__(
        self,
        base: BaseModel,
        space: Space,
        metric: str = CROSS_ENTROPY,
        *,
        batch_tokens: int = 4096,
        context_tokens: int | None = None,
        answer_prefix: str = " ",
        end_of_text: bool = True,
        max_new_tokens: int = 64,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._base = base
        self._space = space
        self._metric = metric
        self._batch_tokens = batch_tokens
        self._max_new_tokens = max_new_tokens
        self._clock = clock
        encoder = RowEncoder(
            base.tokenizer,
            base.context_tokens,
            context_tokens=context_tokens,
            answer_prefix=answer_prefix,
            end_of_text=end_of_text,
        )
        remember = lru_cache(_REMEMBERED_ROWS)
        self._scored = remember(encoder.scored)
        self._asked = remember(encoder.asked)

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse, before anything is spent, examples that cannot be scored.

        Raises:
            MetricError: the metric does not suit them.
            ContextOverflowError, EmptyAnswerError: a row that does not fit, or has no answer.
        """
        check_metric(self._metric, examples)
        self.tokens(examples)

    def width(self, examples: Sequence[Example]) -> int:
        """See `Evaluator.width`: as many candidates as fit beside each other in one forward."""
        return width(self.tokens(examples), self._batch_tokens)

    async def score(self, candidates: Sequence[Candidate], examples: Sequence[Example]) -> Scores:
        """See `Evaluator.score`. Runs in a thread; when cancelled it stops after its batch.

        Raises:
            LocalModelError: the population is for another base, or a row does not fit.
            MetricError: the metric does not suit the examples.
        """
        return await in_thread(
            lambda stopped: self._score_candidates(candidates, examples, stopped)
        )

    async def score_population(self, population: Population, examples: Sequence[Example]) -> Scores:
        """The same for updates that are there already, such as those of a merged adapter."""
        return await in_thread(lambda stopped: self.score_now(population, examples, stopped))

    def _score_candidates(
        self, candidates: Sequence[Candidate], examples: Sequence[Example], stopped: Stopped
    ) -> Scores:
        """Realise only as many candidates at once as run at once."""
        step = self.width(examples)
        parts = [
            self.score_now(self._space.realise(candidates[at : at + step]), examples, stopped)
            for at in range(0, len(candidates), step)
        ]
        return Scores(
            losses=np.concatenate([each.losses for each in parts]),
            weights=parts[0].weights,
            usage=sum((each.usage for each in parts), Usage()),
        )

    def score_now(
        self, population: Population, examples: Sequence[Example], stopped: Stopped = never
    ) -> Scores:
        """What `score_population` does, on the thread it is called from.

        Raises:
            ScoringCancelledError: `stopped` said so; or as `score`.
        """
        started = self._clock()
        check_metric(self._metric, examples)
        tokens = population.size * self.tokens(examples)
        if self._metric in LIKELIHOODS:
            losses = self.likelihood_losses(
                lambda rows: answer_nll(
                    self._base, population, rows, batch_tokens=self._batch_tokens, stopped=stopped
                ),
                examples,
            )
        else:
            answers = self._answers(population, examples, stopped)
            losses = np.stack([self._answer_losses(said, examples) for said in answers])
        seconds = self._clock() - started
        return Scores(losses, self.weights(examples), Usage(tokens=tokens, seconds=seconds))

    def likelihood_losses(self, nll: Nll, examples: Sequence[Example]) -> NDArray[np.float64]:
        """Losses under a metric of `LIKELIHOODS`, out of what models make of rows.

        Args:
            nll: negative log-likelihoods (models, rows) of the scored tokens of rows.

        Returns:
            (models, examples) float64.
        """
        if self._metric == CROSS_ENTROPY:
            rows = [self._scored(example) for example in examples]
            return nll(rows) / [row.scored for row in rows]
        return self._choice_losses(nll, examples)

    def weights(self, examples: Sequence[Example]) -> NDArray[np.float64]:
        """How much each example counts in a mean, (examples,) float64."""
        if self._metric == CROSS_ENTROPY:
            return np.array([self._scored(example).scored for example in examples], float)
        return np.ones(len(examples))

    def rows(self, examples: Sequence[Example]) -> list[Row]:
        """The rows that score the examples' own completions.

        Raises:
            ContextOverflowError, EmptyAnswerError: as `check`.
        """
        return [self._scored(example) for example in examples]

    def _choice_losses(self, nll: Nll, examples: Sequence[Example]) -> NDArray[np.float64]:
        """0 where the right option is the likeliest a byte (the first of equals), else 1."""
        found = nll([row for example in examples for row in self._option_rows(example)])
        losses = np.empty((len(found), len(examples)))
        begin = 0
        for index, example in enumerate(examples):
            sizes = [max(1, len(choice.encode())) for choice in example.choices]
            options = found[:, begin : begin + len(sizes)] / sizes
            wrong = options.argmin(axis=1) != example.answer
            losses[:, index] = np.where(np.isnan(options).any(axis=1), np.nan, wrong)
            begin += len(sizes)
        return losses

    def _answers(
        self, population: Population, examples: Sequence[Example], stopped: Stopped
    ) -> list[list[Answer]]:
        return greedy_answers(
            self._base,
            population,
            [self._asked(example, self._max_new_tokens) for example in examples],
            max_new_tokens=self._max_new_tokens,
            batch_tokens=self._batch_tokens,
            stopped=stopped,
        )

    def _answer_losses(
        self, answers: Sequence[Answer], examples: Sequence[Example]
    ) -> NDArray[np.float64]:
        losses = metric_losses(self._metric, [answer.text for answer in answers], examples)
        return np.where([answer.broken for answer in answers], np.nan, losses)

    def _option_rows(self, example: Example) -> list[Row]:
        return [self._scored(example, choice) for choice in example.choices]

    def tokens(self, examples: Sequence[Example]) -> int:
        """Tokens that one candidate runs through the model (at most, where it generates)."""
        if self._metric == CROSS_ENTROPY:
            return sum(len(self._scored(example).tokens) for example in examples)
        if self._metric == "choice_accuracy":
            options = (row for example in examples for row in self._option_rows(example))
            return sum(len(row.tokens) for row in options)
        room = self._max_new_tokens
        return sum(len(self._asked(example, room)) + room for example in examples)
