"""The evaluator of candidates that a provider merges: what vLLM, LoRAX and llama.cpp share.

The candidate travels to the provider, the texts are scored there, and log-probabilities come back.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from evomerge.connectors.base import Scores, Usage
from evomerge.connectors.errors import QuestionRefusedError
from evomerge.connectors.server import Most, Tally
from evomerge.connectors.together import together
from evomerge.evaluation.example import Example
from evomerge.evaluation.metrics import CROSS_ENTROPY, check_metric
from evomerge.optimizers.candidate import Candidate, FloatArray

CHOICE_ACCURACY = "choice_accuracy"
METRICS = (CROSS_ENTROPY, CHOICE_ACCURACY)
# Requests that keep a provider busy; a population is cut into pieces of about as many.
_UNDER_WAY = 64


@dataclass(frozen=True)
class Asked:
    """A text whose end is scored: an example with the answer to it (or one of its options)."""

    example: Example
    answer: str


@dataclass(frozen=True)
class Said:
    """What a provider made of one text.

    Attributes:
        nll: negative log-likelihood of the answer in nats; NaN where the candidate broke.
        scored: tokens of the answer that it sums over.
    """

    nll: float
    scored: int


class PlacedModel(Protocol):
    """One candidate, ready at the provider."""

    async def score(self, texts: Sequence[Asked]) -> Sequence[Said]:
        """Every text's score, in order.

        Raises:
            AskError: the provider does not answer.
        """
        ...


class Merger(Protocol):
    """A provider that merges candidates."""

    def check(self, texts: Sequence[Asked]) -> None:
        """Refuse, before anything is sent, texts that cannot be scored there.

        Raises:
            ConnectorError: a text does not fit, or has nothing to score.
        """
        ...

    def most(self, texts: Sequence[Asked]) -> Most:
        """What one candidate can use."""
        ...

    def opening(self, texts: Sequence[Asked]) -> Most:
        """What `open` can use, as far as it has not been done."""
        ...

    async def open(self, texts: Sequence[Asked], tally: Tally) -> None:
        """Whatever has to be known of the server before it is relied on; repeated calls are free.

        Raises:
            AskError: the server is away, or cannot do what is needed.
        """
        ...

    def placed(
        self, candidate: Candidate, tally: Tally
    ) -> AbstractAsyncContextManager[PlacedModel]:
        """The candidate at the provider for as long as the block runs, and never longer.

        Raises:
            AskError: the provider refuses it.
        """
        ...


class RemoteEvaluator:
    """Scores candidates at a provider under one metric; losses are those of `LocalEvaluator`.

    `cross_entropy` is the mean negative log-likelihood (nats a token) of each example's answer,
    weighted by its tokens; `choice_accuracy` compares the options' log-likelihoods, each divided
    by its length in bytes. NaN stands where a candidate broke.

    Args:
        merger: the provider.
        metric: one of `METRICS`.
        clock: seconds, for the usage.
    """

    def __init__(
        self,
        merger: Merger,
        metric: str = CROSS_ENTROPY,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._merger = merger
        self._metric = metric
        self._clock = clock

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse, before anything is spent, examples that cannot be scored.

        Raises:
            MetricError: the metric does not suit them.
            QuestionRefusedError: the metric needs answers to be generated.
            ConnectorError: see `Merger.check`.
        """
        if self._metric not in METRICS:
            raise QuestionRefusedError(
                "remote",
                f"metric {self._metric!r} needs generated answers; "
                f"a provider scores {' and '.join(METRICS)}",
                param="objective.metric",
                requests=0,
            )
        check_metric(self._metric, examples)
        self._merger.check(self._texts(examples))

    def most(self, candidates: int, examples: Sequence[Example]) -> Most:
        """See `RemoteScorer.most`."""
        texts = self._texts(examples)
        return self._merger.opening(texts) + candidates * self._merger.most(texts)

    def width(self, examples: Sequence[Example]) -> int:
        """See `Evaluator.width`: few, for what is in flight is lost in a crash."""
        return max(1, min(4, _UNDER_WAY // max(1, len(self._texts(examples)))))

    async def score(self, candidates: Sequence[Candidate], examples: Sequence[Example]) -> Scores:
        """See `Evaluator.score`. When cancelled it stops sending, and clears up at the provider.

        Raises:
            AskError: the provider does not answer.
            MetricError: the metric does not suit the examples.
        """
        started, tally = self._clock(), Tally()
        self.check(examples)
        texts = self._texts(examples)
        await self._merger.open(texts, tally)
        at_once = asyncio.Semaphore(self.width(examples))

        async def one(candidate: Candidate) -> Sequence[Said]:
            async with at_once, self._merger.placed(candidate, tally) as model:
                return await model.score(texts)

        said = await together([one(candidate) for candidate in candidates])
        nll = np.array([[text.nll for text in row] for row in said], np.float64)
        scored = np.array([text.scored for text in said[0]], np.float64)
        losses, weights = self._losses(nll, scored, examples)
        usage = Usage(requests=tally.requests, tokens=tally.tokens, seconds=self._clock() - started)
        return Scores(losses, weights, usage)

    def _losses(
        self, nll: FloatArray, scored: FloatArray, examples: Sequence[Example]
    ) -> tuple[FloatArray, FloatArray]:
        if self._metric == CROSS_ENTROPY:
            return nll / scored, scored
        return choice_losses(nll, examples), np.ones(len(examples))

    def _texts(self, examples: Sequence[Example]) -> list[Asked]:
        if self._metric == CROSS_ENTROPY:
            return [Asked(example, example.completion) for example in examples]
        return [Asked(example, choice) for example in examples for choice in example.choices]


def summed(numbers: Sequence[float | None]) -> Said:
    """The score of an answer by its tokens; one that is missing breaks it."""
    if any(one is None for one in numbers):
        return Said(math.nan, len(numbers))
    return Said(-sum(one for one in numbers if one is not None), len(numbers))


def choice_losses(nll: FloatArray, examples: Sequence[Example]) -> FloatArray:
    """0 where the right option is the likeliest a byte (the first of equals), else 1.

    Args:
        nll: (candidates, options of all examples), example by example.

    Returns:
        (candidates, examples) float64; NaN where an option has no number.
    """
    losses = np.empty((len(nll), len(examples)))
    begin = 0
    for index, example in enumerate(examples):
        sizes = [max(1, len(choice.encode())) for choice in example.choices]
        options = nll[:, begin : begin + len(sizes)] / sizes
        wrong = options.argmin(axis=1) != example.answer
        losses[:, index] = np.where(np.isnan(options).any(axis=1), np.nan, wrong)
        begin += len(sizes)
    return losses
