"""Every question is paid for once: answers are kept by content, and shared by jobs and workers.

The order of a paid call is what makes that true across crashes: claim the question and reserve
its cost in one transaction; send; store the answer and settle the cost in one transaction; only
then use it. A killed worker leaves claims that lapse and reservations that count as spent.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from evomerge.app.db.engine import Database
from evomerge.app.db.repositories import answers, calls
from evomerge.app.db.repositories.answers import Outcome
from evomerge.app.db.repositories.calls import NOTHING, Cost
from evomerge.app.db.repositories.queue import Lease
from evomerge.app.db.retry import retrying
from evomerge.app.schemas.spec import Budget
from evomerge.app.worker.answer_writes import AnswerWrites, Owner, Verdict
from evomerge.app.worker.paid_call import PaidCall
from evomerge.app.worker.readings import Readings
from evomerge.app.worker.spending import BudgetReachedError, Spending
from evomerge.connectors.client import Call
from evomerge.connectors.errors import AskError, QuestionRefusedError
from evomerge.connectors.expert import ApiExpert
from evomerge.connectors.question import Answer, Question
from evomerge.connectors.registry import Asker

logger = logging.getLogger(__name__)

Asked = tuple[Question, ApiExpert]

LOOK_UP = 500  # keys in one query
FIRST_LOOK, LAST_LOOK = 0.02, 0.5  # seconds between looks at a question that another is asking
RENEWALS = 4  # of a claim within its lease


class AnswerBook:
    """Asks for one job what no job has asked before. Use as an async context manager.

    Its end cancels what is under way, gives its claims back, and waits until that is written.
    Tasks may share it, each on its own question or on the same.

    Args:
        database: where answers and calls are kept.
        lease: of the job; nothing is sent once another worker has it.
        connector: sends the questions.
        budget: the job's; hard.
        seconds: running time of the job so far, over all attempts.
        owner: of its claims, for people; made unique here.
        lease_seconds: how long a claim outlives its worker.
        patience: seconds to wait for a database that is away.
        sleep: waits between looks at a question that another is asking.

    Attributes:
        spending: what the job has spent; open once the block is entered.
    """

    spending: Spending

    def __init__(
        self,
        database: Database,
        lease: Lease,
        connector: Asker,
        budget: Budget,
        seconds: Callable[[], float],
        *,
        owner: str,
        lease_seconds: float = 5.0,
        patience: float = 60.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._database = database
        self._lease = lease
        self._connector = connector
        self._budget = budget
        self._seconds = seconds
        self._owner = Owner(f"{owner[:100]}:{secrets.token_hex(8)}", lease_seconds, patience)
        self._sleep = sleep
        self._writes = AnswerWrites(database, lease, self._owner)
        self._flights: dict[str, asyncio.Future[Outcome | None]] = {}
        self._claims: set[str] = set()
        self._readings = Readings()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        async def total() -> Cost:
            async with self._database.read() as session:
                return await calls.total(session, self._lease.job_id)

        spent = await retrying(total, self._owner.patience)
        self.spending = Spending(self._budget, spent, self._seconds)
        await self._writes.__aenter__()
        self._start(self._renew())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await _end(self._tasks)
        await self._writes.__aexit__(kind, error, traceback)

    async def find(self, keys: Sequence[str]) -> dict[str, Outcome]:
        """What is known of these questions, at no cost; what nobody has answered is left out.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database stayed away.
        """

        async def work() -> dict[str, Outcome]:
            async with self._database.read() as session:
                return await answers.find(session, keys)

        return await retrying(work, self._owner.patience)

    async def ask(self, question: Question, expert: ApiExpert) -> Answer:
        """The answer, from the book or else from the expert's API.

        Raises:
            QuestionRefusedError: this question cannot be answered, now or in an earlier job.
            AskError: there is no answer; a later call may give one.
            BudgetReachedError: it would have to be paid for, and may cost too much.
            LeaseLostError: another worker has the job.
            sqlalchemy.exc.SQLAlchemyError: the database stayed away.
        """
        known = await self.find([question.key])
        outcome = known.get(question.key) or await self._outcome(question, expert)
        if isinstance(outcome, QuestionRefusedError):
            raise outcome
        return outcome

    async def ask_all(
        self, asked: Sequence[Asked], concurrency: int
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Answers and refusals with the place of their question, as they come: known ones first.

        Close it when you leave it early (`contextlib.aclosing`): what is under way is cancelled.

        Args:
            concurrency: questions under way at once.

        Raises:
            BudgetReachedError: after everything under way has come in.
            AskError: but for refusals; the rest is cancelled, as for what follows.
            LeaseLostError: another worker has the job.
            sqlalchemy.exc.SQLAlchemyError: the database stayed away.
        """
        unknown: list[int] = []
        for start in range(0, len(asked), LOOK_UP):
            keys = [question.key for question, _ in asked[start : start + LOOK_UP]]
            known = await self.find(keys)
            for place, key in enumerate(keys, start):
                if key in known:
                    self._learn(*asked[place], known[key])
                    yield place, known[key]
                else:
                    unknown.append(place)
        ready: asyncio.Queue[tuple[int, Outcome] | asyncio.Task[None]] = asyncio.Queue()
        places = iter(unknown)
        tasks = {
            self._start(self._work(asked, places, ready))
            for _ in range(min(concurrency, len(unknown)))
        }
        for task in tasks:
            task.add_done_callback(ready.put_nowait)
        running, reached = len(tasks), None
        try:
            while running:
                one = await ready.get()
                if not isinstance(one, asyncio.Task):
                    yield one
                    continue
                running -= 1
                try:
                    one.result()
                except BudgetReachedError as error:
                    reached = reached or error
        finally:
            await _end(tasks)
        if reached is not None:
            raise reached

    async def usage(self) -> dict[str, Cost]:
        """All that the job has spent or reserved, by base URL and model."""

        async def work() -> dict[str, Cost]:
            async with self._database.read() as session:
                return await calls.by_model(session, self._lease.job_id)

        return await retrying(work, self._owner.patience)

    async def _work(
        self,
        asked: Sequence[Asked],
        places: Iterator[int],
        ready: asyncio.Queue[tuple[int, Outcome] | asyncio.Task[None]],
    ) -> None:
        """Ask one question after another; several tasks share the places."""
        for place in places:
            try:
                outcome = await self._outcome(*asked[place])
            except BudgetReachedError:
                for _ in places:  # the others shall begin nothing more
                    pass
                raise
            ready.put_nowait((place, outcome))

    async def _outcome(self, question: Question, expert: ApiExpert) -> Outcome:
        """Ask, or wait for whoever in this process is asking the same."""
        while (other := self._flights.get(question.key)) is not None:
            await asyncio.wait([other])
            outcome = other.result()
            if outcome is not None:
                return outcome
        flight = asyncio.get_running_loop().create_future()
        self._flights[question.key] = flight
        outcome = None
        try:
            margin = self._readings.margin(question.endpoint)
            outcome = await self._claim_and_send(PaidCall.of(question, expert, margin))
            self._learn(question, expert, outcome)
            return outcome
        finally:
            del self._flights[question.key]
            flight.set_result(outcome)

    async def _claim_and_send(self, call: PaidCall) -> Outcome:
        delay = FIRST_LOOK
        while True:
            verdict = await self._claim(call)
            if verdict.claimed:
                return await self._send(call)
            if verdict.outcome is not None:
                return verdict.outcome
            await self._sleep(delay)
            delay = min(1.5 * delay, LAST_LOOK)

    async def _claim(self, call: PaidCall) -> Verdict:
        try:
            await self.spending.reserve(call.foreseen)
        except BudgetReachedError:
            # Another job may have paid for it since.
            outcome = (await self.find([call.key])).get(call.key)
            if outcome is None:
                raise
            return Verdict(False, outcome)
        claimed = False
        try:
            verdict = await self._writes.claim(
                call.booking(call.foreseen, settled=False), call.model
            )
            claimed = verdict.claimed
            return verdict
        except asyncio.CancelledError:
            # Written or not, it is undone by the write that follows it.
            self._writes.let_go(call.booking(NOTHING, settled=True), call.model)
            raise
        finally:
            if not claimed:
                self.spending.settle(call.foreseen, NOTHING)

    async def _send(self, call: PaidCall) -> Outcome:
        self._claims.add(call.key)
        try:
            answer = await self._connector.ask(
                call.question, call.expert.capabilities, partial(self._attempt, call)
            )
            return await self._settle(call, call.answered(answer), answer) or answer
        except QuestionRefusedError as refusal:
            # Refused before anything was sent, it is our word and not the provider's: not kept.
            kept = refusal if refusal.requests else None
            return await self._settle(call, call.failed(refusal), kept) or refusal
        except AskError as error:
            await self._settle(call, call.failed(error), None)
            raise
        finally:
            self._claims.discard(call.key)
            if not call.settled:
                self._let_go(call)

    async def _attempt(self, call: PaidCall, sent: Call) -> None:
        """Before each request: those that repeat one are booked as well, with what that may cost.

        They never wait for room: they may hold the place that others need to make it. Time may have
        run out while the first one waited for its turn.
        """
        most = call.most(sent)
        self.spending.take(most - call.booked)
        if most != call.booked:
            call.booked = most
            await self._writes.book_more(call.booking(most, settled=False))
        call.sent = sent

    async def _settle(self, call: PaidCall, cost: Cost, outcome: Outcome | None) -> Outcome | None:
        call.settled = True
        self.spending.settle(call.booked, cost)
        return await self._writes.settle(call.booking(cost, settled=True), call.model, outcome)

    def _let_go(self, call: PaidCall) -> None:
        """Give the claim back without waiting; what was sent stays booked at what it may cost."""
        cost = call.left()
        call.settled = True
        self.spending.settle(call.booked, cost)
        self._writes.let_go(call.booking(cost, settled=True), call.model)

    def _learn(self, question: Question, expert: ApiExpert, outcome: Outcome) -> None:
        if isinstance(outcome, Answer):
            self._readings.see(question, expert, outcome)

    async def _renew(self) -> None:
        """Keep what is under way claimed, for as long as this process lives."""
        seconds = self._owner.lease_seconds
        while True:
            await asyncio.sleep(seconds / RENEWALS)
            if not self._claims:
                continue
            try:
                async with self._database.write() as session:
                    await answers.renew(session, self._claims, self._owner.name, seconds)
            except SQLAlchemyError as error:
                # The next one may come in time; if not, another may pay for the same once more.
                reason = str(error).partition("\n")[0]
                logger.warning("job %s: claims were not renewed: %s", self._lease.job_id, reason)

    def _start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended, however."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
