"""Every expert is asked about every example, once, within the budget."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from evomerge.app.db.repositories.answers import Outcome
from evomerge.app.worker.answer_book import AnswerBook, Asked
from evomerge.app.worker.errors import JobError
from evomerge.app.worker.inputs import Data, Side
from evomerge.app.worker.order import Desk
from evomerge.app.worker.spending import BudgetReachedError
from evomerge.connectors.expert import ApiExpert
from evomerge.connectors.output.evidence import Given
from evomerge.connectors.output.questions import questions
from evomerge.connectors.output.task import Task
from evomerge.connectors.question import Answer
from evomerge.evaluation import Example, Objective

# Questions under way at once; how many go to one host is the connectors' to limit.
CONCURRENCY = 128
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Answered:
    """One side of the data with what every expert said about it: `given[expert][example]`."""

    side: Side
    given: tuple[tuple[Given, ...], ...]


@dataclass(frozen=True)
class Gathered:
    """Both sides, and the budget that left examples out; None where none did."""

    search: Answered
    held_out: Answered
    ended_by: str | None


@dataclass
class Gathering:
    """Asks for one job, and goes on where an earlier attempt was.

    What the search has answers for is written down before it begins: later attempts take just
    that, whatever the book has learnt since.
    """

    experts: Sequence[ApiExpert]
    task: Task
    data: Data
    desk: Desk
    book: AnswerBook
    _outcomes: dict[str, Outcome] = field(default_factory=dict)

    async def run(self, fixed: Mapping[str, Any] | None) -> Gathered:
        """Ask what is not known yet.

        Args:
            fixed: what an earlier attempt wrote down.

        Raises:
            JobError: the budget allows too little.
            AskError: an expert cannot be asked at all.
            StoppedError: a stop was asked for; every answer so far is kept.
            LeaseLostError: another worker has the job.
        """
        if fixed is None:
            ended_by = await self._ask_all()
            fixed = {"ended_by": ended_by, **self._complete(ended_by)}
            self._note(ended_by)
            await self.desk.passes(self._progress(len(self._outcomes)), fixed)
        else:
            await self._recall(fixed)
        return Gathered(
            self._answered(self.data.search, fixed["search"]),
            self._answered(self.data.held_out, fixed["held_out"]),
            fixed["ended_by"],
        )

    async def _ask_all(self) -> str | None:
        """Ask in an order that leaves something useful wherever the budget ends."""
        asked = [one for example in self._interleaved() for one in self._about(example)]
        asking = asyncio.create_task(self._collect(asked))
        try:
            while not asking.done():
                await asyncio.wait([asking], timeout=LOOK_SECONDS)
                await self.desk.passes(self._progress(len(asked)))
            return asking.result()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _collect(self, asked: Sequence[Asked]) -> str | None:
        try:
            async with aclosing(self.book.ask_all(asked, CONCURRENCY)) as outcomes:
                async for place, outcome in outcomes:
                    self._outcomes[asked[place][0].key] = outcome
        except BudgetReachedError as error:
            return error.budget
        return None

    async def _recall(self, fixed: Mapping[str, Any]) -> None:
        sides = ((self.data.search, fixed["search"]), (self.data.held_out, fixed["held_out"]))
        examples = [side.examples[place] for side, places in sides for place in places]
        keys = [question.key for one in examples for question, _ in self._about(one)]
        for start in range(0, len(keys), 500):
            self._outcomes |= await self.book.find(keys[start : start + 500])

    def _about(self, example: Example) -> list[Asked]:
        return [
            (question, expert)
            for expert in self.experts
            for question in questions(expert, example, self.task)
        ]

    def _interleaved(self) -> list[Example]:
        """The examples of both sides, so that any beginning has its share of each."""
        sides = (self.data.search.examples, self.data.held_out.examples)
        placed = [
            ((place + 0.5) / len(side), number, example)
            for number, side in enumerate(sides)
            for place, example in enumerate(side)
        ]
        return [example for *_, example in sorted(placed, key=lambda one: one[:2])]

    def _complete(self, ended_by: str | None) -> dict[str, list[int]]:
        """Places of the examples of each side that everybody was asked about."""
        places = {
            "search": self._places(self.data.search),
            "held_out": self._places(self.data.held_out),
        }
        for name, side in (("search", self.data.search), ("held_out", self.data.held_out)):
            if min(_sizes(side, places[name])) == 0:
                raise JobError(
                    "budget_too_small",
                    f"the budget of {ended_by} ran out before every expert was asked about "
                    f"one {name} example of each dataset",
                    f"budget.{ended_by}",
                )
        return places

    def _places(self, side: Side) -> list[int]:
        return [
            place
            for place, example in enumerate(side.examples)
            if all(question.key in self._outcomes for question, _ in self._about(example))
        ]

    def _answered(self, side: Side, places: Sequence[int]) -> Answered:
        examples = tuple(side.examples[place] for place in places)
        sizes = tuple(_sizes(side, places))
        taken = Side(examples, Objective(sizes, side.objective.weights))
        return Answered(
            taken,
            tuple(tuple(self._given(expert, one) for one in examples) for expert in self.experts),
        )

    def _given(self, expert: ApiExpert, example: Example) -> Given:
        found = [self._outcomes[one.key] for one in questions(expert, example, self.task)]
        return [one if isinstance(one, Answer) else None for one in found]

    def _note(self, ended_by: str | None) -> None:
        """Tell what is missing."""
        ledger, total = self.desk.ledger, len(self._outcomes)
        refused = sum(not isinstance(one, Answer) for one in self._outcomes.values())
        ledger.note(
            f"{total} answers are there, {refused} of them refusals.",
            level="warn" if refused else "info",
            answers=total,
            refused=refused,
        )
        if ended_by is not None:
            ledger.note(
                f"The budget of {ended_by} is reached: examples that not every expert was asked "
                "about are left out.",
                level="warn",
                budget=ended_by,
            )

    def _progress(self, wanted: int) -> dict[str, Any]:
        spent = self.book.spending.spent
        return {
            "stage": "asking",
            "answers": len(self._outcomes),
            "planned_answers": wanted,
            "requests": spent.requests,
            "input_tokens": spent.input_tokens,
            "output_tokens": spent.output_tokens,
            "usd": spent.usd,
        }


def _sizes(side: Side, places: Sequence[int]) -> list[int]:
    """How many of the places lie in each dataset of a side."""
    return [
        sum(part.start <= place < part.stop for place in places) for part in side.objective.slices
    ]
