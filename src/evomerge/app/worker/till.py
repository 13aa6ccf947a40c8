"""Scoring at a provider, paid out of a job's budget: booked before anything is sent."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Self

from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.engine import Database
from evomerge.app.db.repositories import calls, queue
from evomerge.app.db.repositories.calls import NOTHING, Booking, Cost
from evomerge.app.db.retry import retrying
from evomerge.app.schemas.spec import Budget
from evomerge.app.worker.ledger import Ledger
from evomerge.app.worker.spending import Spending
from evomerge.connectors.base import Scores, Usage
from evomerge.connectors.expert import Price
from evomerge.connectors.server import Most, RemoteScorer
from evomerge.evaluation import Example
from evomerge.optimizers import Candidate

# How long a write waits for a database that is away.
PATIENCE_SECONDS = 60.0


class Till:
    """Pays for one job.

    What the proof will cost is held back from the start, so that a search that reaches its
    budget still ends with a proven winner.

    Args:
        spending: what is left of the budget.
        write: does a unit of work in one fenced transaction.
        job_id: whose calls are booked.
        who: the server.
        price: of its tokens.

    Attributes:
        calls: what was spent over all attempts, by server.
    """

    def __init__(
        self,
        spending: Spending,
        write: Callable[[Callable[[AsyncSession], Awaitable[None]]], Awaitable[None]],
        job_id: str,
        who: str,
        price: Price,
    ) -> None:
        self._spending = spending
        self._write = write
        self._job_id = job_id
        self._price = price
        self._who = who
        self._held = NOTHING
        self.calls = {who: spending.spent}

    @classmethod
    async def of(
        cls, database: Database, ledger: Ledger, budget: Budget, who: str, price: Price
    ) -> Self:
        """The till of a job, with what earlier attempts have spent."""
        lease = ledger.lease

        async def total() -> Cost:
            async with database.read() as session:
                return await calls.total(session, lease.job_id)

        async def write(work: Callable[[AsyncSession], Awaitable[None]]) -> None:
            async def unit() -> None:
                async with database.write() as session:
                    await queue.fence(session, lease)
                    await work(session)

            await retrying(unit, PATIENCE_SECONDS)

        spent = await retrying(total, PATIENCE_SECONDS)
        # The search looks at the clock itself, and the proof of what it found runs in any case.
        untimed = budget.model_copy(update={"seconds": None})
        spending = Spending(untimed, spent, lambda: 0.0)
        return cls(spending, write, lease.job_id, who, price)

    def hold_back(self, most: Most) -> None:
        """Keep what the proof can cost out of the search's reach."""
        self._held = self._cost(most)

    def let_go(self) -> None:
        """The proof begins: what was held back for it may be spent."""
        self._held = NOTHING

    async def paid(self, most: Most, work: Callable[[], Awaitable[Scores]]) -> Scores:
        """The scores of `work`, with their price.

        Raises:
            BudgetReachedError: the most that it can cost is not left; nothing was sent.
            LeaseLostError: another worker has the job.
        """
        foreseen = self._cost(most)
        reserved = foreseen + self._held
        await self._spending.reserve(reserved)
        booking = Booking(secrets.randbits(62), "", foreseen)
        actual = foreseen  # also where it fails: the provider may have worked all the same
        try:
            await self._write(lambda s: calls.reserve(s, self._job_id, [booking]))
            scores = await work()
            actual = self._actual(most, scores.usage)
        finally:
            self._spending.settle(reserved, actual)
            self.calls[self._who] = self._spending.spent
        settled = replace(booking, cost=actual, settled=True)
        await self._write(lambda s: calls.revise(s, [settled]))
        return replace(scores, usage=replace(scores.usage, cost_usd=actual.usd))

    def _cost(self, most: Most) -> Cost:
        usd = self._price.of(most.input_tokens, most.output_tokens)
        return Cost(most.requests, most.input_tokens, most.output_tokens, usd)

    def _actual(self, most: Most, usage: Usage) -> Cost:
        usd = self._price.of(usage.tokens, most.output_tokens)
        return Cost(usage.requests, usage.tokens, most.output_tokens, usd)


class PaidEvaluator:
    """An `Evaluator` that pays before it scores."""

    def __init__(self, scorer: RemoteScorer, till: Till) -> None:
        self._scorer = scorer
        self._till = till

    def width(self, examples: Sequence[Example]) -> int:
        return self._scorer.width(examples)

    async def score(self, candidates: Sequence[Candidate], examples: Sequence[Example]) -> Scores:
        most = self._scorer.most(len(candidates), examples)
        return await self._till.paid(most, lambda: self._scorer.score(candidates, examples))
