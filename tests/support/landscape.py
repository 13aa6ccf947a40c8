"""A pool without models: losses are random quadratic forms of a candidate, one an example.

Everything is a pure function of the examples' text, so that two processes agree to the bit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from evomerge.app.schemas.spec import Metric
from evomerge.app.worker.inputs import Data
from evomerge.app.worker.order import Desk, Order
from evomerge.app.worker.workbench import Prepared
from evomerge.connectors.base import Scores, Usage
from evomerge.evaluation import Example
from evomerge.optimizers import Candidate, FloatArray

TOKENS = 7  # of one example


async def _nothing(number: int) -> None:
    """What happens before a scoring call, unless a test wants something else."""


def loss_of(candidate: Candidate, example: Example) -> float:
    """|M (alpha * beta) - t|^2 / N with M and t drawn from the example's text."""
    weights = (candidate.alpha * candidate.beta).mean(axis=0)
    seed = int.from_bytes(sha256(example.completion.encode()).digest()[:8], "big")
    random = np.random.RandomState(seed % 2**32)
    matrix = np.eye(weights.size) + 0.2 * random.randn(weights.size, weights.size)
    target = 0.3 + 0.1 * random.randn(weights.size)
    target[-1] -= 0.6  # the last expert helps only when it is subtracted
    return float(np.sum(((matrix * weights).sum(axis=1) - target) ** 2) / weights.size)


@dataclass
class LandscapeEvaluator:
    """Scores candidates by formula.

    Attributes:
        cut: candidates of one call.
        before: awaited with the running number of each call before it scores.
        calls: every batch that was scored, for tests to look at.
    """

    cut: int = 4
    loss: Callable[[Candidate, Example], float] = loss_of
    before: Callable[[int], Awaitable[None]] = _nothing
    calls: list[int] = field(default_factory=list)

    def width(self, examples: Sequence[Example]) -> int:
        return self.cut

    async def score(self, candidates: Sequence[Candidate], examples: Sequence[Example]) -> Scores:
        await self.before(len(self.calls))
        self.calls.append(len(candidates))
        losses: FloatArray = np.array([[self.loss(c, e) for e in examples] for c in candidates])
        tokens = TOKENS * len(candidates) * len(examples)
        return Scores(losses, np.ones(len(examples)), Usage(tokens=tokens, seconds=0.001))


@dataclass
class LandscapeModel:
    """The candidate itself, rounded to half precision."""

    candidate: Candidate
    evaluate: LandscapeEvaluator
    rank: int | None = None

    def evaluator(self, metric: Metric) -> LandscapeEvaluator:
        return LandscapeEvaluator(
            self.evaluate.cut,
            lambda _, example: self.evaluate.loss(self.candidate, example),
            self.evaluate.before,
            self.evaluate.calls,
        )

    def write(self, folder: Path) -> None:
        np.save(folder / "weights.npy", np.stack([self.candidate.alpha, self.candidate.beta]))


@dataclass
class LandscapeBench:
    """A `Workbench` over the landscape."""

    evaluate: LandscapeEvaluator = field(default_factory=LandscapeEvaluator)
    base_hash: str = "0" * 64

    def starts(self) -> Sequence[FloatArray]:
        return ()

    def check(self, metric: Metric, examples: Sequence[Example]) -> None:
        pass

    def evaluator(self, metric: Metric) -> LandscapeEvaluator:
        return self.evaluate

    def plain(self, metric: Metric) -> LandscapeEvaluator:
        return self.evaluate

    def merge(self, candidate: Candidate) -> LandscapeModel:
        rounded = [a.astype(np.float16).astype(np.float64) for a in vars(candidate).values()]
        return LandscapeModel(Candidate(*rounded), self.evaluate)

    async def __call__(self, order: Order, data: Data, desk: Desk) -> Prepared:
        """Itself, as what makes pools ready."""
        return Prepared(self, data)
