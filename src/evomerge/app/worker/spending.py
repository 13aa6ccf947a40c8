"""How much more a job may spend on calls to APIs: hard limits, reserved before anything is sent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from evomerge.app.db.repositories.calls import NOTHING, Cost
from evomerge.app.schemas.spec import Budget
from evomerge.app.worker.errors import JobError

# A sum of prices may miss a limit that it equals by what floats are off.
_ROUNDING = 1e-9
_COUNTED = ("requests", "input_tokens", "output_tokens", "usd")


class BudgetReachedError(JobError):
    """The next call could exceed the budget, whatever those under way come to.

    Attributes:
        budget: its name: requests, input_tokens, output_tokens, usd or seconds.
    """

    def __init__(self, budget: str) -> None:
        super().__init__("budget_reached", f"the budget of {budget} is reached", f"budget.{budget}")
        self.budget = budget


class Spending:
    """What one job has spent and reserved, in memory; its worker alone books for it.

    `spent + reserved` never passes a limit by a reservation. A call may settle above what was
    reserved for it only where the provider counts more tokens than were foreseen.

    Args:
        budget: the job's.
        spent: by earlier attempts, what they left unsettled included.
        seconds: running time so far, over all attempts.

    Attributes:
        spent: by calls that are settled.
        reserved: for calls under way.
    """

    def __init__(self, budget: Budget, spent: Cost, seconds: Callable[[], float]) -> None:
        self._limits = {name: getattr(budget, name) for name in _COUNTED}
        self._most_seconds = math.inf if budget.seconds is None else budget.seconds
        self._seconds = seconds
        # In order: whoever has waited longest looks first.
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._under_way = 0
        self.spent = spent
        self.reserved = NOTHING

    @property
    def under_way(self) -> int:
        """Calls that are not settled."""
        return self._under_way

    def take(self, cost: Cost) -> None:
        """Reserve more for a call that is under way, at once.

        Raises:
            BudgetReachedError: it does not fit.
        """
        name = self._exceeded_by(self.reserved + cost)
        if name is not None:
            raise BudgetReachedError(name)
        self.reserved += cost

    async def reserve(self, cost: Cost) -> None:
        """Reserve, once calls under way have left enough of what was reserved for them.

        Raises:
            BudgetReachedError: it would not fit even if they cost nothing.
        """
        while True:
            name = self._exceeded_by(cost)
            if name is not None:
                raise BudgetReachedError(name)
            if self._exceeded_by(self.reserved + cost) is None:
                self.reserved += cost
                self._under_way += 1
                return
            await self._change()

    def settle(self, reserved: Cost, actual: Cost) -> None:
        """Book what a call came to in place of all that was reserved for it."""
        self._under_way -= 1
        # Exactly nothing, once nothing is under way: sums of dollars are off by a little.
        self.reserved = self.reserved - reserved if self._under_way else NOTHING
        self.spent += actual
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def _exceeded_by(self, further: Cost) -> str | None:
        """The budget that what is spent and something further exceed."""
        if self._seconds() >= self._most_seconds:
            return "seconds"
        whole = self.spent + further
        for name, limit in self._limits.items():
            if limit is not None and getattr(whole, name) > limit * (1 + _ROUNDING):
                return name
        return None

    async def _change(self) -> None:
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[change] = None
        try:
            await change
        finally:
            del self._waiting[change]
