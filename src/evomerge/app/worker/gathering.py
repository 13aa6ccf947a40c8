"""Every expert is asked about every example, once, within the budget."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evomerge.app.db.repositories.answers import Outcome
from evomerge.app.outputs import KnownExpert
from evomerge.app.schemas.spec import Budget
from evomerge.app.worker.answer_book import AnswerBook, Asked
from evomerge.app.worker.completeness import complete
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

# Of a job's running time: nothing is asked any more from here on, and nothing waited for from here
# on. The rest is for reading the answers and for the search.
ASKING, WAITING = 0.9, 0.95


def for_asking(budget: Budget) -> Budget:
    """What the asking alone may take of a job's budget."""
    return budget.model_copy(update={"seconds": _share(budget, ASKING)})


def _share(budget: Budget, share: float) -> float | None:
    return None if budget.seconds is None else share * budget.seconds


@dataclass(frozen=True)
class Answered:
    """One side of the data with what every expert said about it: `given[expert][example]`."""

    side: Side
    given: tuple[tuple[Given, ...], ...]


@dataclass(frozen=True)
class Gathered:
    """Both sides, as far as they are complete.

    Attributes:
        known: the experts that are in it.
        ended_by: the budget that left something out; None where none did.
        left_out: why, by name, the other experts are not in it.
    """

    known: tuple[KnownExpert, ...]
    search: Answered
    held_out: Answered
    ended_by: str | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Gathering:
    """Asks for one job, and goes on where an earlier attempt was.

    What the search has answers for is written down before it begins: later attempts take just
    that, whatever the book has learnt since.

    Attributes:
        known: the pool.
        budget: the job's; `book` has what is `for_asking` of it.
    """

    known: Sequence[KnownExpert]
    task: Task
    data: Data
    desk: Desk
    book: AnswerBook
    budget: Budget
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
            self._note(fixed)
            await self.desk.passes(self._progress(len(self._outcomes)), fixed)
        else:
            await self._recall(fixed)
        known = tuple(self.known[place] for place in fixed["experts"])
        return Gathered(
            known,
            self._answered(known, self.data.search, fixed["search"]),
            self._answered(known, self.data.held_out, fixed["held_out"]),
            fixed["ended_by"],
            fixed["left_out"],
        )

    async def _ask_all(self) -> str | None:
        """Ask in an order that leaves something useful wherever the budget ends."""
        asked = [one for example in self._interleaved() for one in self._about(example)]
        asking = asyncio.create_task(self._collect(asked))
        try:
            while not asking.done():
                left = self._seconds_left()
                if left <= 0:
                    return "seconds"
                await asyncio.wait([asking], timeout=min(LOOK_SECONDS, left))
                await self.desk.passes(self._progress(len(asked)))
            return asking.result()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    def _seconds_left(self) -> float:
        """How much longer to wait for what is under way."""
        latest = _share(self.budget, WAITING)
        if latest is None or not self.book.spending.under_way:
            return math.inf  # what is known already is looked up, however late it is
        return latest - self.desk.ledger.seconds

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
            (question, one.expert)
            for one in self.known
            for question in questions(one.expert, example, self.task)
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

    def _complete(self, ended_by: str | None) -> dict[str, Any]:
        """Who takes part, and the places of the examples of each side that they were asked about.

        Raises:
            JobError: nobody was asked enough.
        """
        search, held_out = self.data.search, self.data.held_out
        asked = np.array(
            [
                [self._was_asked(one.expert, example) for example in self._examples()]
                for one in self.known
            ]
        )
        behind = len(search.examples)
        parts = [slice(part.start, part.stop) for part in search.objective.slices]
        parts += [
            slice(behind + part.start, behind + part.stop) for part in held_out.objective.slices
        ]
        found = complete(asked, parts)
        if found is None:
            raise JobError(
                "budget_too_small",
                f"the budget of {ended_by} ({getattr(self.budget, ended_by or '', None)}) ran out "
                "before any expert was asked about one example of each dataset to search on and "
                "one to prove it on",
                f"budget.{ended_by}",
            )
        counts, total = asked.sum(axis=1).tolist(), asked.shape[1]
        return {
            "experts": list(found.experts),
            "search": np.flatnonzero(found.examples[:behind]).tolist(),
            "held_out": np.flatnonzero(found.examples[behind:]).tolist(),
            "left_out": {
                one.name: f"asked about {counts[place]} of {total} examples when the budget of "
                f"{ended_by} was reached"
                for place, one in enumerate(self.known)
                if place not in found.experts
            },
        }

    def _examples(self) -> tuple[Example, ...]:
        return self.data.search.examples + self.data.held_out.examples

    def _was_asked(self, expert: ApiExpert, example: Example) -> bool:
        return all(one.key in self._outcomes for one in questions(expert, example, self.task))

    def _answered(
        self, known: Sequence[KnownExpert], side: Side, places: Sequence[int]
    ) -> Answered:
        examples = tuple(side.examples[place] for place in places)
        sizes = tuple(
            sum(part.start <= place < part.stop for place in places)
            for part in side.objective.slices
        )
        taken = Side(examples, Objective(sizes, side.objective.weights))
        return Answered(
            taken,
            tuple(tuple(self._given(each.expert, one) for one in examples) for each in known),
        )

    def _given(self, expert: ApiExpert, example: Example) -> Given:
        found = [self._outcomes[one.key] for one in questions(expert, example, self.task)]
        return [one if isinstance(one, Answer) else None for one in found]

    def _note(self, fixed: Mapping[str, Any]) -> None:
        """Tell what is missing."""
        ledger, total, ended_by = self.desk.ledger, len(self._outcomes), fixed["ended_by"]
        refused = sum(not isinstance(one, Answer) for one in self._outcomes.values())
        ledger.note(
            f"{total} answers are there, {refused} of them refusals.",
            level="warn" if refused else "info",
            answers=total,
            refused=refused,
        )
        if ended_by is None:
            return
        examples = len(fixed["search"]) + len(fixed["held_out"])
        ledger.note(
            f"The budget of {ended_by} is reached: the job goes on with {len(fixed['experts'])} of "
            f"{len(self.known)} experts and the {examples} of {len(self._examples())} examples "
            "that each of them was asked about.",
            level="warn",
            budget=ended_by,
        )
        for name, reason in fixed["left_out"].items():
            ledger.note(f"Expert {name!r} is left out: {reason}.", level="warn", expert=name)

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
